/* A stored tensor as a value: what a file says about it, and where its bytes lie.
 *
 * Shapes are row-major, outermost dimension first, whatever the file's own order is. `name`, `file` and `data` are
 * borrowed from the open file (safetensors, gguf or tensor_store) and live until that is closed. Sizes were checked
 * when the file was opened: `bytes` is exactly what shape and type need, and lies inside the map, aligned to the
 * element. A tensor that is well-formed but that we cannot compute with has `refused` set and says why; it is
 * listed, but tensor_store_get does not hand it out. */
#ifndef NVLLM_FORMATS_TENSOR_H
#define NVLLM_FORMATS_TENSOR_H

#include "base/dtype.h"

#define TENSOR_MAX_DIMS 4

typedef struct {
    const char *name;
    const char *file; /* path, for error sentences */
    dtype type;
    int n_dims; /* 0 for a scalar */
    int64_t shape[TENSOR_MAX_DIMS];
    const void *data;
    size_t bytes;
    const char *refused; /* NULL, or a clause: "dtype I64 is not one of F32, F16, BF16" */
} tensor;

#endif
