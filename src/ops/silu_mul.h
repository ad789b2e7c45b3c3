/* Gated activation of the feed-forward block: out[t, f] = silu(gate[t, f]) * up[t, f], silu(x) = x / (1 + e^-x).
 * arXiv:2002.05202. out may equal gate. */
#ifndef NVLLM_OPS_SILU_MUL_H
#define NVLLM_OPS_SILU_MUL_H

#include "ops/op.h"

typedef struct {
    float *out;
    const float *gate, *up;        /* [T, F] */
    int32_t out_stride, in_stride; /* elements between tokens; gate and up share in_stride */
    int32_t T, F;
} op_silu_mul_args;

void op_silu_mul_ref(const op_silu_mul_args *a);
void op_silu_mul_cpu(const op_silu_mul_args *a, const cpu_context *cpu);

#endif
