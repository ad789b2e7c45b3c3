/* Any bytes as a .safetensors file: parsed, and every tensor that was accepted is read to its last byte. */
#include "formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    safetensors *file;
    nvllm_error err;
    volatile uint8_t sum = 0;
    if (safetensors_parse(&file, data, size, "fuzz.safetensors", &err)) return 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const tensor *t = safetensors_at(file, i);
        for (size_t j = 0; j < t->bytes; j++) sum ^= ((const uint8_t *)t->data)[j];
    }
    safetensors_close(file);
    return 0;
}
