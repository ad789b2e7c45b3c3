/* The CUDA backend's inside, for tests and measurements of single kernels. The context stays opaque to C. */
#ifndef NVLLM_BACKEND_CUDA_H
#define NVLLM_BACKEND_CUDA_H

#include "backend/backend.h"
#include "ops/linear_many.h"

struct cuda_context; /* ops/cuda.cuh */

/* Of a backend opened as "cuda"; the backend's until it is closed. */
const struct cuda_context *cuda_context_of(const backend *b);
linear_many *cuda_products_of(backend *b);

#endif
