/* Root-mean-square norm over groups of `width` elements: arXiv:1910.07467
 *     out[t, g, i] = w[i] * in[t, g, i] / sqrt(mean_i in[t, g, i]^2 + eps)
 * groups == 1 is the layer norm of a block (width D); groups == heads is the q/k norm (width C).
 * Statistics in float32. out may equal in. */
#ifndef NVLLM_OPS_RMSNORM_H
#define NVLLM_OPS_RMSNORM_H

#include "ops/op.h"

typedef struct {
    float *out;         /* token t, group g at out + t*out_stride + g*width */
    int32_t out_stride; /* elements between tokens */
    const float *in;
    int32_t in_stride;
    const float *w; /* [width] */
    int32_t T, groups, width;
    float eps;
} op_rmsnorm_args;

void op_rmsnorm_ref(const op_rmsnorm_args *a);
void op_rmsnorm_cpu(const op_rmsnorm_args *a, const cpu_context *cpu);

#endif
