/* Matrix products on the GPU: which kernel does them, and the plain one that does everything.
 *
 * Up to FEW_TOKENS tokens weights are streamed: bf16 by linear_few.cu, Q8_0 by linear_q8.cu, float32 and f16 by
 * linear_wide.cu. Beyond, tensor cores multiply: bf16 and f16 in linear_many.cu, Q8_0 in linear_q8_many.cu. The streaming
 * kernels keep pace with memory so far; at 8 tokens those of Q8_0 and f16 would be bound by their inputs' way from shared
 * memory or L1, by instruction counts at 1.7 TB/s, and 5 to 7 tokens would read the weights two or three times, as float32
 * still does: once for every 8, 4, 2, 1 tokens.
 * What all of these refuse (odd widths, odd addresses) is done here, a warp per output row, 8 tokens at a time: right,
 * and far from the memory's rate. */
#include "ops/linear_few.cuh"
#include "ops/linear_rows.cuh"

enum { WARPS = 8 };

/* Any format and shape, one element at a time: odd sizes, float32, f16 and Q8_0 (whose inputs are rounded to int8 in
 * blocks of 32, done anew by every warp). */
template <int T> static __global__ void linear_any(const __grid_constant__ row_list a, dtype format)
{
    kernel_begins();
    kernel_waits();
    int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= a.first[a.n_parts]) return;
    const char *w = data_of_row(a, row);
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
                x = most > 0 ? __fdiv_rn(most, 127.0f) * rintf(__fmul_rn(x, __fdiv_rn(127.0f, most))) : 0;
            }
            sum[t] = fmaf(weight_value, x, sum[t]);
        }
    }
    store_row<T>(a, row, sum);
}

template <int T> static void launch_any(const row_list &a, dtype format, const cuda_context *cuda)
{
    unsigned blocks = (unsigned)(a.first[a.n_parts] + WARPS - 1) / WARPS;
    launch(cuda, linear_any<T>, dim3(blocks), WARPS * 32, 0, a, format);
}

static void launch_tokens(const row_list &a, dtype format, int T, const cuda_context *cuda)
{
    if (linear_q8_cuda(a, format, T, cuda) || linear_wide_cuda(a, format, T, cuda)) return;
    if (T == 1)
        launch_any<1>(a, format, cuda);
    else if (T == 2)
        launch_any<2>(a, format, cuda);
    else if (T <= 4)
        launch_any<4>(a, format, cuda);
    else
        launch_any<8>(a, format, cuda);
}

static int tokens_at_once(int left)
{
    return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static void by_rows(const op_linear_args *a, dtype format, const cuda_context *cuda)
{
    row_list rows = {};
    for (int p = 0; p < a->n_parts; p++) {
        rows.data[p] = a->part[p].w->data;
        rows.bias[p] = a->part[p].bias;
        rows.out_col[p] = a->part[p].out_col;
        rows.first[p + 1] = rows.first[p] + a->part[p].w->rows;
    }
    rows.n_parts = a->n_parts;
    rows.cols = a->part[0].w->cols;
    rows.row_bytes = dtype_row_bytes(format, rows.cols);
    rows.out_stride = a->out_stride;
    rows.in_stride = a->in_stride;
    rows.accumulate = a->accumulate;
    rows.out = a->out;
    rows.in = a->in;
    if (a->T > FEW_TOKENS && linear_q8_many_cuda(rows, format, a->T, cuda)) return;
    for (int t = 0, n; t < a->T; t += n) {
        n = tokens_at_once(a->T - t);
        rows.out = a->out + (size_t)t * a->out_stride;
        rows.in = a->in + (size_t)t * a->in_stride;
        launch_tokens(rows, format, n, cuda);
    }
}

/* The parts of one format as an op of their own. */
static bool take_format(op_linear_args *out, const op_linear_args *a, dtype format)
{
    *out = *a;
    out->n_parts = 0;
    for (int p = 0; p < a->n_parts; p++)
        if (a->part[p].w->format == format) out->part[out->n_parts++] = a->part[p];
    return out->n_parts > 0;
}

extern "C" void op_linear_cuda(const op_linear_args *a, const cuda_context *cuda)
{
    op_linear_args part;
    for (int format = 0; format < DTYPE_COUNT; format++) {
        if (!take_format(&part, a, (dtype)format)) continue;
        if (linear_few_cuda(&part, cuda) || op_linear_many_cuda(&part, cuda)) continue;
        by_rows(&part, (dtype)format, cuda);
    }
}
