/* Inputs of Q8_0 products on the GPU, rounded to int8 in blocks of 32 with scale amax/127, as ggml and the reference do. */
#ifndef NVLLM_OPS_LINEAR_Q8_CUH
#define NVLLM_OPS_LINEAR_Q8_CUH

#include "ops/linear_rows.cuh"

enum { Q8_LANES = Q8_0_BLOCK / 4 }; /* that round a block together, four inputs each */

typedef struct {
    uint32_t four; /* int8, the first in the lowest byte */
    float scale;   /* of the block */
} q8_four;

static __device__ __forceinline__ float largest(const float4 &x)
{
    return fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
}

static __device__ __forceinline__ uint32_t round_to_int8(const float4 &x, float inverse)
{
    const float v[4] = {x.x, x.y, x.z, x.w};
    uint32_t four = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) four |= (uint32_t)(uint8_t)(int)rintf(__fmul_rn(v[i], inverse)) << 8 * i;
    return four;
}

/* Q8_LANES lanes beside each other bring a block; a whole warp calls. */
static __device__ __forceinline__ q8_four round_four(const float4 &x)
{
    float most = largest(x);
    for (int lanes = Q8_LANES / 2; lanes > 0; lanes >>= 1)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
    q8_four r;
    r.four = round_to_int8(x, most > 0 ? __fdiv_rn(127.0f, most) : 0);
    r.scale = __fdiv_rn(most, 127.0f);
    return r;
}

#endif
