/* The reference matrix product: the definition of the values that the fast kernels are compared with. Inputs are
 * rounded as linear.h says, then everything is summed in double, one output at a time. */
#include "ops/linear.h"

#include "base/half.h"
#include "ops/linear_kernels.h"

#include <assert.h>
#include <math.h>
#include <string.h>

void linear_quantize(int8_t *q, float *scale, const float *in, int32_t cols)
{
    /* adding 1.5 * 2^23 rounds to an integer, half to even, and leaves it in the low bits */
    const float round_magic = 12582912.0f;
    for (int32_t k = 0; k < cols; k += Q8_0_BLOCK) {
        float amax = 0.0f;
        for (int i = 0; i < Q8_0_BLOCK; i++) {
            float magnitude = fabsf(in[k + i]);
            amax = magnitude > amax ? magnitude : amax;
        }
        float inverse = amax > 0.0f ? 127.0f / amax : 0.0f;
        scale[k / Q8_0_BLOCK] = amax / 127.0f;
        for (int i = 0; i < Q8_0_BLOCK; i++)
            q[k + i] = (int8_t)(float_bits(in[k + i] * inverse + round_magic) & 0xffu);
    }
}

static double dot_float(const float *x, const uint8_t *row, dtype format, int32_t cols)
{
    double sum = 0.0;
    for (int32_t k = 0; k < cols; k++) {
        float in = format == DTYPE_BF16 ? bf16_to_float(bf16_from_float(x[k])) : x[k], w;
        dtype_to_float(&w, row + dtype_block_bytes(format) * (size_t)k, format, 1);
        sum += (double)in * w;
    }
    return sum;
}

static double dot_q8(const float *x, const uint8_t *row, int32_t cols)
{
    double sum = 0.0;
    for (int32_t k = 0; k < cols; k += Q8_0_BLOCK, row += Q8_0_BLOCK_BYTES) {
        int8_t q[Q8_0_BLOCK], w[Q8_0_BLOCK];
        float scale;
        uint16_t w_scale;
        linear_quantize(q, &scale, x + k, Q8_0_BLOCK);
        memcpy(&w_scale, row, sizeof w_scale);
        memcpy(w, row + sizeof w_scale, sizeof w);
        int32_t dot = 0;
        for (int i = 0; i < Q8_0_BLOCK; i++) dot += q[i] * w[i];
        sum += (double)dot * scale * f16_to_float(w_scale);
    }
    return sum;
}

static void product_with_part(const op_linear_args *a, const linear_part *part)
{
    const weight *w = part->w;
    size_t stride = dtype_row_bytes(w->format, w->cols);
    for (int32_t t = 0; t < a->T; t++) {
        const float *x = a->in + (int64_t)t * a->in_stride;
        float *out = a->out + (int64_t)t * a->out_stride + part->out_col;
        for (int32_t n = 0; n < w->rows; n++) {
            const uint8_t *row = (const uint8_t *)w->data + stride * (size_t)n;
            double sum =
                w->format == DTYPE_Q8_0 ? dot_q8(x, row, w->cols) : dot_float(x, row, w->format, w->cols);
            if (part->bias) sum += part->bias[n];
            out[n] = (float)(a->accumulate ? out[n] + sum : sum);
        }
    }
}

void op_linear_ref(const op_linear_args *a)
{
    assert(a->n_parts >= 1 && a->n_parts <= LINEAR_MAX_PARTS);
    for (int i = 0; i < a->n_parts; i++) product_with_part(a, &a->part[i]);
}
