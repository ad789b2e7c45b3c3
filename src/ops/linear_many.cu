/* Matrix products of many tokens: bf16 and f16 weights, float32 sums.
 *
 * Two launches: round_inputs writes the (gathered, normalized) input rows as bf16 into scratch, once; then the product,
 * by our own kernel (linear_product.cu) or by cuBLASLt (cublaslt.cuh) from LIBRARY_FROM tokens on. The library has no
 * gate: it leaves gate and up in scratch, and silu_mul follows.
 * f16 weights take float32 inputs as they are: split_inputs writes each as the sum of two f16, and our kernel multiplies
 * both. */
#include "ops/cublaslt.cuh"
#include "ops/linear_few.cuh"
#include "ops/linear_product.cuh"
#include "ops/linear_rows.cuh"

enum {
    LIBRARY_FROM = 65 /* tokens; below, reading the weights decides, and both are about as fast */
};

/* ---- Inputs -------------------------------------------------------------------------------------------------- */

typedef struct {
    const float *in, *norm; /* norm NULL: as they are */
    const int32_t *row;
    int in_stride, T, K; /* K a multiple of 8 */
    float eps;
    int vectors; /* in and norm allow 16-byte loads */
} input_rows;

enum { ROUND_THREADS = 256 };

static __device__ __forceinline__ void load_8(float (&v)[8], const float *from, int vectors)
{
    if (vectors) {
        *(float4 *)v = *(const float4 *)from;
        *(float4 *)(v + 4) = *(const float4 *)(from + 4);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = from[i];
}

typedef struct {
    float of[ROUND_THREADS / 32];
} warp_sums;

/* 1 / sqrt(mean of squares + eps) of the block's row, or 1. */
static __device__ __forceinline__ float norm_scale(const input_rows &a, const float *x)
{
    if (!a.norm) return 1;
    float(&partial)[ROUND_THREADS / 32] = block_shared<warp_sums>().of;
    float sum = 0;
    for (int k = threadIdx.x * 8; k < a.K; k += ROUND_THREADS * 8) {
        float v[8];
        load_8(v, x + k, a.vectors);
#pragma unroll
        for (int i = 0; i < 8; i++) sum = fmaf(v[i], v[i], sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int i = 0; i < ROUND_THREADS / 32; i++) sum += partial[i];
    return 1.0f / sqrtf(sum / (float)a.K + a.eps);
}

/* Columns k to k + 7 of the block's row x. */
static __device__ __forceinline__ void load_normalized(float (&v)[8], const input_rows &a, const float *x,
                                                       float scale, int k)
{
    float w[8];
    load_8(v, x + k, a.vectors);
    if (!a.norm) return;
    load_8(w, a.norm + k, a.vectors);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = w[i] * (v[i] * scale);
}

/* out: [T, K], 16-byte aligned. One block per token; reads 4K (the norm's second read hits the cache), writes 2K bytes. */
static __global__ void __launch_bounds__(ROUND_THREADS) round_inputs(input_rows a, __nv_bfloat16 *out)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x;
    const float *x = a.in + (size_t)(a.row ? a.row[t] : t) * a.in_stride;
    float scale = norm_scale(a, x);
    for (int k = threadIdx.x * 8; k < a.K; k += ROUND_THREADS * 8) {
        float v[8];
        __nv_bfloat162 pairs[4];
        load_normalized(v, a, x, scale, k);
#pragma unroll
        for (int i = 0; i < 4; i++) pairs[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
        *(uint4 *)(out + (size_t)t * a.K + k) = *(const uint4 *)pairs;
    }
}

typedef struct {
    float of[ROUND_THREADS / 32];
} warp_maxima;

/* The largest size of an element of the block's row. */
static __device__ __forceinline__ float largest_size(const input_rows &a, const float *x, float scale)
{
    float(&partial)[ROUND_THREADS / 32] = block_shared<warp_maxima>().of;
    float most = 0;
    for (int k = threadIdx.x * 8; k < a.K; k += ROUND_THREADS * 8) {
        float v[8];
        load_normalized(v, a, x, scale, k);
#pragma unroll
        for (int i = 0; i < 8; i++) most = fmaxf(most, fabsf(v[i]));
    }
    for (int lanes = 16; lanes > 0; lanes >>= 1)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = most;
    __syncthreads();
    most = 0;
#pragma unroll
    for (int i = 0; i < ROUND_THREADS / 32; i++) most = fmaxf(most, partial[i]);
    return most;
}

/* Multiplied by a power of two that brings the row's largest size to 2^14 .. 2^15, within f16, an input is `high`, rounded
 * to 11 bits, and `low`, what is missing, to another 11. As f16 ends at steps of 2^-24, the error is at most 2^-23 of the
 * input or 2^-39 of the row's largest. The power's inverse, a normal number too, is the scale of the sums, [T]. One block
 * per token; reads 4K bytes twice (the second time from the cache; with a norm three times), writes 4K to out, [2, T, K],
 * 16-byte aligned. */
static __global__ void __launch_bounds__(ROUND_THREADS) split_inputs(input_rows a, __half *out, float *scales)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x;
    const float *x = a.in + (size_t)(a.row ? a.row[t] : t) * a.in_stride;
    float scale = norm_scale(a, x);
    unsigned exponent = __float_as_uint(largest_size(a, x, scale)) >> 23; /* 127 for 1 .. 2 */
    unsigned power = min(127 + 14 + 127 - exponent, 253u);
    float factor = __uint_as_float(power << 23);
    if (threadIdx.x == 0) scales[t] = __uint_as_float((254 - power) << 23);
    for (int k = threadIdx.x * 8; k < a.K; k += ROUND_THREADS * 8) {
        float v[8];
        __half2 high[4], low[4];
        load_normalized(v, a, x, scale, k);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float v0 = v[2 * i] * factor, v1 = v[2 * i + 1] * factor;
            high[i] = __floats2half2_rn(v0, v1);
            float2 kept = __half22float2(high[i]);
            low[i] = __floats2half2_rn(v0 - kept.x, v1 - kept.y);
        }
        *(uint4 *)(out + (size_t)t * a.K + k) = *(const uint4 *)high;
        *(uint4 *)(out + ((size_t)a.T + t) * a.K + k) = *(const uint4 *)low;
    }
}

