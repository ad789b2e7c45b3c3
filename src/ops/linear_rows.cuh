/* Matrix products by output rows, alone and with the norm before them: the list of rows that their kernels walk, and what
 * linear.cu asks of them.
 *
 * Those of few tokens take 1, 2, 4 or 8 at once (T, a template argument) and give a token the same bits among any others. */
#ifndef NVLLM_OPS_LINEAR_ROWS_CUH
#define NVLLM_OPS_LINEAR_ROWS_CUH

#include "ops/cuda.cuh"

/* The parts, which are of one format, on one numbered list of rows; gated: gate and up rows take turns in it, and two rows
 * are one output. */
typedef struct {
    const void *data[LINEAR_MAX_PARTS];
    const float *bias[LINEAR_MAX_PARTS];
    int first[LINEAR_MAX_PARTS + 1]; /* row where each part begins; the last: all rows */
    int out_col[LINEAR_MAX_PARTS];
    int n_parts, cols;
    size_t row_bytes;
    float *out;
    const float *in;
    int out_stride, in_stride;
    int accumulate, gated;
    const float *norm; /* RMSNorm's weights; NULL: none */
    float eps;
    const int32_t *row; /* which row of `in` a token reads; NULL: its own */
    int T;              /* tokens */
} row_list;

/* The first of the tokens, as many as fit at once. Rows, inputs and norm are aligned to 16 bytes. The number of tokens
 * done; 0: format, width or alignment are others, or shared memory holds the inputs of no token. */
int linear_q8_cuda(const row_list &a, dtype format, const cuda_context *cuda);
int linear_wide_cuda(const row_list &a, dtype format, const cuda_context *cuda);

/* All tokens, any number, by tensor cores. false: nothing was done. */
bool linear_q8_many_cuda(const row_list &a, dtype format, const cuda_context *cuda);

/* Bytes of scratch for T tokens that this takes, with gate and up of F rows each. */
size_t linear_q8_many_scratch(int32_t T, int32_t cols, int32_t F);

/* Where gate and up are products of their own, their sums wait for silu(gate) * up in scratch, of so many tokens at a time. */
enum { GATED_TOKENS = 1024 };
size_t linear_gated_bytes(int32_t T, int32_t F);
/* out = silu(gate) * up of T tokens; sums: [T, 2F], a token's gate and then its up. */
void linear_gate_cuda(float *out, int out_stride, const float *sums, int T, int F, const cuda_context *cuda);

/* The products of parts of one format, by the kernels above or by one that does everything. */
void linear_by_rows_cuda(const op_norm_linear_args *a, dtype format, const cuda_context *cuda);

/* The tokens from number t on, `count` of them. */
static inline row_list tokens_from(const row_list &a, int t, int count)
{
    row_list rest = a;
    rest.T = count;
    rest.out += (size_t)t * a.out_stride;
    if (a.row)
        rest.row += t;
    else
        rest.in += (size_t)t * a.in_stride;
    return rest;
}

static inline bool rows_are_aligned(const row_list &a)
{
    uintptr_t all = a.row_bytes;
    for (int p = 0; p < a.n_parts; p++) all |= (uintptr_t)a.data[p];
    return all % 16 == 0;
}

static inline bool inputs_are_aligned(const row_list &a)
{
    return (uintptr_t)a.in % 16 == 0 && a.in_stride % 4 == 0 && (uintptr_t)a.norm % 16 == 0;
}

/* A row's part, and its number there. */
static __device__ __forceinline__ int part_of_row(const row_list &a, int row, int *n)
{
    int p = 0;
    if (a.gated) {
        *n = row / 2;
        return row % 2;
    }
    while (p + 1 < a.n_parts && row >= a.first[p + 1]) p++;
    *n = row - a.first[p];
    return p;
}

static __device__ __forceinline__ const char *data_of_row(const row_list &a, int row)
{
    int n, p = part_of_row(a, row, &n);
    return (const char *)a.data[p] + a.row_bytes * (size_t)n;
}

/* Where token t's inputs are. */
static __device__ __forceinline__ const float *inputs_of(const row_list &a, int t)
{
    return a.in + (size_t)(a.row ? __ldcg(a.row + t) : t) * a.in_stride;
}

/* 1/rms by which sums over weighted inputs are multiplied, from the inputs' sum of squares. */
static __device__ __forceinline__ float scale_of_squares(const row_list &a, float squares)
{
    return a.norm ? rsqrtf(squares / (float)a.cols + a.eps) : 1.0f;
}

template <int WARPS, int T> struct token_squares {
    float of[T][WARPS];
};

/* 1/rms of every token, or 1, by a block of WARPS, each of which adds up the squares of its share of the columns. Inputs
 * and cols allow 16-byte loads. */
template <int WARPS, int T>
static __device__ __forceinline__ void scale_tokens(float (&scale)[T], const row_list &a,
                                                    const float *const (&in)[T])
{
    float(&squares)[T][WARPS] = block_shared<token_squares<WARPS, T>>().of;
    float sum[T] = {};
#pragma unroll
    for (int t = 0; t < T; t++) scale[t] = 1;
    if (!a.norm) return;
#pragma unroll 1
    for (int k = threadIdx.x * 4; k < a.cols; k += WARPS * 32 * 4)
#pragma unroll
        for (int t = 0; t < T; t++) {
            float4 x = *(const float4 *)(in[t] + k);
            sum[t] += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
        }
#pragma unroll
    for (int t = 0; t < T; t++) {
        sum[t] = warp_sum(sum[t]);
        if (threadIdx.x % 32 == 0) squares[t][threadIdx.x / 32] = sum[t];
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < T; t++) {
        float all = 0;
#pragma unroll
        for (int i = 0; i < WARPS; i++) all += squares[t][i];
        scale[t] = scale_of_squares(a, all);
    }
}

/* Adds up the lanes' sums, and stores the row's outputs. When gated `row` is an up row, and `gate` are the sums of the
 * one before it. A whole warp calls. */
template <int T>
static __device__ __forceinline__ void store_row(const row_list &a, int row, const float (&sum)[T],
                                                 const float (&gate)[T], const float (&scale)[T])
{
    int n, p = part_of_row(a, row, &n);
    float bias = a.bias[p] ? a.bias[p][n] : 0, gate_bias = a.gated && a.bias[0] ? a.bias[0][n] : 0;
#pragma unroll
    for (int t = 0; t < T; t++) {
        float v = warp_sum(sum[t]) * scale[t] + bias;
        if (a.gated) v = silu_times(warp_sum(gate[t]) * scale[t] + gate_bias, v);
        float *out = a.out + (size_t)t * a.out_stride + a.out_col[p] + n;
        if (threadIdx.x % 32 == 0 && t < a.T) *out = a.accumulate ? *out + v : v;
    }
}

#endif
