/* How a block streams bf16 weights past a few tokens' inputs: the geometry of its ring in shared memory, and one step of
 * products. linear_few.cu says how it all goes together. */
#ifndef NVLLM_OPS_LINEAR_STREAM_CUH
#define NVLLM_OPS_LINEAR_STREAM_CUH

#include "ops/cuda.cuh"

enum {
    STREAM_WARPS = 8,
    STREAM_THREADS = STREAM_WARPS * 32,
    LOADS = 4,                                 /* 16-byte loads per lane and step */
    WARP_COLS = LOADS * 32,                    /* of a step */
    STEP_COLS = STREAM_WARPS * WARP_COLS,      /* 1024 columns per step of the block */
    STAGE_BYTES = STREAM_THREADS * LOADS * 16, /* 16 KB */
    TILE_ROWS = 8,
    COLS_PAD = WARP_COLS /* inputs are padded with zeros to a multiple of this */
};

/* 16 bytes into shared memory, or zeros. */
static __device__ __forceinline__ void copy_16(void *to, const void *from, bool there)
{
    async_copy_l2_128(shared_address(to), from, there ? 16 : 0);
}

static __device__ __forceinline__ uint2 narrow_4(float4 v)
{
    return make_uint2(narrow_pair(v.x, v.y, __nv_bfloat16()), narrow_pair(v.z, v.w, __nv_bfloat16()));
}

/* The inputs of one step, of the token that this lane holds. */
static __device__ __forceinline__ void load_inputs(uint4 (&in)[LOADS], const __nv_bfloat16 *x, bool has_token)
{
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        in[i] = make_uint4(0, 0, 0, 0);
        if (has_token) in[i] = *(const uint4 *)(x + i * 32);
    }
}

/* One step: this lane's LOADS x 16 bytes of weights, a warp's from one to the next, against them. */
static __device__ __forceinline__ void multiply_step(float (&sum)[LOADS][4], const uint4 *stage,
                                                     const uint4 (&in)[LOADS])
{
    uint4 w[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) w[i] = stage[i * 32];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        uint32_t x_low[4] = {in[i].x, 0, in[i].y, 0};
        mma_16x8x16(sum[i], x_low, w[i].x, w[i].y, __nv_bfloat16());
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        uint32_t x_high[4] = {in[i].z, 0, in[i].w, 0};
        mma_16x8x16(sum[i], x_high, w[i].z, w[i].w, __nv_bfloat16());
    }
}

/* The warp's sums of one tile into its place in the group's buffer: [tile, token, row]. */
static __device__ __forceinline__ void put_sums(float (&sum)[LOADS][4], float *to, bool has_token)
{
    float2 total = make_float2((sum[0][0] + sum[1][0]) + (sum[2][0] + sum[3][0]),
                               (sum[0][1] + sum[1][1]) + (sum[2][1] + sum[3][1]));
    if (has_token) *(float2 *)to = total;
#pragma unroll
    for (int i = 0; i < LOADS; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0;
}

#endif
