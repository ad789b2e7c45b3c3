/* Matrix products on the GPU for few tokens: one warp per output row, weights streamed once per 8 tokens.
 *
 * Memory bound: a row of `cols` weights is read in 16-byte loads, all independent, by the 32 lanes of a warp; 64 warps
 * per multiprocessor keep some 128 KB in flight. The inputs are rounded to the weight's partner format at the
 * boundary, as linear.h says: for bf16 weights once per block, into shared memory.
 * Larger T is done 8 tokens at a time; that is right, and far from the tensor cores' rate. */
#include "ops/cuda.cuh"

enum { WARPS = 8, MAX_TOKENS = 8, MAX_SHARED = 47 * 1024 };

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

template <int T>
static __device__ __forceinline__ void store_row(const row_list &a, int p, int n, float (&sum)[T])
{
    float bias = a.bias[p] ? a.bias[p][n] : 0;
#pragma unroll
    for (int t = 0; t < T; t++) {
        float v = warp_sum(sum[t]) + bias;
        float *out = a.out + (size_t)t * a.out_stride + a.out_col[p] + n;
        if (threadIdx.x % 32 == 0) *out = a.accumulate ? *out + v : v;
    }
}

/* x of T tokens in shared memory as bf16. */
template <int T> static __device__ __forceinline__ void stage_inputs(__nv_bfloat16 *x, const row_list &a)
{
    for (int t = 0; t < T; t++)
        for (int k = threadIdx.x; k < a.cols; k += blockDim.x)
            x[t * a.cols + k] = __float2bfloat16_rn(a.in[(size_t)t * a.in_stride + k]);
}

/* sum[t] += 8 weights times 8 inputs of each token. */
template <int T>
static __device__ __forceinline__ void multiply_8(float (&sum)[T], const uint4 &packed,
                                                  const __nv_bfloat16 *x, int cols)
{
    const __nv_bfloat162 *w = (const __nv_bfloat162 *)&packed;
#pragma unroll
    for (int t = 0; t < T; t++) {
        uint4 xs = *(const uint4 *)(x + (size_t)t * cols);
        const __nv_bfloat162 *xp = (const __nv_bfloat162 *)&xs;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 wf = __bfloat1622float2(w[i]), xf = __bfloat1622float2(xp[i]);
            sum[t] = fmaf(wf.x, xf.x, sum[t]);
            sum[t] = fmaf(wf.y, xf.y, sum[t]);
        }
    }
}

/* bf16 weights, cols a multiple of 8, rows 16-byte aligned. SLICES warps share a row, so that few rows still keep all
 * multiprocessors busy; their sums meet in shared memory. The first AHEAD loads of the first row are issued before the
 * wait: weights depend on no kernel. */
template <int T, int SLICES> static __global__ void linear_bf16(row_list a)
{
    extern __shared__ __align__(16) __nv_bfloat16 x[]; /* [T, cols] */
    __shared__ float partial[WARPS][T];
    enum { ROWS = WARPS / SLICES, AHEAD = 4, STEP = 32 * SLICES };
    int warp = threadIdx.x / 32, slice = warp % SLICES, lane = threadIdx.x % 32;
    int vectors = a.cols / 8, first = lane + 32 * slice, total = a.first[a.n_parts];
    int row = blockIdx.x * ROWS + warp / SLICES;
    uint4 ahead[AHEAD];
    kernel_begins();
    if (row < total) {
        int p = part_of(a, row);
        const uint4 *w =
            (const uint4 *)((const __nv_bfloat16 *)a.data[p] + (size_t)(row - a.first[p]) * a.cols);
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (first + i * STEP < vectors) ahead[i] = __ldcs(w + first + i * STEP);
    }
    kernel_waits();
    stage_inputs<T>(x, a);
    __syncthreads();
    for (bool is_first = true; row - warp / SLICES < total; row += gridDim.x * ROWS, is_first = false) {
        float sum[T] = {};
        int p = row < total ? part_of(a, row) : 0, n = row - a.first[p];
        if (row < total) {
            const uint4 *w = (const uint4 *)((const __nv_bfloat16 *)a.data[p] + (size_t)n * a.cols);
            if (!is_first) {
#pragma unroll
                for (int i = 0; i < AHEAD; i++)
                    if (first + i * STEP < vectors) ahead[i] = __ldcs(w + first + i * STEP);
            }
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                if (first + i * STEP < vectors)
                    multiply_8<T>(sum, ahead[i], x + (first + i * STEP) * 8, a.cols);
#pragma unroll 4
            for (int v = first + AHEAD * STEP; v < vectors; v += STEP)
                multiply_8<T>(sum, __ldcs(w + v), x + v * 8, a.cols);
        }
        if (SLICES > 1) {
#pragma unroll
            for (int t = 0; t < T; t++) {
                float own = warp_sum(sum[t]);
                if (lane == 0) partial[warp][t] = own;
            }
            __syncthreads();
#pragma unroll
            for (int t = 0; t < T; t++) { /* only lane 0 of slice 0 counts: store_row adds the lanes up */
                sum[t] = 0;
                if (lane == 0)
                    for (int s = 0; s < SLICES; s++) sum[t] += partial[warp - slice + s][t];
            }
            __syncthreads();
        }
        if (slice == 0 && row < total) store_row<T>(a, p, n, sum);
    }
}

