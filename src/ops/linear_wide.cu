/* float32 products of up to 8 tokens and f16 products of up to 4 on the GPU, bound by reading the weights once.
 *
 * A warp takes one row; a lane loads 16 bytes of it at a time, AHEAD of them in flight, the first before kernel_waits(),
 * because weights depend on no kernel. Inputs come from L1 and L2: all warps of a block read the same ones. */
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

/* N consecutive inputs from column k of every token on. */
template <int T, int N>
static __device__ __forceinline__ void multiply_add(float (&sum)[T], const float (&w)[N], const row_list &a,
                                                    int k)
{
#pragma unroll
    for (int t = 0; t < T; t++)
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 x = *(const float4 *)(a.in + (size_t)t * a.in_stride + k + i);
            sum[t] = fmaf(w[i], x.x, sum[t]);
            sum[t] = fmaf(w[i + 1], x.y, sum[t]);
            sum[t] = fmaf(w[i + 2], x.z, sum[t]);
            sum[t] = fmaf(w[i + 3], x.w, sum[t]);
        }
}

template <class E>
static __device__ __forceinline__ void load_ahead(uint4 (&v)[AHEAD], const E *row, int k, int cols)
{
    constexpr int N = 16 / sizeof(E);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) v[i] = load_once(row + k + i * 32 * N, k + i * 32 * N < cols);
}

template <class E, int T>
static __global__ void __launch_bounds__(WARPS * 32) linear_wide(const __grid_constant__ row_list a)
{
    constexpr int N = 16 / sizeof(E), STEP = AHEAD * 32 * N;
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    bool there = row < a.first[a.n_parts];
    const E *w = (const E *)data_of_row(a, there ? row : 0);
    uint4 now[AHEAD];
    float sum[T] = {};
    kernel_begins();
    load_ahead(now, w, lane * N, there ? a.cols : 0);
    kernel_waits();
    if (!there) return;
    for (int k = lane * N; k - lane * N < a.cols; k += STEP) {
        uint4 next[AHEAD];
        load_ahead(next, w, k + STEP, a.cols);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            float x[N];
            widen(x, now[i], E());
            if (k + i * 32 * N < a.cols) multiply_add<T, N>(sum, x, a, k + i * 32 * N);
            now[i] = next[i];
        }
    }
    store_row<T>(a, row, sum);
}

template <class E, int T> static void launch_wide(const row_list &a, const cuda_context *cuda)
{
    unsigned blocks = (unsigned)(a.first[a.n_parts] + WARPS - 1) / WARPS;
    launch(cuda, linear_wide<E, T>, dim3(blocks), WARPS * 32, 0, a);
}

template <class E> static bool launch_tokens(const row_list &a, int T, const cuda_context *cuda)
{
    switch (T) {
    case 1: launch_wide<E, 1>(a, cuda); return true;
    case 2: launch_wide<E, 2>(a, cuda); return true;
    case 4: launch_wide<E, 4>(a, cuda); return true;
    default: return false;
    }
}

bool linear_wide_cuda(const row_list &a, dtype format, int T, const cuda_context *cuda)
{
    if (!rows_are_aligned(a) || !inputs_are_aligned(a)) return false;
    if (format == DTYPE_F16) return launch_tokens<__half>(a, T, cuda);
    if (format != DTYPE_F32) return false;
    if (T != 8) return launch_tokens<float>(a, T, cuda);
    launch_wide<float, 8>(a, cuda);
    return true;
}
