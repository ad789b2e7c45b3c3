/* Writes GGUF bytes for tests: keys and tensor descriptions in the order of the calls, then data. */
#ifndef NVLLM_GGUF_BUILDER_H
#define NVLLM_GGUF_BUILDER_H

#include "base/buffer.h"
#include "formats/gguf.h"

#include <stdint.h>
#include <string.h>

static inline void put_number(buffer *b, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) buffer_putc(b, (char)(value >> (8 * i)));
}

static inline void put_header(buffer *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
    buffer_append(b, "GGUF", 4);
    put_number(b, version, 4);
    put_number(b, tensors, 8);
    put_number(b, keys, 8);
}

static inline void put_string(buffer *b, const char *text)
{
    put_number(b, strlen(text), 8);
    buffer_puts(b, text);
}

static inline void put_key(buffer *b, const char *key, gguf_type type)
{
    put_string(b, key);
    put_number(b, type, 4);
}

static inline void put_u32(buffer *b, const char *key, uint32_t value)
{
    put_key(b, key, GGUF_U32);
    put_number(b, value, 4);
}

static inline void put_f32(buffer *b, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(b, key, GGUF_F32);
    put_number(b, bits, 4);
}

static inline void put_text(buffer *b, const char *key, const char *value)
{
    put_key(b, key, GGUF_STRING);
    put_string(b, value);
}

/* A tensor of `inner` x `outer` elements (outer 0: one dimension) of ggml's type number. */
static inline void put_tensor(buffer *b, const char *name, uint64_t inner, uint64_t outer, uint32_t type,
                              uint64_t offset)
{
    put_string(b, name);
    put_number(b, outer ? 2 : 1, 4);
    put_number(b, inner, 8);
    if (outer) put_number(b, outer, 8);
    put_number(b, type, 4);
    put_number(b, offset, 8);
}

/* Zeros up to a multiple of 32, then `bytes` more. */
static inline void put_data(buffer *b, size_t bytes)
{
    while (b->len % 32 != 0) buffer_putc(b, 0);
    for (size_t i = 0; i < bytes; i++) buffer_putc(b, (char)i);
}

#endif
