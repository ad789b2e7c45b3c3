/* Measures what a GPU can do at most, against which its speed is stated. */
#ifndef NVLLM_BACKEND_CUDA_LIMITS_CUH
#define NVLLM_BACKEND_CUDA_LIMITS_CUH

extern "C" {
#include "backend/backend.h"
}
#include "ops/cuda.cuh"

/* block: `bytes` of device memory, at least 256 MiB, which is overwritten. Takes about a second; zeros where it fails. */
backend_limits cuda_measure_limits(const cuda_context *cuda, char *block, size_t bytes);

/* Of one of our kernels: fails where the program has no code for the card. */
cudaError_t cuda_kernel_attributes(cudaFuncAttributes *attributes);

#endif
