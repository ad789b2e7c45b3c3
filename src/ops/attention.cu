/* Paged attention on the GPU, split over the context, and the write into the cache.
 *
 * A block does one token, one kv head (up to 4 of its query heads) and one split of SPLIT absolute positions: four
 * warps take positions in turn, a lane holds C/32 elements of q and of the running sum (online softmax,
 * arXiv:1805.02867). A second kernel merges the splits. The grid covers the longest context, blocks past the row's
 * end leave at once, so one captured graph serves every length.
 * Decode is bound by reading the cache: 2*K*C*size bytes per position. */
#include "ops/cuda.cuh"

#include <math_constants.h>

enum { SPLIT = 64, WARPS = 4, TOKENS = 32 };

/* ---- KV write ------------------------------------------------------------------------------------------------ */

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

static __device__ __forceinline__ float widen(float v)
{
    return v;
}
static __device__ __forceinline__ float widen(__half v)
{
    return __half2float(v);
}
static __device__ __forceinline__ float widen(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}

template <class E> static __global__ void kv_write(op_kv_write_args a)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x, slot = a.slot[t], page = slot / a.kv.S, offset = slot % a.kv.S;
    for (int i = threadIdx.x; i < a.kv.K * a.kv.C; i += blockDim.x) {
        int head = i / a.kv.C, c = i % a.kv.C;
        size_t at = (((size_t)page * a.kv.K + head) * a.kv.S + offset) * a.kv.C + c;
        ((E *)a.kv.k_pool)[at] = narrow<E>(a.k[(size_t)t * a.stride + i]);
        ((E *)a.kv.v_pool)[at] = narrow<E>(a.v[(size_t)t * a.stride + i]);
    }
}

extern "C" void op_kv_write_cuda(const op_kv_write_args *a, const cuda_context *cuda)
{
    switch (a->kv.format) {
    case DTYPE_F32: launch(cuda, kv_write<float>, a->T, 256, 0, *a); break;
    case DTYPE_F16: launch(cuda, kv_write<__half>, a->T, 256, 0, *a); break;
    default: launch(cuda, kv_write<__nv_bfloat16>, a->T, 256, 0, *a); break;
    }
}

/* ---- Attention ----------------------------------------------------------------------------------------------- */

/* A partial result: max, sum of weights, then the weighted sum of V, C floats. sum 0: the split saw nothing. */
static __device__ __forceinline__ float *partial_of(float *scratch, int t, int H, int h, int splits,
                                                    int split, int C)
{
    return scratch + ((((size_t)t * H + h) * splits + split) * (C + 2));
}

/* The token's row and position: rows are few, so a walk over row_start is cheap. */
static __device__ __forceinline__ int row_of(const op_attention_args &a, int t)
{
    int r = 0;
    while (r + 1 < a.R && t >= a.row_start[r + 1]) r++;
    return r;
}

/* E: KV element; G: query heads handled together; I: ceil(C / 32). */
template <class E, int G, int I>
static __global__ void attend(op_attention_args a, float *scratch, int splits, int groups_per_head,
                              int first_token)
{
    kernel_begins();
    kernel_waits();
    __shared__ float shared_max[WARPS][G], shared_sum[WARPS][G], shared_v[WARPS][G][I * 32];
    int split = blockIdx.x, head = blockIdx.y / groups_per_head, z = blockIdx.z, t = first_token + z;
    int ratio = a.H / a.kv.K, C = a.kv.C, S = a.kv.S;
    int g0 = blockIdx.y % groups_per_head * G, n_group = min(G, ratio - g0), h0 = head * ratio + g0;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int r = row_of(a, t), pos = a.kv_len[r] - (a.row_start[r + 1] - t);
    int begin = max(split * SPLIT, a.window > 0 ? pos - a.window + 1 : 0),
        end = min((split + 1) * SPLIT, pos + 1);
    if (begin >= end) {
        if (threadIdx.x < n_group) partial_of(scratch, z, a.H, h0 + threadIdx.x, splits, split, C)[1] = 0;
        return;
    }
    float q[G][I], v_sum[G][I] = {}, most[G], total[G] = {};
#pragma unroll
    for (int g = 0; g < G; g++) {
        most[g] = -CUDART_INF_F;
#pragma unroll
        for (int i = 0; i < I; i++) {
            int c = lane + 32 * i;
            bool there = c < C && g < n_group;
            q[g][i] = there ? a.q[(size_t)t * a.q_stride + (size_t)(h0 + g) * C + c] * a.scale : 0;
        }
    }
    for (int j = begin + warp; j < end; j += WARPS) {
        size_t at = (((size_t)a.pages[(size_t)r * a.P + j / S] * a.kv.K + head) * S + j % S) * C;
        const E *k_row = (const E *)a.kv.k_pool + at, *v_row = (const E *)a.kv.v_pool + at;
        float k[I], v[I];
#pragma unroll
        for (int i = 0; i < I; i++) {
            int c = lane + 32 * i;
            k[i] = c < C ? widen(k_row[c]) : 0;
            v[i] = c < C ? widen(v_row[c]) : 0;
        }
#pragma unroll
        for (int g = 0; g < G; g++) {
            float score = 0;
#pragma unroll
            for (int i = 0; i < I; i++) score = fmaf(q[g][i], k[i], score);
            score = warp_sum(score);
            float new_most = fmaxf(most[g], score), old = expf(most[g] - new_most),
                  weight_now = expf(score - new_most);
            total[g] = total[g] * old + weight_now;
            most[g] = new_most;
#pragma unroll
            for (int i = 0; i < I; i++) v_sum[g][i] = v_sum[g][i] * old + weight_now * v[i];
        }
    }
#pragma unroll
    for (int g = 0; g < G; g++) {
        if (lane == 0) {
            shared_max[warp][g] = most[g];
            shared_sum[warp][g] = total[g];
        }
#pragma unroll
        for (int i = 0; i < I; i++) shared_v[warp][g][lane + 32 * i] = v_sum[g][i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_group * C; i += blockDim.x) {
        int g = i / C, c = i % C;
        float top = -CUDART_INF_F, sum = 0, value = 0;
        for (int w = 0; w < WARPS; w++) top = fmaxf(top, shared_max[w][g]);
        for (int w = 0; w < WARPS; w++) {
            float factor = shared_sum[w][g] > 0 ? expf(shared_max[w][g] - top) : 0;
            sum += factor * shared_sum[w][g];
            value += factor * shared_v[w][g][c];
        }
        float *partial = partial_of(scratch, z, a.H, h0 + g, splits, split, C);
        partial[2 + c] = value;
        if (c == 0) {
            partial[0] = top;
            partial[1] = sum;
        }
    }
}

/* One block per head and token: the splits' results weighted to a common maximum. */
static __global__ void merge(op_attention_args a, const float *scratch, int splits, int first_token)
{
    kernel_begins();
    kernel_waits();
    int h = blockIdx.x, z = blockIdx.y, t = first_token + z, C = a.kv.C;
    int r = row_of(a, t), pos = a.kv_len[r] - (a.row_start[r + 1] - t), used = pos / SPLIT + 1;
    int first = a.window > 0 && pos - a.window + 1 > 0 ? (pos - a.window + 1) / SPLIT : 0;
    const float *partial = partial_of((float *)scratch, z, a.H, h, splits, 0, C);
    float top = -CUDART_INF_F, sum = 0;
    for (int s = first; s < used; s++)
        if (partial[(size_t)s * (C + 2) + 1] > 0) top = fmaxf(top, partial[(size_t)s * (C + 2)]);
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float value = 0;
        sum = 0;
        for (int s = first; s < used; s++) {
            const float *one = partial + (size_t)s * (C + 2);
            if (!(one[1] > 0)) continue;
            float factor = expf(one[0] - top);
            sum += factor * one[1];
            value += factor * one[2 + c];
        }
        a.out[(size_t)t * a.out_stride + (size_t)h * C + c] = value / sum;
    }
}

