/* The angle of one channel pair at one position, for rope.cu and persistent.cu. */
#ifndef NVLLM_OPS_ROPE_CUH
#define NVLLM_OPS_ROPE_CUH

#include "ops/cuda.cuh"

/* {cos, sin} * scale of the angle pos * frequency, which is rounded to float32 as in the reference. */
static __device__ __forceinline__ float2 rope_turn(int32_t pos, float frequency, float scale)
{
    double s, c;
    sincos((double)__fmul_rn((float)pos, frequency), &s, &c);
    return make_float2(scale * (float)c, scale * (float)s);
}

#endif
