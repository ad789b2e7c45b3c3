/* bfloat16 as CUDA names it. */
#ifndef NVLLM_EMULATOR_CUDA_BF16_H
#define NVLLM_EMULATOR_CUDA_BF16_H

#include "base/half.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline float __bfloat162float(__nv_bfloat16 v)
{
    return bf16_to_float(v.bits);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float v)
{
    return {bf16_from_float(v)};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {{bf16_from_float(x)}, {bf16_from_float(y)}};
}

#endif