/* Any format and shape, one element at a time: odd sizes, float32, f16 and Q8_0 (whose inputs are rounded to int8 in
 * blocks of 32, done anew by every warp). */
template <int T> static __global__ void linear_any(row_list a, dtype format, size_t row_bytes)
{
    kernel_begins();
    kernel_waits();
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

/* Enough warps for every multiprocessor to have about 32, as long as each still has a whole load per lane. */
static int slices_for(const row_list &a, int multiprocessors)
{
    int rows = a.first[a.n_parts], wanted = 32 * multiprocessors;
    if (rows * 2 > wanted || a.cols < 2 * 256) return 1;
    return rows * 4 > wanted || a.cols < 4 * 256 ? 2 : 4;
}

template <int T, int SLICES>
static void launch_bf16(const row_list &a, size_t shared, const cuda_context *cuda)
{
    int per_block = WARPS / SLICES, blocks = (a.first[a.n_parts] + per_block - 1) / per_block;
    int most = cuda->multiprocessors * 8; /* then blocks take further rows: x is staged once */
    launch(cuda, linear_bf16<T, SLICES>, dim3((unsigned)(blocks < most ? blocks : most)), WARPS * 32, shared,
           a);
}

template <int T>
static void launch_format(const row_list &a, dtype format, bool fast, const cuda_context *cuda)
{
    unsigned blocks = (unsigned)(a.first[a.n_parts] + WARPS - 1) / WARPS;
    size_t shared = (size_t)T * a.cols * sizeof(__nv_bfloat16);
    int slices = slices_for(a, cuda->multiprocessors);
    if (!fast || shared > MAX_SHARED)
        launch(cuda, linear_any<T>, dim3(blocks), WARPS * 32, 0, a, format, dtype_row_bytes(format, a.cols));
    else if (slices == 1)
        launch_bf16<T, 1>(a, shared, cuda);
    else if (slices == 2)
        launch_bf16<T, 2>(a, shared, cuda);
    else
        launch_bf16<T, 4>(a, shared, cuda);
}

static void launch_tokens(const row_list &a, dtype format, bool fast, int T, const cuda_context *cuda)
{
    switch (T) {
    case 1: launch_format<1>(a, format, fast, cuda); break;
    case 2: launch_format<2>(a, format, fast, cuda); break;
    case 3: launch_format<3>(a, format, fast, cuda); break;
    case 4: launch_format<4>(a, format, fast, cuda); break;
    case 5: launch_format<5>(a, format, fast, cuda); break;
    case 6: launch_format<6>(a, format, fast, cuda); break;
    case 7: launch_format<7>(a, format, fast, cuda); break;
    default: launch_format<8>(a, format, fast, cuda); break;
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
    int fit = MAX_SHARED / (2 * rows.cols), step = fast && fit >= 1 && fit < MAX_TOKENS ? fit : MAX_TOKENS;
    for (int t = 0; t < a->T; t += step) {
        rows.out = a->out + (size_t)t * a->out_stride;
        rows.in = a->in + (size_t)t * a->in_stride;
        launch_tokens(rows, format, fast, a->T - t < step ? a->T - t : step, cuda);
    }
}

extern "C" void op_linear_cuda(const op_linear_args *a, const cuda_context *cuda)
{
    for (int format = 0; format < DTYPE_COUNT; format++) multiply_format(a, (dtype)format, cuda);
}
