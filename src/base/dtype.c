/* The table of element formats; see dtype.h. */
#include "base/dtype.h"
#include "base/half.h"

#include <string.h>

static const struct {
    const char *name;
    int32_t block, block_bytes;
} table[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 1, 4},
    [DTYPE_F16] = {"F16", 1, 2},
    [DTYPE_BF16] = {"BF16", 1, 2},
    [DTYPE_Q8_0] = {"Q8_0", Q8_0_BLOCK, Q8_0_BLOCK_BYTES},
};

const char *dtype_name(dtype type)
{
    return (unsigned)type < DTYPE_COUNT ? table[type].name : "unknown";
}

int64_t dtype_block(dtype type)
{
    return table[type].block;
}

size_t dtype_block_bytes(dtype type)
{
    return (size_t)table[type].block_bytes;
}

size_t dtype_row_bytes(dtype type, int64_t elements)
{
    return (size_t)(elements / table[type].block) * (size_t)table[type].block_bytes;
}

static void q8_0_to_float(float *out, const uint8_t *src, int64_t count)
{
    for (int64_t i = 0; i < count; i += Q8_0_BLOCK, src += Q8_0_BLOCK_BYTES) {
        uint16_t half;
        memcpy(&half, src, sizeof half);
        float scale = f16_to_float(half);
        for (int j = 0; j < Q8_0_BLOCK; j++) out[i + j] = scale * (float)(int8_t)src[2 + j];
    }
}

void dtype_to_float(float *out, const void *src, dtype type, int64_t count)
{
    const uint8_t *bytes = src;
    uint16_t half;
    switch (type) {
    case DTYPE_F32: memcpy(out, src, (size_t)count * sizeof *out); break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, bytes + 2 * i, sizeof half);
            out[i] = bf16_to_float(half);
        }
        break;
    case DTYPE_F16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, bytes + 2 * i, sizeof half);
            out[i] = f16_to_float(half);
        }
        break;
    case DTYPE_Q8_0: q8_0_to_float(out, bytes, count); break;
    case DTYPE_COUNT: break;
    }
}
