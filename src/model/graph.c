/* Builds the op list of a decoder from its config; see graph.h. */
#include "model/graph.h"

#include <stdlib.h>

static graph_view whole(const graph *g, graph_buffer buffer)
{
    return (graph_view){buffer, 0, g->width[buffer]};
}

static graph_view columns(graph_buffer buffer, int32_t col, int32_t cols)
{
    return (graph_view){buffer, col, cols};
}

static void push(graph *g, graph_op op)
{
    g->ops[g->count++] = op; /* capacity is exact: see graph_build */
}

static void push_norm(graph *g, int32_t layer, graph_view out, graph_view in, int32_t groups, weight_role w)
{
    push(g, (graph_op){.kind = OP_RMSNORM,
                       .layer = layer,
                       .out = out,
                       .in = in,
                       .groups = groups,
                       .n_parts = 1,
                       .w = {w, W_NONE, W_NONE},
                       .bias = {W_NONE, W_NONE, W_NONE},
                       .norm = {W_NONE, W_NONE}});
}

static graph_op linear(int32_t layer, graph_view out, graph_view in)
{
    return (graph_op){.kind = OP_LINEAR,
                      .layer = layer,
                      .out = out,
                      .in = in,
                      .groups = 1,
                      .w = {W_NONE, W_NONE, W_NONE},
                      .bias = {W_NONE, W_NONE, W_NONE},
                      .norm = {W_NONE, W_NONE}};
}

static void add_part(graph_op *op, weight_role w, weight_role bias)
{
    op->w[op->n_parts] = w;
    op->bias[op->n_parts++] = bias;
}

static void push_plain(graph *g, op_kind kind, int32_t layer, graph_view out, graph_view in, int32_t groups)
{
    graph_op op = linear(layer, out, in);
    op.kind = kind;
    op.groups = groups;
    push(g, op);
}

/* x += o_proj(attention(rope(norm(q)), rope(norm(k)), v)) with q, k, v from RMSNorm(x). */
static void push_attention_block(graph *g, const model_config *c, int32_t layer)
{
    int32_t q = c->H * c->C, kv = c->K * c->C;
    graph_view q_view = columns(BUF_QKV, 0, q), k_view = columns(BUF_QKV, q, kv);
    push_norm(g, layer, whole(g, BUF_NORM), whole(g, BUF_X), 1, W_ATTN_NORM);
    graph_op qkv = linear(layer, whole(g, BUF_QKV), whole(g, BUF_NORM));
    add_part(&qkv, W_Q, W_Q_BIAS);
    add_part(&qkv, W_K, W_K_BIAS);
    add_part(&qkv, W_V, W_V_BIAS);
    push(g, qkv);
    if (c->qk_norm) {
        push_norm(g, layer, q_view, q_view, c->H, W_Q_NORM);
        push_norm(g, layer, k_view, k_view, c->K, W_K_NORM);
    }
    /* q and k are neighbours: one op turns the heads of both. */
    push_plain(g, OP_ROPE, layer, columns(BUF_QKV, 0, q + kv), columns(BUF_QKV, 0, q + kv), c->H + c->K);
    push_plain(g, OP_KV_WRITE, layer, columns(BUF_NONE, 0, 0), columns(BUF_QKV, q, 2 * kv), c->K);
    push_plain(g, OP_ATTENTION, layer, whole(g, BUF_ATTN), q_view, c->H);
    graph_op o = linear(layer, whole(g, BUF_X), whole(g, BUF_ATTN));
    add_part(&o, W_O, W_O_BIAS);
    o.accumulate = true;
    push(g, o);
}

/* x += down(silu(gate(n)) * up(n)) with n = RMSNorm(x). */
static void push_feed_forward_block(graph *g, const model_config *c, int32_t layer)
{
    push_norm(g, layer, whole(g, BUF_NORM), whole(g, BUF_X), 1, W_MLP_NORM);
    graph_op gate_up = linear(layer, whole(g, BUF_GATE_UP), whole(g, BUF_NORM));
    add_part(&gate_up, W_GATE, W_GATE_BIAS);
    add_part(&gate_up, W_UP, W_UP_BIAS);
    push(g, gate_up);
    push_plain(g, OP_SILU_MUL, layer, columns(BUF_GATE_UP, 0, c->F), whole(g, BUF_GATE_UP), 1);
    graph_op down = linear(layer, whole(g, BUF_X), columns(BUF_GATE_UP, 0, c->F));
    add_part(&down, W_DOWN, W_DOWN_BIAS);
    down.accumulate = true;
    push(g, down);
}

