/* Picks the tokens that want logits: out[n] = in[row[n]]. Which tokens want logits is a list in the batch, so the
 * last token of a row, prompt log-probabilities and the verification of guessed tokens are one path. */
#ifndef NVLLM_OPS_GATHER_H
#define NVLLM_OPS_GATHER_H

#include "ops/op.h"

typedef struct {
    float *out;         /* [N, D], stride D */
    const float *in;    /* token t at in + t*D */
    const int32_t *row; /* [N], each in [0, T) */
    int32_t N, D;
} op_gather_args;

void op_gather_ref(const op_gather_args *a);
void op_gather_cpu(const op_gather_args *a, const cpu_context *cpu);

#endif
