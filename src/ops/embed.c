/* Embedding lookup, plain reference; see embed.h. */
#include "ops/embed.h"

void op_embed_ref(const op_embed_args *a)
{
    const weight *w = a->table;
    size_t row_bytes = dtype_row_bytes(w->format, w->cols);
    for (int32_t t = 0; t < a->T; t++) {
        int32_t token = a->tokens[t] < 0 ? a->drawn[-1 - a->tokens[t]] : a->tokens[t];
        const char *row = (const char *)w->data + (size_t)token * row_bytes;
        dtype_to_float(a->out + (size_t)t * (size_t)w->cols, row, w->format, w->cols);
    }
}
