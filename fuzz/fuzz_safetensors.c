/* Any bytes as a .safetensors file, and as the header (up to the first newline) and data of one whose length field is
 * right, so that mutations reach past it. Every tensor that was accepted is read to its last byte. */
#include "formats/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const uint8_t *data, size_t size)
{
    safetensors *file;
    nvllm_error err;
    volatile uint8_t sum = 0;
    if (safetensors_parse(&file, data, size, "fuzz.safetensors", &err)) return;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const tensor *t = safetensors_at(file, i);
        for (size_t j = 0; j < t->bytes; j++) sum ^= ((const uint8_t *)t->data)[j];
    }
    safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(data, size);
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    size_t header = newline ? (size_t)(newline - data) : size, rest = newline ? size - header - 1 : 0;
    uint8_t *framed = malloc(8 + header + rest);
    if (!framed) return 0;
    for (int i = 0; i < 8; i++) framed[i] = (uint8_t)((uint64_t)header >> (8 * i));
    memcpy(framed + 8, data, header);
    if (rest) memcpy(framed + 8 + header, newline + 1, rest);
    parse(framed, 8 + header + rest);
    free(framed);
    return 0;
}
