/* What a CUDA error means for the user: what is wrong, and after a semicolon what to change. */
#ifndef NVLLM_BACKEND_CUDA_FAULT_CUH
#define NVLLM_BACKEND_CUDA_FAULT_CUH

extern "C" {
#include "base/error.h"
}

#include <cuda_runtime.h>

/* `what` was being done, with the GPU `card` ("" where it is not known yet). NVLLM_OK for cudaSuccess. */
nvllm_status cuda_fault(cudaError_t rc, const char *what, const char *card, nvllm_error *err);

/* A GPU that the kernels do not run on. */
nvllm_status cuda_fault_card(const cudaDeviceProp *card, nvllm_error *err);

#endif
