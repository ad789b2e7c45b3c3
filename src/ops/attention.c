/* Paged attention and its cache write, plain references; see attention.h. Sums in double, one query at a time. */
#include "ops/attention.h"
#include "base/half.h"

#include <math.h>
#include <string.h>

#define MAX_C 256

/* Element index of position-independent parts: page, head k, slot s, first channel. */
static size_t pool_index(const kv_layer *kv, int32_t page, int32_t k, int32_t s)
{
    return (((size_t)page * (size_t)kv->K + (size_t)k) * (size_t)kv->S + (size_t)s) * (size_t)kv->C;
}

static void write_head(void *pool, dtype format, size_t first, const float *x, int32_t C)
{
    float *as_f32 = pool;
    uint16_t *as_16 = pool;
    for (int32_t c = 0; c < C; c++) {
        size_t at = first + (size_t)c;
        if (format == DTYPE_F32)
            as_f32[at] = x[c];
        else
            as_16[at] = format == DTYPE_BF16 ? bf16_from_float(x[c]) : f16_from_float(x[c]);
    }
}

void op_kv_write_ref(const op_kv_write_args *a)
{
    const kv_layer *kv = &a->kv;
    for (int32_t t = 0; t < a->T; t++)
        for (int32_t k = 0; k < kv->K; k++) {
            size_t from = (size_t)t * (size_t)a->stride + (size_t)k * (size_t)kv->C;
            size_t to = pool_index(kv, a->slot[t] / kv->S, k, a->slot[t] % kv->S);
            write_head(kv->k_pool, kv->format, to, a->k + from, kv->C);
            write_head(kv->v_pool, kv->format, to, a->v + from, kv->C);
        }
}

static void read_head(float *out, const void *pool, const op_attention_args *a, int32_t r, int32_t k,
                      int32_t j)
{
    int32_t page = a->pages[(size_t)r * (size_t)a->P + (size_t)(j / a->kv.S)];
    size_t first = pool_index(&a->kv, page, k, j % a->kv.S);
    dtype_to_float(out, (const char *)pool + first * dtype_block_bytes(a->kv.format), a->kv.format, a->kv.C);
}

/* One query token and head over the positions [lo, hi): softmax in one pass with a running maximum. */
static void attend(float *out, const float *q, const op_attention_args *a, int32_t r, int32_t k, int32_t lo,
                   int32_t hi)
{
    int32_t C = a->kv.C;
    float x[MAX_C];
    double top = -INFINITY, total = 0, sum[MAX_C] = {0};
    for (int32_t j = lo; j < hi; j++) {
        read_head(x, a->kv.k_pool, a, r, k, j);
        double score = 0;
        for (int32_t c = 0; c < C; c++) score += (double)q[c] * x[c];
        score *= a->scale;
        double raised = score > top ? score : top, shrink = exp(top - raised), p = exp(score - raised);
        read_head(x, a->kv.v_pool, a, r, k, j);
        for (int32_t c = 0; c < C; c++) sum[c] = sum[c] * shrink + p * x[c];
        total = total * shrink + p;
        top = raised;
    }
    for (int32_t c = 0; c < C; c++) out[c] = (float)(sum[c] / total);
}

void op_attention_ref(const op_attention_args *a)
{
    for (int32_t r = 0; r < a->R; r++)
        for (int32_t t = a->row_start[r]; t < a->row_start[r + 1]; t++) {
            int32_t pos = a->kv_len[r] - (a->row_start[r + 1] - t);
            int32_t lo = a->window > 0 && pos - a->window + 1 > 0 ? pos - a->window + 1 : 0;
            for (int32_t h = 0; h < a->H; h++) {
                size_t head = (size_t)h * (size_t)a->kv.C;
                attend(a->out + (size_t)t * (size_t)a->out_stride + head,
                       a->q + (size_t)t * (size_t)a->q_stride + head, a, r, h / (a->H / a->kv.K), lo,
                       pos + 1);
            }
        }
}
