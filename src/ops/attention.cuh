/* What attention.cu and rope_attention.cu share: a head's norm and rotation by one warp, and the launches. */
#ifndef NVLLM_OPS_ATTENTION_CUH
#define NVLLM_OPS_ATTENTION_CUH

#include "ops/cuda.cuh"

/* Attention of the rows that have exactly one token in this step; other rows are left alone. With a->k, q and k are
 * normed and turned on the way, and k and v written into the cache; without it all of that was done before. */
void attention_of_single_tokens(const op_rope_attention_args *a, const cuda_context *cuda);

/* Attention of the rows with more than one token, whose K and V are in the cache. */
void attention_of_prompts(const op_attention_args *a, const cuda_context *cuda);

template <class E> static __device__ __forceinline__ E narrow(float v);
template <> __device__ __forceinline__ float narrow<float>(float v)
{
    return v;
}
template <> __device__ __forceinline__ __half narrow<__half>(float v)
{
    return __float2half_rn(v);
}
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float v)
{
    return __float2bfloat16_rn(v);
}

/* The row of token t; empty rows have none. */
static __device__ __forceinline__ int row_of(const int32_t *row_start, int R, int t)
{
    int low = 0, high = R - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (row_start[middle] <= t)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* First element of slot `slot`, head k, in a pool. */
static __device__ __forceinline__ size_t pool_index(const kv_layer &kv, int slot, int k)
{
    return (((size_t)(slot / kv.S) * kv.K + k) * kv.S + slot % kv.S) * kv.C;
}

/* A head as the C/2 pairs that RoPE turns, C at most 64 * N: lane l of a warp holds the pairs l, l + 32, .. */
template <int N> struct head_pairs {
    float2 x[N];
};

static __device__ __forceinline__ int2 pair_at(int pair, int half, rope_pairing pairing)
{
    return pairing == ROPE_PAIRS ? make_int2(2 * pair, 2 * pair + 1) : make_int2(pair, pair + half);
}

template <int N>
static __device__ __forceinline__ head_pairs<N> load_head(const float *head, int C, rope_pairing pairing)
{
    head_pairs<N> h;
    int lane = threadIdx.x % 32, half = C / 2;
#pragma unroll
    for (int i = 0; i < N; i++) {
        int pair = lane + 32 * i;
        int2 at = pair_at(pair, half, pairing);
        h.x[i] = pair < half ? make_float2(head[at.x], head[at.y]) : make_float2(0, 0);
    }
    return h;
}

template <int N>
static __device__ __forceinline__ void norm_head(head_pairs<N> &h, const head_pairs<N> &w, int C, float eps)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N; i++) sum += h.x[i].x * h.x[i].x + h.x[i].y * h.x[i].y;
    float scale = rsqrtf(__fdividef(warp_sum(sum), (float)C) + eps); /* both to 2 units in the last place */
#pragma unroll
    for (int i = 0; i < N; i++) {
        h.x[i].x = w.x[i].x * (h.x[i].x * scale);
        h.x[i].y = w.x[i].y * (h.x[i].y * scale);
    }
}

/* Cosines and sines of the pairs; cos, sin: [C/2] of the token. */
template <int N>
static __device__ __forceinline__ head_pairs<N> load_turn(const float *cos, const float *sin, int C)
{
    head_pairs<N> turn;
#pragma unroll
    for (int i = 0; i < N; i++) {
        int pair = threadIdx.x % 32 + 32 * i;
        turn.x[i] = pair < C / 2 ? make_float2(cos[pair], sin[pair]) : make_float2(0, 0);
    }
    return turn;
}

template <int N> static __device__ __forceinline__ void turn_head(head_pairs<N> &h, const head_pairs<N> &turn)
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        float2 x = h.x[i], by = turn.x[i];
        h.x[i] = make_float2(x.x * by.x - x.y * by.y, x.y * by.x + x.x * by.y);
    }
}

#endif
