/* Matrix products of few tokens on the GPU: what linear.cu and norm_linear.cu ask of linear_few.cu. */
#ifndef NVLLM_OPS_LINEAR_FEW_CUH
#define NVLLM_OPS_LINEAR_FEW_CUH

#include "ops/cuda.cuh"

enum { FEW_TOKENS = 4 }; /* from here on the tensor cores' tiles of linear_many.cu are faster */

/* bf16 weights, cols a multiple of 8, 16-byte aligned, at most FEW_TOKENS tokens whose inputs fit beside the ring of
 * weights in shared memory. false: nothing was done. */
bool linear_few_cuda(const op_linear_args *a, const cuda_context *cuda);
bool norm_linear_few_cuda(const op_norm_linear_args *a, const cuda_context *cuda);

#endif
