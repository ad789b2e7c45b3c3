/* Picks rows, plain reference; see gather.h. */
#include "ops/gather.h"

void op_gather_ref(const op_gather_args *a)
{
    for (int32_t n = 0; n < a->N; n++)
        for (int32_t d = 0; d < a->D; d++)
            a->out[(size_t)n * (size_t)a->D + (size_t)d] =
                a->in[(size_t)a->row[n] * (size_t)a->D + (size_t)d];
}
