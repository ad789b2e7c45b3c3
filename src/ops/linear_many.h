/* Matrix products of many tokens on the GPU: which of the two ways is taken, for tests and measurements.
 *
 * Part of the CUDA backend's context (backend/cuda.h hands it out). */
#ifndef NVLLM_OPS_LINEAR_MANY_H
#define NVLLM_OPS_LINEAR_MANY_H

#include <stdint.h>

typedef enum {
    LINEAR_MANY_AUTO,   /* cuBLASLt from some number of tokens on, where it has been found */
    LINEAR_MANY_OWN,    /* the kernel of linear_product.cu */
    LINEAR_MANY_LIBRARY /* cuBLASLt wherever it is there and takes the shape */
} linear_many_path;

typedef struct {
    linear_many_path path;     /* from the next op on; steps that were recorded keep what they have */
    uint64_t library_products; /* that cuBLASLt has done */
} linear_many;

#endif