static void push_head(graph *g)
{
    int32_t first = g->count;
    push_plain(g, OP_GATHER, -1, whole(g, BUF_LAST), whole(g, BUF_X), 1);
    push_norm(g, -1, whole(g, BUF_LAST), whole(g, BUF_LAST), 1, W_FINAL_NORM);
    graph_op head = linear(-1, whole(g, BUF_LOGITS), whole(g, BUF_LAST));
    add_part(&head, W_LM_HEAD, W_NONE);
    push(g, head);
    push_plain(g, OP_DRAW, -1, columns(BUF_NONE, 0, 0), whole(g, BUF_LOGITS), 1);
    for (int32_t i = first; i < g->count; i++) g->ops[i].per_logit = true;
}

static void set_widths(graph *g, const model_config *c)
{
    g->width[BUF_X] = g->width[BUF_NORM] = g->width[BUF_LAST] = c->D;
    g->width[BUF_QKV] = (c->H + 2 * c->K) * c->C;
    g->width[BUF_ATTN] = c->H * c->C;
    g->width[BUF_GATE_UP] = 2 * c->F;
    g->width[BUF_COS] = g->width[BUF_SIN] = c->C / 2;
    g->width[BUF_LOGITS] = c->V;
}

nvllm_status graph_build(graph *out, const model_config *c, nvllm_error *err)
{
    const int32_t per_layer = 12, around = 6;
    graph g = {.capacity = c->L * per_layer + around};
    g.ops = calloc((size_t)g.capacity, sizeof *g.ops);
    if (!g.ops) return error_memory(err, (size_t)g.capacity * sizeof *g.ops, "the op list");
    set_widths(&g, c);
    push_plain(&g, OP_ROPE_TABLE, -1, whole(&g, BUF_COS), columns(BUF_NONE, 0, 0), 1);
    graph_op embed = linear(-1, whole(&g, BUF_X), columns(BUF_NONE, 0, 0));
    embed.kind = OP_EMBED;
    add_part(&embed, W_EMBED, W_NONE);
    push(&g, embed);
    for (int32_t layer = 0; layer < c->L; layer++) {
        push_attention_block(&g, c, layer);
        push_feed_forward_block(&g, c, layer);
    }
    push_head(&g);
    *out = g;
    return NVLLM_OK;
}

void graph_free(graph *g)
{
    free(g->ops);
    *g = (graph){0};
}

size_t graph_op_weight_bytes(const graph_op *op, const weights *w)
{
    size_t bytes = 0;
    for (int32_t p = 0; p < op->n_parts; p++) {
        const weight *m = weights_get(w, op->w[p], op->layer), *b = weights_get(w, op->bias[p], op->layer);
        int64_t rows = op->kind == OP_EMBED ? 1 : m->rows; /* a token reads one row of the table */
        bytes += (size_t)rows * dtype_row_bytes(m->format, m->cols);
        if (b) bytes += (size_t)b->rows * sizeof(float);
    }
    for (int i = 0; i < 2; i++) {
        const weight *norm = weights_get(w, op->norm[i], op->layer);
        if (norm) bytes += (size_t)norm->rows * dtype_row_bytes(norm->format, norm->cols);
    }
    return bytes;
}

int64_t graph_op_flops(const graph_op *op, const weights *w)
{
    int64_t flops = 0;
    for (int32_t p = 0; (op->kind == OP_LINEAR || op->kind == OP_NORM_LINEAR) && p < op->n_parts; p++) {
        const weight *m = weights_get(w, op->w[p], op->layer);
        flops += 2 * (int64_t)m->rows * m->cols;
    }
    return flops;
}

const char *graph_buffer_name(graph_buffer buffer)
{
    static const char *const names[BUF_COUNT] = {"x",   "norm", "qkv",  "attn",  "gate_up",
                                                 "cos", "sin",  "last", "logits"};
    return buffer >= 0 && buffer < BUF_COUNT ? names[buffer] : "kv";
}
