/* Matrix products of many tokens on the GPU, as tests and measurements see them: which of the two ways is taken. */
#ifndef NVLLM_OPS_LINEAR_MANY_H
#define NVLLM_OPS_LINEAR_MANY_H

#include <stdint.h>

typedef enum {
    LINEAR_MANY_AUTO,   /* cuBLASLt from some number of tokens on, where it has been found */
    LINEAR_MANY_OWN,    /* the kernel of linear_many.cu */
    LINEAR_MANY_LIBRARY /* cuBLASLt wherever it is there and takes the shape */
} linear_many_path;

/* For the whole process, from the next op on; steps that were recorded keep what they have. Tests only. */
void linear_many_force(linear_many_path path);

/* Products that cuBLASLt has done in this process. */
uint64_t linear_many_library_products(void);

#endif
