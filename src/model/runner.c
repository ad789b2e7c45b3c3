/* Turns each op of the list into its args struct and hands it to the backend; see runner.h. */
#include "model/runner.h"
#include "model/placement.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct runner {
    const model *model;
    backend *backend;
    runner_options options;
    placement place;
    float *buffer[BUF_COUNT];
    size_t buffer_bytes[BUF_COUNT];
    uint8_t *k_pool, *v_pool; /* [L][pages, K, S, C] */
    size_t layer_bytes;       /* of one layer's K (or V) pool */
    runner_hook hook;
    void *hook_context;
};

static bool is_per_logit(int buffer)
{
    return buffer == BUF_LAST || buffer == BUF_LOGITS;
}

static nvllm_status alloc_buffers(runner *r, nvllm_error *err)
{
    for (int i = 0; i < BUF_COUNT; i++) {
        int32_t rows = is_per_logit(i) ? r->options.max_logits : r->options.max_tokens;
        r->buffer_bytes[i] = (size_t)rows * (size_t)r->model->graph.width[i] * sizeof(float);
        r->buffer[i] = r->backend->type->alloc(r->backend, r->buffer_bytes[i]);
        if (!r->buffer[i]) return error_memory(err, r->buffer_bytes[i], "activations");
    }
    return NVLLM_OK;
}

static nvllm_status alloc_kv(runner *r, nvllm_error *err)
{
    const model_config *c = &r->model->config;
    const runner_options *o = &r->options;
    r->layer_bytes =
        (size_t)o->pages * (size_t)c->K * (size_t)o->page_slots * dtype_row_bytes(o->kv_type, c->C);
    size_t bytes = r->layer_bytes * (size_t)c->L;
    r->k_pool = r->backend->type->alloc(r->backend, bytes);
    r->v_pool = r->backend->type->alloc(r->backend, bytes);
    if (!r->k_pool || !r->v_pool) return error_memory(err, 2 * bytes, "the KV cache");
    return NVLLM_OK;
}

static backend_shape shape_of(const runner *r)
{
    const model *m = r->model;
    backend_shape s = {.max_tokens = r->options.max_tokens,
                       .max_logits = r->options.max_logits,
                       .H = m->config.H,
                       .C = m->config.C,
                       .max_context = r->options.max_context};
    for (int32_t i = 0; i < m->graph.count; i++)
        if (m->graph.ops[i].kind == OP_LINEAR && m->graph.ops[i].in.cols > s.widest_input)
            s.widest_input = m->graph.ops[i].in.cols;
    return s;
}

static nvllm_status open_parts(runner *r, nvllm_error *err)
{
    const runner_options *o = &r->options;
    int32_t pages_per_row = (o->max_context + o->page_slots - 1) / o->page_slots;
    backend_shape shape = shape_of(r);
    nvllm_status st = placement_open(&r->place, r->model, r->backend, o->max_tokens, o->max_logits,
                                     o->max_rows * pages_per_row, err);
    if (!st) st = alloc_buffers(r, err);
    if (!st) st = alloc_kv(r, err);
    return st ? st : r->backend->type->reserve_scratch(r->backend, &shape, err);
}

nvllm_status runner_open(runner **out, const model *m, backend *b, const runner_options *options,
                         nvllm_error *err)
{
    runner *r = calloc(1, sizeof *r);
    if (!r) return error_memory(err, sizeof *r, "the runner");
    r->model = m;
    r->backend = b;
    r->options = *options;
    nvllm_status st = open_parts(r, err);
    if (st) {
        runner_close(r);
        return st;
    }
    *out = r;
    return NVLLM_OK;
}

void runner_close(runner *r)
{
    if (!r) return;
    for (int i = 0; i < BUF_COUNT; i++) r->backend->type->free(r->backend, r->buffer[i], r->buffer_bytes[i]);
    size_t bytes = r->layer_bytes * (size_t)r->model->config.L;
    r->backend->type->free(r->backend, r->k_pool, bytes);
    r->backend->type->free(r->backend, r->v_pool, bytes);
    placement_close(&r->place);
    free(r);
}

