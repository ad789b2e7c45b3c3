/* Draws on the host, one order after the other; see draw.h. */
#include "ops/draw.h"

#include <math.h>
#include <string.h>

/* Penalties change the logits in place, and log-probabilities are of the model's own distribution: so a copy is kept
 * for those who ask. */
static void draw_one(const op_draw_args *a, int32_t i)
{
    const draw_order *o = &a->order[i];
    draw_result *r = &a->result[o->result];
    float *logits = a->logits + (size_t)o->logit * (size_t)a->V, *raw = a->scratch;
    size_t bytes = (size_t)a->V * sizeof *raw;
    if (o->n_top >= 0) memcpy(raw, logits, bytes);
    int32_t token = sample_token(&(sample_args){.logits = logits,
                                                .V = a->V,
                                                .params = &o->params,
                                                .step = o->step,
                                                .counts = o->n_counts ? a->counts + o->first_count : NULL,
                                                .n_counts = o->n_counts,
                                                .bias = o->n_bias ? a->bias + o->first_bias : NULL,
                                                .n_bias = o->n_bias,
                                                .banned = o->n_banned ? a->banned + o->first_banned : NULL,
                                                .n_banned = o->n_banned,
                                                .scratch = (char *)a->scratch + (bytes + 7) / 8 * 8});
    r->token = a->drawn[i] = token;
    r->failed = !(logits[token] > -INFINITY);
    r->n_top = o->n_top > 0 ? o->n_top : 0;
    r->logprob = o->n_top >= 0 ? sample_logprobs(raw, a->V, token, r->top, r->n_top) : 0;
    r->epoch = o->epoch;
}

bool draws_are_greedy(const draw_order *orders, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (orders[i].params.temperature != 0 || orders[i].n_top >= 0) return false;
    return true;
}

void op_draw_ref(const op_draw_args *a)
{
    for (int32_t i = 0; i < a->N; i++) draw_one(a, i);
}

size_t draw_scratch(int32_t V)
{
    return ((size_t)V * sizeof(float) + 7) / 8 * 8 + sample_scratch(V);
}
