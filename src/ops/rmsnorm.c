/* Root-mean-square norm, plain reference with the sum in double; see rmsnorm.h. */
#include "ops/rmsnorm.h"

#include <math.h>

static void norm_group(float *out, const float *in, const float *w, int32_t width, float eps)
{
    double sum = 0;
    for (int32_t i = 0; i < width; i++) sum += (double)in[i] * in[i];
    double scale = 1.0 / sqrt(sum / width + (double)eps);
    for (int32_t i = 0; i < width; i++) out[i] = (float)(w[i] * (in[i] * scale));
}

void op_rmsnorm_ref(const op_rmsnorm_args *a)
{
    for (int32_t t = 0; t < a->T; t++)
        for (int32_t g = 0; g < a->groups; g++) {
            size_t first = (size_t)g * (size_t)a->width;
            norm_group(a->out + (size_t)t * (size_t)a->out_stride + first,
                       a->in + (size_t)t * (size_t)a->in_stride + first, a->w, a->width, a->eps);
        }
}