/* TOKENS at a time, which bounds the scratch. */
typedef struct {
    int splits, groups, first_token, tokens;
} launch_shape;

template <class E, int G>
static void launch_dims(const op_attention_args *a, const cuda_context *cuda, const launch_shape *l)
{
    dim3 grid((unsigned)l->splits, (unsigned)(a->kv.K * l->groups), (unsigned)l->tokens);
    float *scratch = (float *)cuda->scratch;
    int lanes = (a->kv.C + 31) / 32, threads = WARPS * 32, splits = l->splits, groups = l->groups,
        t = l->first_token;
    if (lanes == 1)
        launch(cuda, attend<E, G, 1>, grid, threads, 0, *a, scratch, splits, groups, t);
    else if (lanes == 2)
        launch(cuda, attend<E, G, 2>, grid, threads, 0, *a, scratch, splits, groups, t);
    else if (lanes <= 4)
        launch(cuda, attend<E, G, 4>, grid, threads, 0, *a, scratch, splits, groups, t);
    else
        launch(cuda, attend<E, G, 8>, grid, threads, 0, *a, scratch, splits, groups, t);
}

template <class E>
static void launch_group(const op_attention_args *a, const cuda_context *cuda, launch_shape l)
{
    int ratio = a->H / a->kv.K;
    l.groups = ratio <= 2 ? 1 : (ratio + 3) / 4;
    if (ratio == 1)
        launch_dims<E, 1>(a, cuda, &l);
    else if (ratio == 2)
        launch_dims<E, 2>(a, cuda, &l);
    else
        launch_dims<E, 4>(a, cuda, &l);
}

extern "C" void op_attention_cuda(const op_attention_args *a, const cuda_context *cuda)
{
    launch_shape l = {};
    l.splits = (a->P * a->kv.S + SPLIT - 1) / SPLIT;
    for (l.first_token = 0; l.first_token < a->T; l.first_token += TOKENS) {
        l.tokens = a->T - l.first_token < TOKENS ? a->T - l.first_token : TOKENS;
        switch (a->kv.format) {
        case DTYPE_F32: launch_group<float>(a, cuda, l); break;
        case DTYPE_F16: launch_group<__half>(a, cuda, l); break;
        default: launch_group<__nv_bfloat16>(a, cuda, l); break;
        }
        launch(cuda, merge, dim3((unsigned)a->H, (unsigned)l.tokens), 128, 0, *a,
               (const float *)cuda->scratch, l.splits, l.first_token);
    }
}

extern "C" size_t op_attention_cuda_scratch(int32_t T, int32_t H, int32_t C, int32_t max_context)
{
    size_t splits = (size_t)(max_context + SPLIT - 1) / SPLIT + 1;
    size_t tokens = (size_t)(T < TOKENS ? T : TOKENS);
    return tokens * (size_t)H * splits * (size_t)(C + 2) * sizeof(float);
}