/* ---- Who does it ---------------------------------------------------------------------------------------------- */

static bool supported(const op_linear_args *a, dtype format)
{
    for (int p = 0; p < a->n_parts; p++) {
        const weight *w = a->part[p].w;
        if (w->format != format || w->cols % 8 != 0 || w->cols != a->part[0].w->cols ||
            (uintptr_t)w->data % 16 != 0)
            return false;
    }
    return a->n_parts > 0;
}

static bool wants_library(int T, const cuda_context *cuda)
{
    if (!cuda->cublaslt || cuda->products->path == LINEAR_MANY_OWN) return false;
    if (cuda->products->path == LINEAR_MANY_AUTO && T < LIBRARY_FROM) return false;
    return cublaslt_ready(cuda->cublaslt);
}

/* `b` lies right behind `a` in memory and in the output, so both are one product. */
static bool follows(const linear_part *a, int rows, const linear_part *b)
{
    const __nv_bfloat16 *end = (const __nv_bfloat16 *)a->w->data + (size_t)rows * a->w->cols;
    return b->w->data == end && b->out_col == a->out_col + rows &&
           (a->bias ? b->bias == a->bias + rows : b->bias == NULL);
}

/* Every part by the library, or, where it has no kernel, by ours. */
static void library_products(const op_linear_args *a, const __nv_bfloat16 *x, void *workspace,
                             const cuda_context *cuda)
{
    for (int first = 0, next; first < a->n_parts; first = next) {
        const linear_part *part = &a->part[first];
        int rows = part->w->rows;
        for (next = first + 1; next < a->n_parts && follows(part, rows, &a->part[next]); next++)
            rows += a->part[next].w->rows;
        cublaslt_product p = {};
        p.out = a->out + part->out_col;
        p.out_stride = a->out_stride;
        p.in = x;
        p.w = (const __nv_bfloat16 *)part->w->data;
        p.bias = part->bias;
        p.T = a->T;
        p.N = rows;
        p.K = part->w->cols;
        p.accumulate = a->accumulate;
        p.workspace = workspace;
        if (cublaslt_multiply(cuda->cublaslt, &p, cuda->stream)) {
            cuda->products->library_products++;
            continue;
        }
        op_linear_args own = *a;
        own.n_parts = next - first;
        for (int i = 0; i < own.n_parts; i++) own.part[i] = a->part[first + i];
        linear_product_cuda(&own, x, false, cuda);
    }
}

void linear_gate_cuda(float *out, int out_stride, const float *sums, int T, int F, const cuda_context *cuda)
{
    op_silu_mul_args s = {};
    s.out = out;
    s.out_stride = out_stride;
    s.gate = sums;
    s.up = sums + F;
    s.in_stride = 2 * F;
    s.T = T;
    s.F = F;
    op_silu_mul_cuda(&s, cuda);
}

