/* Matrix products by output rows: the list of rows that their kernels walk, and what linear.cu asks of them.
 *
 * Those of few tokens take 1, 2, 4 or 8 at once (T, a template argument) and give a token the same bits among any others. */
#ifndef NVLLM_OPS_LINEAR_ROWS_CUH
#define NVLLM_OPS_LINEAR_ROWS_CUH

#include "ops/cuda.cuh"

/* The parts, which are of one format, on one numbered list of rows. */
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
    int accumulate;
} row_list;

/* Rows and inputs aligned to 16 bytes. false: nothing was done, because format, width, T or alignment are others, or the
 * inputs of T tokens do not fit into shared memory. */
bool linear_q8_cuda(const row_list &a, dtype format, int T, const cuda_context *cuda);
bool linear_wide_cuda(const row_list &a, dtype format, int T, const cuda_context *cuda);

/* The same for any number of tokens, by tensor cores; the bytes of scratch that this takes. */
bool linear_q8_many_cuda(const row_list &a, dtype format, int T, const cuda_context *cuda);
size_t linear_q8_many_scratch(int32_t T, int32_t cols);

static inline bool rows_are_aligned(const row_list &a)
{
    uintptr_t all = a.row_bytes;
    for (int p = 0; p < a.n_parts; p++) all |= (uintptr_t)a.data[p];
    return all % 16 == 0;
}

static inline bool inputs_are_aligned(const row_list &a)
{
    return (uintptr_t)a.in % 16 == 0 && a.in_stride % 4 == 0;
}

static __device__ __forceinline__ int part_of_row(const row_list &a, int row)
{
    int p = 0;
    while (p + 1 < a.n_parts && row >= a.first[p + 1]) p++;
    return p;
}

static __device__ __forceinline__ const char *data_of_row(const row_list &a, int row)
{
    int p = part_of_row(a, row);
    return (const char *)a.data[p] + a.row_bytes * (size_t)(row - a.first[p]);
}

/* Adds up the lanes' sums, and stores the row's outputs. A whole warp calls. */
template <int T>
static __device__ __forceinline__ void store_row(const row_list &a, int row, const float (&sum)[T])
{
    int p = part_of_row(a, row), n = row - a.first[p];
    float bias = a.bias[p] ? a.bias[p][n] : 0;
#pragma unroll
    for (int t = 0; t < T; t++) {
        float v = warp_sum(sum[t]) + bias;
        float *out = a.out + (size_t)t * a.out_stride + a.out_col[p] + n;
        if (threadIdx.x % 32 == 0) *out = a.accumulate ? *out + v : v;
    }
}

#endif
