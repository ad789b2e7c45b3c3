/* The fused op's reference: the single ops' references one after the other; see rope_attention.h. */
#include "ops/rope_attention.h"
#include "ops/rmsnorm.h"

static void norm_heads(const op_rope_attention_args *a, float *x, const float *w, int32_t heads)
{
    int32_t stride = a->attention.q_stride;
    if (!w) return;
    op_rmsnorm_ref(&(op_rmsnorm_args){.out = x,
                                      .out_stride = stride,
                                      .in = x,
                                      .in_stride = stride,
                                      .w = w,
                                      .T = a->attention.T,
                                      .groups = heads,
                                      .width = a->attention.kv.C,
                                      .eps = a->eps});
}

static void turn_heads(const op_rope_attention_args *a, float *x, int32_t heads)
{
    op_rope_ref(&(op_rope_args){.x = x,
                                .stride = a->attention.q_stride,
                                .T = a->attention.T,
                                .heads = heads,
                                .C = a->attention.kv.C,
                                .cos = a->cos,
                                .sin = a->sin,
                                .pairing = a->pairing});
}

void op_rope_attention_ref(const op_rope_attention_args *a)
{
    const op_attention_args *t = &a->attention;
    norm_heads(a, a->q, a->q_norm, t->H);
    norm_heads(a, a->k, a->k_norm, t->kv.K);
    turn_heads(a, a->q, t->H);
    turn_heads(a, a->k, t->kv.K);
    op_kv_write_ref(&(op_kv_write_args){
        .kv = t->kv, .k = a->k, .v = a->v, .stride = t->q_stride, .slot = a->slot, .T = t->T});
    op_attention_ref(t);
}
