/* Turns an op of the list into the args struct that the backend takes: pointers for views and roles. */
#include "model/runner_state.h"

#include <math.h>

static float *at(const runner *r, graph_view view)
{
    return r->buffer[view.buffer] + view.col;
}

static int32_t stride(const runner *r, graph_view view)
{
    return r->graph.width[view.buffer];
}

static kv_layer kv_of(const runner *r, int32_t layer)
{
    size_t offset = r->layer_bytes * (size_t)layer;
    return (kv_layer){r->k_pool + offset, r->v_pool + offset,    r->options.kv_type,
                      r->model->config.K, r->options.page_slots, r->model->config.C};
}

static op_linear_args linear_args(const runner *r, const graph_op *op, int32_t rows)
{
    const weights *w = &r->place.weights;
    op_linear_args a = {.out = at(r, op->out),
                        .out_stride = stride(r, op->out),
                        .in = at(r, op->in),
                        .in_stride = stride(r, op->in),
                        .T = rows,
                        .n_parts = op->n_parts,
                        .accumulate = op->accumulate};
    for (int32_t p = 0, col = 0; p < op->n_parts; p++) {
        const weight *m = weights_get(w, op->w[p], op->layer), *bias = weights_get(w, op->bias[p], op->layer);
        a.part[p] = (linear_part){m, bias ? bias->data : NULL, col};
        col += m->rows;
    }
    return a;
}

static op_rmsnorm_args rmsnorm_args(const runner *r, const graph_op *op, int32_t rows)
{
    return (op_rmsnorm_args){.out = at(r, op->out),
                             .out_stride = stride(r, op->out),
                             .in = at(r, op->in),
                             .in_stride = stride(r, op->in),
                             .w = weights_get(&r->place.weights, op->w[0], op->layer)->data,
                             .T = rows,
                             .groups = op->groups,
                             .width = op->in.cols / op->groups,
                             .eps = r->model->config.norm_eps};
}

static op_attention_args attention_args(const runner *r, const graph_op *op, const batch *s)
{
    const model_config *c = &r->model->config;
    return (op_attention_args){.out = at(r, op->out),
                               .out_stride = stride(r, op->out),
                               .q = at(r, op->in),
                               .q_stride = stride(r, op->in),
                               .kv = kv_of(r, op->layer),
                               .row_start = s->row_start,
                               .kv_len = s->kv_len,
                               .pages = s->pages,
                               .T = s->T,
                               .R = s->R,
                               .P = s->P,
                               .H = c->H,
                               .max_len = s->max_len,
                               .window = c->slides[op->layer] ? c->window : 0,
                               .scale = 1.0f / sqrtf((float)c->C)};
}

static op_norm_linear_args norm_linear_args(const runner *r, const graph_op *op, const batch *s)
{
    op_norm_linear_args a = {.linear = linear_args(r, op, op->per_logit ? s->N : s->T),
                             .norm = weights_get(&r->place.weights, op->norm[0], op->layer)->data,
                             .eps = r->model->config.norm_eps,
                             .row = op->per_logit ? s->logit_row : NULL,
                             .gated = op->gated};
    for (int32_t p = 0; p < op->n_parts && op->gated; p++) a.linear.part[p].out_col = 0;
    return a;
}

static op_rope_attention_args rope_attention_args(const runner *r, const graph_op *op, const batch *s)
{
    const model_config *c = &r->model->config;
    const weight *q_norm = weights_get(&r->place.weights, op->norm[0], op->layer),
                 *k_norm = weights_get(&r->place.weights, op->norm[1], op->layer);
    float *qkv = at(r, op->in);
    return (op_rope_attention_args){.attention = attention_args(r, op, s),
                                    .q = qkv,
                                    .k = qkv + c->H * c->C,
                                    .v = qkv + (c->H + c->K) * c->C,
                                    .slot = s->slot,
                                    .q_norm = q_norm ? q_norm->data : NULL,
                                    .k_norm = k_norm ? k_norm->data : NULL,
                                    .eps = c->norm_eps,
                                    .cos = r->buffer[BUF_COS],
                                    .sin = r->buffer[BUF_SIN],
                                    .pairing = c->rope.pairing};
}

static op_draw_args draw_args(const runner *r, const batch *s)
{
    return (op_draw_args){.logits = r->buffer[BUF_LOGITS],
                          .V = r->model->config.V,
                          .N = s->n_draws,
                          .greedy = s->greedy,
                          .order = s->draws,
                          .counts = s->counts,
                          .bias = s->bias,
                          .banned = s->banned,
                          .result = r->results,
                          .drawn = r->drawn,
                          .scratch = r->draw_scratch};
}

op_args runner_args(const runner *r, const graph_op *op, const batch *s)
{
    const model_config *c = &r->model->config;
    op_args a = {0};
    float *cos = r->buffer[BUF_COS], *sin = r->buffer[BUF_SIN];
    int32_t rows = op->per_logit ? s->N : s->T;
    switch (op->kind) {
    case OP_EMBED:
        a.embed = (op_embed_args){at(r, op->out), weights_get(&r->place.weights, W_EMBED, 0), s->tokens,
                                  r->drawn, s->T};
        break;
    case OP_ROPE_TABLE:
        a.rope_table =
            (op_rope_table_args){cos, sin, r->place.inv_freq, s->pos, s->T, c->C, c->rope.attention_factor};
        break;
    case OP_RMSNORM: a.rmsnorm = rmsnorm_args(r, op, rows); break;
    case OP_LINEAR: a.linear = linear_args(r, op, rows); break;
    case OP_ROPE:
        a.rope = (op_rope_args){at(r, op->in), stride(r, op->in), s->T, op->groups, c->C, cos,
                                sin,           c->rope.pairing};
        break;
    case OP_KV_WRITE: {
        float *k = at(r, op->in);
        a.kv_write =
            (op_kv_write_args){kv_of(r, op->layer), k, k + op->in.cols / 2, stride(r, op->in), s->slot, s->T};
        break;
    }
    case OP_ATTENTION: a.attention = attention_args(r, op, s); break;
    case OP_SILU_MUL: {
        float *gate = at(r, op->in);
        a.silu_mul = (op_silu_mul_args){at(r, op->out),    gate, gate + c->F, stride(r, op->out),
                                        stride(r, op->in), s->T, c->F};
        break;
    }
    case OP_GATHER:
        a.gather = (op_gather_args){at(r, op->out), at(r, op->in), s->logit_row, s->N, c->D};
        break;
    case OP_DRAW: a.draw = draw_args(r, s); break;
    case OP_NORM_LINEAR: a.norm_linear = norm_linear_args(r, op, s); break;
    case OP_ROPE_ATTENTION: a.rope_attention = rope_attention_args(r, op, s); break;
    case OP_COUNT: break;
    }
    return a;
}
