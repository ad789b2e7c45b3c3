/* The fused op's reference: the single ops' references one after the other; see norm_linear.h. */
#include "ops/norm_linear.h"
#include "ops/rmsnorm.h"
#include "ops/silu_mul.h"

#include <stdlib.h>

static void one_token(const op_norm_linear_args *a, int32_t t, float *normed, float *both)
{
    const op_linear_args *l = &a->linear;
    int32_t cols = l->part[0].w->cols, rows = l->part[0].w->rows;
    op_rmsnorm_ref(&(op_rmsnorm_args){.out = normed,
                                      .out_stride = cols,
                                      .in = l->in + (size_t)(a->row ? a->row[t] : t) * (size_t)l->in_stride,
                                      .in_stride = cols,
                                      .w = a->norm,
                                      .T = 1,
                                      .groups = 1,
                                      .width = cols,
                                      .eps = a->eps});
    op_linear_args one = *l;
    float *out = l->out + (size_t)t * (size_t)l->out_stride;
    one.in = normed;
    one.in_stride = cols;
    one.T = 1;
    one.out = a->gated ? both : out;
    if (a->gated) one.part[1].out_col = rows;
    op_linear_ref(&one);
    if (a->gated)
        op_silu_mul_ref(&(op_silu_mul_args){.out = out,
                                            .gate = both,
                                            .up = both + rows,
                                            .out_stride = rows,
                                            .in_stride = rows,
                                            .T = 1,
                                            .F = rows});
}

void op_norm_linear_ref(const op_norm_linear_args *a)
{
    size_t cols = (size_t)a->linear.part[0].w->cols, rows = (size_t)a->linear.part[0].w->rows;
    float *normed = malloc((cols + 2 * rows) * sizeof *normed);
    if (!normed) abort(); /* the oracle has no way to fail, and never runs for users' results */
    for (int32_t t = 0; t < a->linear.T; t++) one_token(a, t, normed, normed + cols);
    free(normed);
}
