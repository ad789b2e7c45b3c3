/* RMSNorm and the matrix products that read it, as one op (see rmsnorm.h and linear.h for the formulas):
 *     n[t] = rmsnorm(in[row[t]]) * norm
 *     plain: out[t, out_col + r] = bias[r] + sum_k n[t, k] * W[r, k]            one to three parts
 *     gated: out[t, r] = silu(gate[t, r]) * up[t, r]   with part 0 = gate, part 1 = up, of equally many rows
 * A fused op: backends may lack it, and then the op list keeps the single ops (model/fusion.h). A backend may round
 * in * norm to the weights' partner format and scale the sums by 1/rms at the end: one rounding of the same relative size
 * as the single ops', in another place. */
#ifndef NVLLM_OPS_NORM_LINEAR_H
#define NVLLM_OPS_NORM_LINEAR_H

#include "ops/linear.h"

typedef struct {
    op_linear_args
        linear; /* in: rows before the norm; out_col is 0 for both parts when gated; never accumulates */
    const float *norm; /* [cols] */
    float eps;
    const int32_t *row; /* [T] which row of linear.in token t reads; NULL: row t */
    bool gated;
} op_norm_linear_args;

void op_norm_linear_ref(const op_norm_linear_args *a);

#endif
