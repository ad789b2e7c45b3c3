/* A weight is a value: format, shape, data. Row-major [rows, cols], rows = outputs, as stored in the file.
 *
 * Matrices stay in the mapped file, in the stored format. Vectors (norm weights, biases) are float32 arrays
 * of the model's own, because they are small and every op wants them wide. On a device rows of Q8_0 begin at multiples of 16
 * bytes, with zeros between them (model/placement.c), where the stored ones may not; those of the other formats follow each
 * other. */
#ifndef NVLLM_OPS_WEIGHT_H
#define NVLLM_OPS_WEIGHT_H

#include "base/dtype.h"

typedef struct {
    dtype format;
    int32_t rows, cols;
    const void *data; /* [rows, cols] in `format`; at least 2-byte aligned; borrowed from the model */
    size_t row_bytes; /* from row to row; 0: they follow each other */
} weight;

static inline size_t weight_row_bytes(const weight *w)
{
    return w->row_bytes ? w->row_bytes : dtype_row_bytes(w->format, w->cols);
}

#endif
