/* Gated activation, plain reference in double; see silu_mul.h. */
#include "ops/silu_mul.h"

#include <math.h>

void op_silu_mul_ref(const op_silu_mul_args *a)
{
    for (int32_t t = 0; t < a->T; t++)
        for (int32_t f = 0; f < a->F; f++) {
            size_t in = (size_t)t * (size_t)a->in_stride + (size_t)f;
            double x = a->gate[in];
            a->out[(size_t)t * (size_t)a->out_stride + (size_t)f] = (float)(x / (1.0 + exp(-x)) * a->up[in]);
        }
}
