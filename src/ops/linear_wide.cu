/* float32 products of up to 8 tokens and f16 products of up to 4 on the GPU, alone and with the norm before them, bound by
 * reading the weights once.
 *
 * A warp takes one row (a row of gate and its row of up, which then share the inputs' way from L1); a lane loads 16 bytes
 * at a time, AHEAD of them in flight, the first before kernel_waits(), because weights depend on no kernel. Inputs come
 * from L1 and L2: all warps of a block read the same ones.
 * RMSNorm: the norm's weights go to the matrix's, and the sums are scaled by 1/rms at the end. */
#include "ops/linear_rows.cuh"

enum { WARPS = 8, AHEAD = 4 };

static __device__ __forceinline__ void widen(float (&out)[4], const uint4 &v, float)
{
    out[0] = __uint_as_float(v.x), out[1] = __uint_as_float(v.y);
    out[2] = __uint_as_float(v.z), out[3] = __uint_as_float(v.w);
}
static __device__ __forceinline__ void widen(float (&out)[8], const uint4 &v, __half)
{
    const uint32_t pair[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        __half2_raw raw;
        raw.x = (unsigned short)pair[i];
        raw.y = (unsigned short)(pair[i] >> 16);
        float2 both = __half22float2(__half2(raw));
        out[2 * i] = both.x, out[2 * i + 1] = both.y;
    }
}

/* N consecutive inputs from column k of every token on. The norm's weights go to the rows' weights: once for all tokens. */
template <class E, int ROWS, int T>
static __device__ __forceinline__ void multiply_add(float (&sum)[ROWS][T],
                                                    const uint4 (&v)[ROWS][AHEAD / ROWS], int at,
                                                    const row_list &a, const float *const (&in)[T], int k)
{
    constexpr int N = 16 / sizeof(E);
    float w[ROWS][N];
#pragma unroll
    for (int r = 0; r < ROWS; r++) widen(w[r], v[r][at], E());
#pragma unroll
    for (int i = 0; a.norm && i < N; i += 4) {
        float4 n = *(const float4 *)(a.norm + k + i);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            w[r][i] *= n.x, w[r][i + 1] *= n.y, w[r][i + 2] *= n.z, w[r][i + 3] *= n.w;
    }
#pragma unroll
    for (int t = 0; t < T; t++)
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 x = *(const float4 *)(in[t] + k + i);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                sum[r][t] = fmaf(w[r][i], x.x, sum[r][t]);
                sum[r][t] = fmaf(w[r][i + 1], x.y, sum[r][t]);
                sum[r][t] = fmaf(w[r][i + 2], x.z, sum[r][t]);
                sum[r][t] = fmaf(w[r][i + 3], x.w, sum[r][t]);
            }
        }
}

template <class E, int ROWS>
static __device__ __forceinline__ void load_ahead(uint4 (&v)[ROWS][AHEAD / ROWS], const E *const (&w)[ROWS],
                                                  int k, int cols)
{
    constexpr int N = 16 / sizeof(E);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int i = 0; i < AHEAD / ROWS; i++)
            v[r][i] = load_once(w[r] + k + i * 32 * N, k + i * 32 * N < cols);
}

/* ROWS: 2 when gated, else 1. */
template <class E, int T, int ROWS>
static __global__ void __launch_bounds__(WARPS * 32) linear_wide(const __grid_constant__ row_list a)
{
    constexpr int N = 16 / sizeof(E), EACH = AHEAD / ROWS, STEP = EACH * 32 * N;
    int row = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS, lane = threadIdx.x % 32;
    bool there = row < a.first[a.n_parts];
    int cols = there ? a.cols : 0;
    const E *w[ROWS];
    const float *in[T];
    uint4 now[ROWS][EACH];
    float sum[ROWS][T] = {}, scale[T];
#pragma unroll
    for (int r = 0; r < ROWS; r++) w[r] = (const E *)data_of_row(a, there ? row + r : r);
    kernel_begins();
    load_ahead<E, ROWS>(now, w, lane * N, cols);
    kernel_waits();
#pragma unroll
    for (int t = 0; t < T; t++) in[t] = inputs_of(a, t);
    for (int k = lane * N; k - lane * N < cols; k += STEP) {
        uint4 next[ROWS][EACH];
        load_ahead<E, ROWS>(next, w, k + STEP, cols);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (k + i * 32 * N < cols) multiply_add<E, ROWS, T>(sum, now, i, a, in, k + i * 32 * N);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int i = 0; i < EACH; i++) now[r][i] = next[r][i];
    }
    scale_tokens<WARPS, T>(scale, a, in); /* from L1, where the inputs are by now */
    if (there) store_row<T>(a, row + ROWS - 1, sum[ROWS - 1], sum[0], scale);
}

template <class E, int T> static int launch_wide(row_list a, const cuda_context *cuda)
{
    int outputs = a.first[a.n_parts] / (a.gated ? 2 : 1);
    a.T = T;
    launch(cuda, a.gated ? linear_wide<E, T, 2> : linear_wide<E, T, 1>,
           dim3((unsigned)(outputs + WARPS - 1) / WARPS), WARPS * 32, 0, a);
    return T;
}

template <class E> static int launch_tokens(const row_list &a, const cuda_context *cuda)
{
    return a.T >= 4   ? launch_wide<E, 4>(a, cuda)
           : a.T >= 2 ? launch_wide<E, 2>(a, cuda)
                      : launch_wide<E, 1>(a, cuda);
}

int linear_wide_cuda(const row_list &a, dtype format, const cuda_context *cuda)
{
    if (!rows_are_aligned(a) || !inputs_are_aligned(a)) return 0;
    if (format == DTYPE_F16) return launch_tokens<__half>(a, cuda);
    if (format != DTYPE_F32) return 0;
    return a.T >= 8 ? launch_wide<float, 8>(a, cuda) : launch_tokens<float>(a, cuda);
}
