/* q/k norm, RoPE, the write into the KV cache and attention, as one op (see rmsnorm.h, rope.h, attention.h):
 *     q = rope(norm(q)), k = rope(norm(k)) per head;  k, v into the cache;  out = attention(q)
 * A fused op: backends may lack it, and then the op list keeps the single ops (model/fusion.h). K is rounded to the
 * cache's format before it is used, as by the single ops. */
#ifndef NVLLM_OPS_ROPE_ATTENTION_H
#define NVLLM_OPS_ROPE_ATTENTION_H

#include "ops/attention.h"
#include "ops/rope.h"

#include <stdbool.h>

typedef struct {
    op_attention_args attention; /* q: before norm and rope */
    float *q, *k,
        *v; /* q == attention.q; all three with attention.q_stride; q and k may be changed in place */
    const int32_t *slot;          /* [T]: page*S + offset, where token t goes */
    const float *q_norm, *k_norm; /* [C]; NULL: none */
    float eps;
    const float *cos, *sin; /* [T, C/2] */
    rope_pairing pairing;
} op_rope_attention_args;

void op_rope_attention_ref(const op_rope_attention_args *a);

#endif
