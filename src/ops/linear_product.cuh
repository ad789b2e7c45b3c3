/* Our own products of many tokens with bf16 and f16 weights; linear_many.cu decides who does one. */
#ifndef NVLLM_OPS_LINEAR_PRODUCT_CUH
#define NVLLM_OPS_LINEAR_PRODUCT_CUH

#include "ops/cuda.cuh"

/* As op_linear_args says, with x, [T, cols] in bf16 and 16-byte aligned, in the place of a->in. All parts have the same
 * cols, a multiple of 8, and 16-byte aligned weights. gated: out = silu(part 0) * part 1, both of equally many rows. */
void linear_product_cuda(const op_linear_args *a, const __nv_bfloat16 *x, bool gated,
                         const cuda_context *cuda);

/* The same of f16 weights and x, [2, T, cols], whose two halves are added and times scale[t] are the input. */
void linear_product_f16_cuda(const op_linear_args *a, const __half *x, const float *scale, bool gated,
                             const cuda_context *cuda);

#endif
