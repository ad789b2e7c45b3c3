/* Attention's inner loops in plain C (with the compiler's vectors of four): the fallback. */
#include "ops/attention_kernels.h"
#include "base/half.h"

#include <math.h>

static float widen(const void *row, int32_t i, dtype format)
{
    if (format == DTYPE_F32) return ((const float *)row)[i];
    uint16_t half = ((const uint16_t *)row)[i];
    return format == DTYPE_BF16 ? bf16_to_float(half) : f16_to_float(half);
}

/* Four floats, which every 64-bit target has registers for. */
typedef float vec __attribute__((vector_size(16), aligned(4), may_alias));

#define VECS (ATTENTION_PANEL / 4)

static void multiply_add_panel(const panel_product *p, int32_t row, int32_t panel)
{
    const float *a = p->a + (int64_t)row * p->a_stride;
    const vec *b = (const vec *)(const void *)(p->b + (int64_t)panel * p->b_stride);
    vec *out = (vec *)(void *)(p->out + (int64_t)row * p->out_stride + panel * ATTENTION_PANEL);
    vec sum[VECS];
#pragma GCC unroll 4
    for (int32_t j = 0; j < VECS; j++) sum[j] = out[j];
    for (int32_t i = p->first; i < p->last; i++)
#pragma GCC unroll 4
        for (int32_t j = 0; j < VECS; j++) sum[j] += a[i] * b[i * VECS + j];
#pragma GCC unroll 4
    for (int32_t j = 0; j < VECS; j++) out[j] = sum[j];
}

static void multiply_add(const panel_product *p)
{
    for (int32_t row = 0; row < p->rows; row++)
        for (int32_t panel = 0; panel < p->panels; panel++) multiply_add_panel(p, row, panel);
}

static void pack_k(float *kt, const void *const *row, const void *const *next, int32_t n, int32_t C,
                   dtype format)
{
    (void)next; /* memory is never the limit here */
    for (int32_t i = 0; i < n; i++) {
        float *panel = kt + (int64_t)(i / ATTENTION_PANEL) * C * ATTENTION_PANEL + i % ATTENTION_PANEL;
        for (int32_t c = 0; c < C; c++) panel[c * ATTENTION_PANEL] = widen(row[i], c, format);
    }
}

static void pack_v(float *v, const void *const *row, const void *const *next, int32_t n, int32_t C,
                   dtype format)
{
    (void)next;
    int32_t padded = (C + ATTENTION_PANEL - 1) / ATTENTION_PANEL * ATTENTION_PANEL;
    for (int32_t i = 0; i < n; i++)
        for (int32_t c = 0; c < padded; c++)
            v[(c / ATTENTION_PANEL * ATTENTION_BLOCK + i) * ATTENTION_PANEL + c % ATTENTION_PANEL] =
                c < C ? widen(row[i], c, format) : 0;
}

static float softmax(float *s, int32_t n, float scale, float *max)
{
    float top = -INFINITY, lane[ATTENTION_PANEL] = {0};
    for (int32_t i = 0; i < n; i++) {
        s[i] *= scale;
        top = s[i] > top ? s[i] : top;
    }
    for (int32_t i = 0; i < n; i++) {
        s[i] = expf(s[i] - top);
        lane[i % ATTENTION_PANEL] += s[i];
    }
    for (int32_t half = ATTENTION_PANEL / 2; half > 0; half /= 2)
        for (int32_t j = 0; j < half; j++) lane[j] += lane[j + half];
    *max = top;
    return lane[0];
}

static void narrow(uint16_t *out, const float *x, int32_t n, dtype format)
{
    if (format == DTYPE_BF16)
        for (int32_t i = 0; i < n; i++) out[i] = bf16_from_float(x[i]);
    else
        for (int32_t i = 0; i < n; i++) out[i] = f16_from_float(x[i]);
}

const attention_kernels attention_kernels_scalar = {multiply_add, pack_k, pack_v, softmax, narrow};
