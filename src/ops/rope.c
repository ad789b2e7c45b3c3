/* Rotary position embedding, plain reference; see rope.h. */
#include "ops/rope.h"

#include <math.h>

void op_rope_table_ref(const op_rope_table_args *a)
{
    int32_t half = a->C / 2;
    for (int32_t t = 0; t < a->T; t++)
        for (int32_t i = 0; i < half; i++) {
            float angle = (float)a->pos[t] * a->inv_freq[i];
            a->cos[(size_t)t * (size_t)half + (size_t)i] = (float)(cos((double)angle)) * a->scale;
            a->sin[(size_t)t * (size_t)half + (size_t)i] = (float)(sin((double)angle)) * a->scale;
        }
}

void op_rope_ref(const op_rope_args *a)
{
    int32_t half = a->C / 2;
    for (int32_t t = 0; t < a->T; t++)
        for (int32_t h = 0; h < a->heads; h++) {
            float *x = a->x + (size_t)t * (size_t)a->stride + (size_t)h * (size_t)a->C;
            for (int32_t i = 0; i < half; i++) {
                int32_t first = a->pairing == ROPE_HALVES ? i : 2 * i;
                int32_t second = a->pairing == ROPE_HALVES ? i + half : 2 * i + 1;
                double c = a->cos[(size_t)t * (size_t)half + (size_t)i];
                double s = a->sin[(size_t)t * (size_t)half + (size_t)i];
                double u = x[first], v = x[second];
                x[first] = (float)(u * c - v * s);
                x[second] = (float)(v * c + u * s);
            }
        }
}
