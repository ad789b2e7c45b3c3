/* A weight is a value: format, shape, data. Row-major [rows, cols], rows = outputs, as stored in the file.
 *
 * Matrices stay in the mapped file, in the stored format. Vectors (norm weights, biases) are float32 arrays
 * of the model's own, because they are small and every op wants them wide. */
#ifndef NVLLM_OPS_WEIGHT_H
#define NVLLM_OPS_WEIGHT_H

#include "base/dtype.h"

typedef struct {
    dtype format;
    int32_t rows, cols;
    const void *data; /* [rows, cols] in `format`; at least 2-byte aligned; borrowed from the model */
} weight;

#endif
