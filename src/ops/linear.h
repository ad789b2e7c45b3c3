/* Matrix products of one input with one to three weights (q, k, v share their input; so do gate and up):
 *     out[t, out_col + n] (+)= bias[n] + sum_k x[t, k] * W[n, k]
 * The input is brought into the weight's partner format once, at the op boundary:
 *     F32, F16 weights: float32 as is       BF16: rounded to bf16, products summed in float32
 *     Q8_0: blocks of 32 quantised to int8 with scale amax/127 (as ggml does), integer dot, float32 sum
 * Bias first or last makes no difference to the contract; accumulate adds to what `out` holds (the residual).
 * Batch invariance: out[t] depends on x[t] alone, bit for bit, whatever T is and whatever thread computes it,
 * so every kernel of one instruction set sums over k in the same order.
 * Memory bound for small T: reads rows*cols*size bytes; 2*T*rows*cols operations. */
#ifndef NVLLM_OPS_LINEAR_H
#define NVLLM_OPS_LINEAR_H

#include "ops/op.h"
#include "ops/weight.h"

#include <stdbool.h>

#define LINEAR_MAX_PARTS 3

typedef struct {
    const weight *w;   /* [n, cols]; all parts have the same cols */
    const float *bias; /* [n] or NULL */
    int32_t out_col;   /* first output column */
} linear_part;

typedef struct {
    float *out;         /* token t at out + t*out_stride */
    int32_t out_stride; /* elements */
    const float *in;    /* token t at in + t*in_stride, w->cols elements */
    int32_t in_stride;
    int32_t T, n_parts;
    linear_part part[LINEAR_MAX_PARTS];
    bool accumulate; /* add to out instead of overwriting it */
} op_linear_args;

void op_linear_ref(const op_linear_args *a);
void op_linear_cpu(const op_linear_args *a, const cpu_context *cpu);

/* Scratch that op_linear_cpu needs for T tokens of `cols` inputs, for any format. */
size_t op_linear_scratch(int32_t T, int32_t cols, int threads);

#endif
