/* Matrix products on the GPU for few tokens: one warp per output row, weights streamed once per 8 tokens.
 *
 * Memory bound: a row of `cols` weights is read in 16-byte loads, all independent, by the 32 lanes of a warp; 64 warps
 * per multiprocessor keep some 128 KB in flight. The inputs are rounded to the weight's partner format at the
 * boundary, as linear.h says: for bf16 weights once per block, into shared memory.
 * Larger T is done 8 tokens at a time; that is right, and far from the tensor cores' rate. */
#include "ops/cuda.cuh"

enum { WARPS = 8, MAX_TOKENS = 8 };

/* The parts as the kernel sees them, on one numbered list of rows. */
typedef struct {
    const void *data[LINEAR_MAX_PARTS];
    const float *bias[LINEAR_MAX_PARTS];
    int first[LINEAR_MAX_PARTS + 1]; /* row where each part begins; the last: all rows */
    int out_col[LINEAR_MAX_PARTS];
    int n_parts, cols;
    float *out;
    const float *in;
    int out_stride, in_stride;
    int accumulate;
} row_list;

static __device__ __forceinline__ int part_of(const row_list &a, int row)
{
    int p = 0;
    while (p + 1 < a.n_parts && row >= a.first[p + 1]) p++;
    return p;
}

template <int T> static __device__ __forceinline__ void store_row(const row_list &a, int p, int n, float (&sum)[T])
{
    float bias = a.bias[p] ? a.bias[p][n] : 0;
#pragma unroll
    for (int t = 0; t < T; t++) {
        float v = warp_sum(sum[t]) + bias;
        float *out = a.out + (size_t)t * a.out_stride + a.out_col[p] + n;
        if (threadIdx.x % 32 == 0) *out = a.accumulate ? *out + v : v;
    }
}

/* bf16 weights, cols a multiple of 8, rows 16-byte aligned: x lies in shared memory as bf16. */
template <int T> static __global__ void linear_bf16(row_list a)
{
    extern __shared__ __align__(16) __nv_bfloat16 x[]; /* [T, cols] */
    for (int i = threadIdx.x; i < T * a.cols; i += blockDim.x)
        x[i] = __float2bfloat16_rn(a.in[(size_t)(i / a.cols) * a.in_stride + i % a.cols]);
    __syncthreads();
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= a.first[a.n_parts]) return;
    int p = part_of(a, row), n = row - a.first[p];
    const uint4 *w = (const uint4 *)((const __nv_bfloat16 *)a.data[p] + (size_t)n * a.cols);
    float sum[T] = {};
    int vectors = a.cols / 8;
#pragma unroll 4
    for (int v = lane; v < vectors; v += 32) {
        uint4 packed = __ldg(w + v);
        const __nv_bfloat162 *pair = (const __nv_bfloat162 *)&packed;
#pragma unroll
        for (int t = 0; t < T; t++) {
            uint4 xs = *(const uint4 *)(x + (size_t)t * a.cols + v * 8);
            const __nv_bfloat162 *xp = (const __nv_bfloat162 *)&xs;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float2 wf = __bfloat1622float2(pair[i]), xf = __bfloat1622float2(xp[i]);
                sum[t] = fmaf(wf.x, xf.x, sum[t]);
                sum[t] = fmaf(wf.y, xf.y, sum[t]);
            }
        }
    }
    store_row<T>(a, p, n, sum);
}

/* Any format and shape, one element at a time: odd sizes, float32, f16 and Q8_0 (whose inputs are rounded to int8 in
 * blocks of 32, done anew by every warp). */
template <int T> static __global__ void linear_any(row_list a, dtype format, size_t row_bytes)
{
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= a.first[a.n_parts]) return;
    int p = part_of(a, row), n = row - a.first[p];
    const char *w = (const char *)a.data[p] + row_bytes * (size_t)n;
    float sum[T] = {};
    for (int base = 0; base < a.cols; base += 32) { /* lanes stay together: Q8_0 takes a maximum over them */
        int k = base + lane;
        float weight_value = k < a.cols ? load_float(w, format, k) : 0;
#pragma unroll
        for (int t = 0; t < T; t++) {
            float x = k < a.cols ? a.in[(size_t)t * a.in_stride + k] : 0;
            if (format == DTYPE_BF16) x = __bfloat162float(__float2bfloat16_rn(x));
            if (format == DTYPE_Q8_0) {
                float most = fabsf(x);
                for (int offset = 16; offset > 0; offset >>= 1)
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
                float scale = most / 127.0f;
                x = most > 0 ? scale * rintf(x / scale) : 0;
            }
            sum[t] = fmaf(weight_value, x, sum[t]);
        }
    }
    store_row<T>(a, p, n, sum);
}

template <int T> static void launch(const row_list &a, dtype format, bool fast, cudaStream_t stream)
{
    unsigned blocks = (unsigned)(a.first[a.n_parts] + WARPS - 1) / WARPS;
    size_t shared = (size_t)T * a.cols * sizeof(__nv_bfloat16);
    if (fast && shared <= 48 * 1024) linear_bf16<T><<<blocks, WARPS * 32, shared, stream>>>(a);
    else linear_any<T><<<blocks, WARPS * 32, 0, stream>>>(a, format, dtype_row_bytes(format, a.cols));
}

static void launch_tokens(const row_list &a, dtype format, bool fast, int T, cudaStream_t stream)
{
    switch (T) {
    case 1: launch<1>(a, format, fast, stream); break;
    case 2: launch<2>(a, format, fast, stream); break;
    case 3: launch<3>(a, format, fast, stream); break;
    case 4: launch<4>(a, format, fast, stream); break;
    case 5: launch<5>(a, format, fast, stream); break;
    case 6: launch<6>(a, format, fast, stream); break;
    case 7: launch<7>(a, format, fast, stream); break;
    default: launch<8>(a, format, fast, stream); break;
    }
}

static bool is_fast(const weight *w)
{
    return w->format == DTYPE_BF16 && w->cols % 8 == 0 && (uintptr_t)w->data % 16 == 0;
}

/* All parts of one format, as one list of rows. */
static void multiply_format(const op_linear_args *a, dtype format, const cuda_context *cuda)
{
    row_list rows = {};
    bool fast = true;
    for (int i = 0; i < a->n_parts; i++) {
        const weight *w = a->part[i].w;
        if (w->format != format) continue;
        int p = rows.n_parts++;
        rows.data[p] = w->data;
        rows.bias[p] = a->part[i].bias;
        rows.out_col[p] = a->part[i].out_col;
        rows.first[p + 1] = rows.first[p] + w->rows;
        rows.cols = w->cols;
        fast = fast && is_fast(w);
    }
    if (rows.n_parts == 0) return;
    rows.out_stride = a->out_stride;
    rows.in_stride = a->in_stride;
    rows.accumulate = a->accumulate;
    int step = fast && (size_t)MAX_TOKENS * rows.cols * 2 > 48 * 1024 ? 48 * 1024 / (2 * rows.cols) : MAX_TOKENS;
    if (step < 1) step = 1;
    for (int t = 0; t < a->T; t += step) {
        rows.out = a->out + (size_t)t * a->out_stride;
        rows.in = a->in + (size_t)t * a->in_stride;
        launch_tokens(rows, format, fast, a->T - t < step ? a->T - t : step, cuda->stream);
    }
}

extern "C" void op_linear_cuda(const op_linear_args *a, const cuda_context *cuda)
{
    for (int format = 0; format < DTYPE_COUNT; format++) multiply_format(a, (dtype)format, cuda);
}
