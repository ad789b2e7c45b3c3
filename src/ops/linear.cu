/* Matrix products on the GPU, alone and with the norm before them: which kernel does them, and the plain one that does
 * everything.
 *
 * Up to FEW_TOKENS tokens weights are streamed: bf16 by linear_few.cu, Q8_0 by linear_q8.cu, float32 and f16 by
 * linear_wide.cu. Beyond, tensor cores multiply: bf16 and f16 in linear_many.cu, Q8_0 in linear_q8_many.cu. The streaming
 * kernels keep pace with memory so far; at 8 tokens those of Q8_0 and f16 would be bound by their inputs' way from shared
 * memory or L1, by counts at 3.0 and 1.7 TB/s, and 5 to 7 tokens would read the weights two or three times, as float32
 * still does: once for every 8, 4, 2, 1 tokens.
 * What all of these refuse (odd widths, odd addresses, rows of Q8_0 that do not begin at multiples of 16 bytes) is done
 * here, a warp per output, 8 tokens at a time: right, and far from the memory's rate. */
#include "ops/linear_few.cuh"
#include "ops/linear_rows.cuh"

enum { WARPS = 8 };

/* A row's products with T tokens' inputs, times the norm's weights, and the inputs' squares: this lane's columns. */
template <int T>
static __device__ void add_row(float (&sum)[T], float (&squares)[T], const row_list &a,
                               const float *const (&in)[T], const char *w, dtype format)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < T; t++) sum[t] = squares[t] = 0;
    for (int base = 0; base < a.cols; base += 32) { /* lanes stay together: Q8_0 takes a maximum over them */
        int k = base + lane;
        float weight_value = k < a.cols ? load_float(w, format, k) : 0;
        float norm = a.norm && k < a.cols ? a.norm[k] : 1;
#pragma unroll
        for (int t = 0; t < T; t++) {
            float x = k < a.cols ? in[t][k] : 0;
            squares[t] = fmaf(x, x, squares[t]);
            x *= norm;
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
}

/* Any format and shape, one element at a time: odd sizes and addresses, and bf16, f16 and Q8_0 (whose inputs are rounded to
 * int8 in blocks of 32, done anew by every warp). A warp does one output. */
template <int T> static __global__ void linear_any(const __grid_constant__ row_list a, dtype format)
{
    kernel_begins();
    kernel_waits();
    int per_output = a.gated ? 2 : 1, row = (blockIdx.x * WARPS + threadIdx.x / 32) * per_output;
    if (row >= a.first[a.n_parts]) return;
    const float *in[T];
    float sum[T], gate[T] = {}, scale[T];
#pragma unroll
    for (int t = 0; t < T; t++) in[t] = inputs_of(a, t);
    if (a.gated) add_row<T>(gate, scale, a, in, data_of_row(a, row++), format);
    add_row<T>(sum, scale, a, in, data_of_row(a, row), format);
#pragma unroll
    for (int t = 0; t < T; t++) scale[t] = scale_of_squares(a, warp_sum(scale[t]));
    store_row<T>(a, row, sum, gate, scale);
}

template <int T> static int launch_any(row_list a, dtype format, const cuda_context *cuda)
{
    int outputs = a.first[a.n_parts] / (a.gated ? 2 : 1);
    a.T = T;
    launch(cuda, linear_any<T>, dim3((unsigned)(outputs + WARPS - 1) / WARPS), WARPS * 32, 0, a, format);
    return T;
}

/* The first of the tokens; how many. */
static int some_tokens(const row_list &a, dtype format, const cuda_context *cuda)
{
    int done = linear_q8_cuda(a, format, cuda);
    if (!done) done = linear_wide_cuda(a, format, cuda);
    if (done) return done;
    return a.T >= 8   ? launch_any<8>(a, format, cuda)
           : a.T >= 4 ? launch_any<4>(a, format, cuda)
           : a.T >= 2 ? launch_any<2>(a, format, cuda)
                      : launch_any<1>(a, format, cuda);
}

void linear_by_rows_cuda(const op_norm_linear_args *n, dtype format, const cuda_context *cuda)
{
    const op_linear_args *a = &n->linear;
    row_list rows = {};
    for (int p = 0; p < a->n_parts; p++) {
        rows.data[p] = a->part[p].w->data;
        rows.bias[p] = a->part[p].bias;
        rows.out_col[p] = n->gated ? 0 : a->part[p].out_col;
        rows.first[p + 1] = rows.first[p] + a->part[p].w->rows;
    }
    rows.n_parts = a->n_parts;
    rows.cols = a->part[0].w->cols;
    rows.row_bytes = weight_row_bytes(a->part[0].w);
    rows.out_stride = a->out_stride;
    rows.in_stride = a->in_stride;
    rows.accumulate = a->accumulate;
    rows.out = a->out;
    rows.in = a->in;
    rows.gated = n->gated;
    rows.norm = n->norm;
    rows.eps = n->eps;
    rows.row = n->row;
    rows.T = a->T;
    if (a->T > FEW_TOKENS && linear_q8_many_cuda(rows, format, cuda)) return;
    for (int t = 0; t < a->T;) t += some_tokens(tokens_from(rows, t, a->T - t), format, cuda);
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
    op_norm_linear_args plain = {};
    op_linear_args *part = &plain.linear;
    for (int format = 0; format < DTYPE_COUNT; format++) {
        if (!take_format(part, a, (dtype)format)) continue;
        if (linear_few_cuda(part, cuda) || op_linear_many_cuda(part, cuda)) continue;
        linear_by_rows_cuda(&plain, (dtype)format, cuda);
    }
}
