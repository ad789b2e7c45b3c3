/* Causal attention over a paged KV cache, and the write into it. arXiv:2309.06180 for pages.
 *     kv_write:  pool[page, k, slot % S, :] = x[t, k, :]   with page = slot / S
 *     attention: out[t, h] = sum_j softmax_j(scale * q[t, h] . k[j, h / (H/K)]) * v[j, h / (H/K)]
 * over the positions j of t's row that t sees: j <= pos(t), and j > pos(t) - window when window > 0.
 * Row r holds tokens row_start[r] .. row_start[r+1]-1 of the step; kv_len[r] counts the row's tokens, this step
 * included, so pos(t) = kv_len[r] - (row_start[r+1] - t). Its K and V are in the pool before the op runs.
 * Position j lies in page pages[r*P + j/S], slot j % S. Pages are [K, S, C]: one head's part is contiguous.
 * C is even and at most 256, H a multiple of K, S any number >= 1, R at most T (a row may be empty). Pages are read
 * only for positions that some token of the step sees: entries below every window, or past kv_len, may be anything.
 * Dot products, softmax statistics and sums in float32. Batch invariance as in linear.h: a token's result depends
 * on its own row's history only, whatever chunk of the prompt it was computed in. */
#ifndef NVLLM_OPS_ATTENTION_H
#define NVLLM_OPS_ATTENTION_H

#include "base/dtype.h"
#include "ops/op.h"

typedef struct {
    void *k_pool, *v_pool; /* one layer's: [pages, K, S, C] in `format` */
    dtype format;          /* F32, F16 or BF16 */
    int32_t K, S, C;
} kv_layer;

typedef struct {
    kv_layer kv;
    const float *k, *v;  /* token t, head h at k + t*stride + h*C */
    int32_t stride;      /* elements between tokens, the same for k and v */
    const int32_t *slot; /* [T]: page*S + offset, where token t goes */
    int32_t T;
} op_kv_write_args;

typedef struct {
    float *out; /* token t, head h at out + t*out_stride + h*C */
    int32_t out_stride;
    const float *q; /* token t, head h at q + t*q_stride + h*C */
    int32_t q_stride;
    kv_layer kv;
    const int32_t *row_start; /* [R+1] */
    const int32_t *kv_len;    /* [R] tokens visible to the row's last token, this step included */
    const int32_t *pages;     /* [R, P] */
    int32_t T, R, P, H;
    int32_t
        max_len; /* no kv_len of the step is larger; 0: unknown. What a device needs to know on the host. */
    int32_t window; /* 0: all */
    float scale;    /* 1/sqrt(C) */
} op_attention_args;

void op_kv_write_ref(const op_kv_write_args *a);
void op_kv_write_cpu(const op_kv_write_args *a, const cpu_context *cpu);
void op_attention_ref(const op_attention_args *a);
void op_attention_cpu(const op_attention_args *a, const cpu_context *cpu);

/* Scratch that op_attention_cpu needs for steps of up to T tokens and rows of up to max_context positions. With less
 * than this, down to one worker's share each, long rows are not split over threads; results are the same. */
size_t op_attention_scratch(int32_t T, int32_t H, int32_t C, int32_t max_context, int threads);

#endif