/* Gate and up into scratch, then silu(gate) * up; some tokens at a time, which bounds the scratch. */
static void library_gated(const op_linear_args *a, const __nv_bfloat16 *x, float *gated, void *workspace,
                          const cuda_context *cuda)
{
    int F = a->part[0].w->rows, K = a->part[0].w->cols;
    op_linear_args both = *a;
    both.out = gated;
    both.out_stride = 2 * F;
    both.part[0].out_col = 0;
    both.part[1].out_col = F;
    for (int t = 0; t < a->T; t += GATED_TOKENS) {
        both.T = a->T - t < GATED_TOKENS ? a->T - t : GATED_TOKENS;
        library_products(&both, x + (size_t)t * K, workspace, cuda);
        linear_gate_cuda(a->out + (size_t)t * a->out_stride, a->out_stride, gated, both.T, F, cuda);
    }
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

size_t linear_gated_bytes(int32_t T, int32_t F)
{
    return aligned((size_t)(T < GATED_TOKENS ? T : GATED_TOKENS) * 2 * (size_t)F * sizeof(float));
}

/* Of inputs split for f16 weights. */
static size_t split_bytes(int32_t T, int32_t K)
{
    return aligned((size_t)T * (size_t)K * 2 * sizeof(__half));
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Scratch of bf16 weights: the rounded inputs, gate and up, the library's workspace. Of f16: the split inputs and their
 * scales. */
extern "C" size_t op_linear_cuda_scratch(int32_t T, int32_t widest_input, int32_t F)
{
    size_t bf16 = aligned((size_t)T * (size_t)widest_input * sizeof(__nv_bfloat16)) +
                  linear_gated_bytes(T, F) + CUBLASLT_WORKSPACE;
    size_t f16 = split_bytes(T, widest_input) + (size_t)T * sizeof(float);
    return larger(larger(bf16, f16), linear_q8_many_scratch(T, widest_input, F));
}

static input_rows rows_of(const op_norm_linear_args *a)
{
    const op_linear_args *l = &a->linear;
    input_rows r = {};
    r.in = l->in;
    r.norm = a->norm;
    r.row = a->row;
    r.in_stride = l->in_stride;
    r.T = l->T;
    r.K = l->part[0].w->cols;
    r.eps = a->eps;
    r.vectors = (uintptr_t)l->in % 16 == 0 && l->in_stride % 4 == 0 && (uintptr_t)a->norm % 16 == 0;
    return r;
}

static bool multiply(const op_norm_linear_args *a, const cuda_context *cuda)
{
    const op_linear_args *l = &a->linear;
    if (!supported(l, DTYPE_BF16) || (a->gated && l->n_parts != 2)) return false;
    if (l->T < 1) return true;
    int K = l->part[0].w->cols;
    char *scratch = (char *)cuda->scratch;
    char *gated = scratch + aligned((size_t)l->T * (size_t)K * sizeof(__nv_bfloat16));
    char *workspace = gated + (a->gated ? linear_gated_bytes(l->T, l->part[0].w->rows) : 0);
    __nv_bfloat16 *x = (__nv_bfloat16 *)scratch;
    launch(cuda, round_inputs, dim3((unsigned)l->T), ROUND_THREADS, 0, rows_of(a), x);
    if (!wants_library(l->T, cuda))
        linear_product_cuda(l, x, a->gated, cuda);
    else if (a->gated)
        library_gated(l, x, (float *)gated, workspace, cuda);
    else
        library_products(l, x, workspace, cuda);
    return true;
}

static bool multiply_f16(const op_norm_linear_args *a, const cuda_context *cuda)
{
    const op_linear_args *l = &a->linear;
    if (l->T <= FEW_TOKENS || !supported(l, DTYPE_F16)) return false;
    __half *x = (__half *)cuda->scratch;
    float *scale = (float *)((char *)cuda->scratch + split_bytes(l->T, l->part[0].w->cols));
    launch(cuda, split_inputs, dim3((unsigned)l->T), ROUND_THREADS, 0, rows_of(a), x, scale);
    linear_product_f16_cuda(l, x, scale, a->gated, cuda);
    return true;
}

extern "C" bool op_linear_many_cuda(const op_linear_args *a, const cuda_context *cuda)
{
    op_norm_linear_args plain = {};
    plain.linear = *a;
    return op_norm_linear_many_cuda(&plain, cuda);
}

extern "C" bool op_norm_linear_many_cuda(const op_norm_linear_args *a, const cuda_context *cuda)
{
    return multiply_f16(a, cuda) || multiply(a, cuda);
}