static float *at(const runner *r, graph_view view)
{
    return r->buffer[view.buffer] + view.col;
}

static int32_t stride(const runner *r, graph_view view)
{
    return r->model->graph.width[view.buffer];
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
                               .window = c->slides[op->layer] ? c->window : 0,
                               .scale = 1.0f / sqrtf((float)c->C)};
}

static op_args args_of(const runner *r, const graph_op *op, const batch *s)
{
    const model_config *c = &r->model->config;
    op_args a = {0};
    float *cos = r->buffer[BUF_COS], *sin = r->buffer[BUF_SIN];
    int32_t rows = op->per_logit ? s->N : s->T;
    switch (op->kind) {
    case OP_EMBED:
        a.embed =
            (op_embed_args){at(r, op->out), weights_get(&r->place.weights, W_EMBED, 0), s->tokens, s->T};
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
    case OP_COUNT: break;
    }
    return a;
}

static void run_ops(runner *r, const batch *step)
{
    const graph *g = &r->model->graph;
    if (r->hook) r->hook(r->hook_context, r, -1, step);
    for (int32_t i = 0; i < g->count; i++) {
        const graph_op *op = &g->ops[i];
        if (op->per_logit && step->N == 0) continue;
        op_args args = args_of(r, op, step);
        r->backend->type->op[op->kind](r->backend, &args);
        if (r->hook) r->hook(r->hook_context, r, i, step);
    }
}

/* Steps in which every row makes one token differ in the arrays' contents only: recorded once per number of rows. */
static nvllm_status run_recorded(runner *r, const batch *step, nvllm_error *err)
{
    const backend_type *type = r->backend->type;
    if (type->replay(r->backend, step->R)) return NVLLM_OK;
    type->record(r->backend);
    run_ops(r, step);
    nvllm_status st = type->record_end(r->backend, step->R, err);
    if (!st) type->replay(r->backend, step->R);
    return st;
}

nvllm_status runner_step(runner *r, const batch *step, float **logits, nvllm_error *err)
{
    batch placed;
    bool decode = step->T == step->R && step->N == step->R && step->R <= BACKEND_MAX_RECORDED;
    nvllm_status st = placement_step(&r->place, &placed, step, err);
    if (st) return st;
    if (r->backend->type->replay && decode && !r->hook)
        st = run_recorded(r, &placed, err);
    else
        run_ops(r, &placed);
    if (st) return st;
    return placement_logits(&r->place, logits, r->buffer[BUF_LOGITS], step->N, r->model->config.V, err);
}

void runner_set_hook(runner *r, runner_hook hook, void *context)
{
    r->hook = hook;
    r->hook_context = context;
}

const graph *runner_graph(const runner *r)
{
    return &r->model->graph;
}

int32_t runner_width(const runner *r, graph_buffer buffer)
{
    return r->model->graph.width[buffer];
}

nvllm_status runner_read(const runner *r, graph_buffer buffer, int32_t rows, float *out, nvllm_error *err)
{
    const backend_type *type = r->backend->type;
    size_t bytes = (size_t)rows * (size_t)runner_width(r, buffer) * sizeof(float);
    if (type->copy_out) return type->copy_out(r->backend, out, r->buffer[buffer], bytes, err);
    memcpy(out, r->buffer[buffer], bytes);
    return NVLLM_OK;
}

size_t runner_kv_bytes(const runner *r)
{
    return 2 * r->layer_bytes * (size_t)r->model->config.L;
}

size_t runner_workspace_bytes(const runner *r)
{
    size_t sum = 0;
    for (int i = 0; i < BUF_COUNT; i++) sum += r->buffer_bytes[i];
    return sum;
}
