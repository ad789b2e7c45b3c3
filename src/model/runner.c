/* The runner's memory and its steps; see runner.h. */
#include "model/memory_plan.h"
#include "model/runner_state.h"

#include <stdlib.h>
#include <string.h>

static bool is_per_logit(int buffer)
{
    return buffer == BUF_LAST || buffer == BUF_LOGITS;
}

static nvllm_status alloc_buffers(runner *r, nvllm_error *err)
{
    for (int i = 0; i < BUF_COUNT; i++) {
        int32_t rows = is_per_logit(i) ? r->options.max_logits : r->options.max_tokens;
        r->buffer_bytes[i] = (size_t)rows * (size_t)r->graph.width[i] * sizeof(float);
        r->buffer[i] = r->backend->type->alloc(r->backend, r->buffer_bytes[i]);
        if (!r->buffer[i]) return backend_out_of_memory(r->backend, r->buffer_bytes[i], "activations", err);
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
    if (!r->k_pool || !r->v_pool) return backend_out_of_memory(r->backend, 2 * bytes, "the KV cache", err);
    return NVLLM_OK;
}

static void *alloc_host(const runner *r, size_t bytes)
{
    const backend_type *type = r->backend->type;
    return type->host_alloc ? type->host_alloc(r->backend, bytes) : calloc(1, bytes);
}

static void free_host(const runner *r, void *memory)
{
    const backend_type *type = r->backend->type;
    if (type->host_free)
        type->host_free(r->backend, memory);
    else
        free(memory);
}

static nvllm_status alloc_draws(runner *r, nvllm_error *err)
{
    size_t rows = (size_t)r->options.max_rows, scratch = draw_scratch(r->model->config.V);
    r->results = alloc_host(r, 2 * rows * sizeof *r->results);
    r->drawn = r->backend->type->alloc(r->backend, rows * sizeof *r->drawn);
    r->draw_scratch = r->backend->type->copy_in ? NULL : malloc(scratch);
    if (r->results && r->drawn && (r->draw_scratch || r->backend->type->copy_in)) return NVLLM_OK;
    return error_memory(err, 2 * rows * sizeof *r->results + scratch, "the drawn tokens");
}

/* The model's op list, fused for the backend. */
static nvllm_status take_graph(runner *r, nvllm_error *err)
{
    backend_type single = *r->backend->type;
    if (r->options.fusion == FUSION_OFF)
        for (int kind = OP_FIRST_FUSED; kind < OP_COUNT; kind++) single.op[kind] = NULL;
    return graph_fuse(&r->graph, &r->model->graph, &r->model->weights, &single, &r->fusion, err);
}

/* The ops of a step of one token that the backend runs as one kernel, if it can and may. */
static nvllm_status open_chain(runner *r, nvllm_error *err)
{
    const backend_type *type = r->backend->type;
    static const int32_t array[2];
    const batch one = {.T = 1, .R = 1, .N = 1, .P = 1, .logit_row = array};
    int32_t n = r->graph.count;
    if (!type->chain_open || r->options.fusion != FUSION_FULL) return NVLLM_OK;
    op_kind *kinds = calloc((size_t)n, sizeof *kinds);
    r->chain_args = calloc((size_t)n, sizeof *r->chain_args);
    nvllm_status st = NVLLM_OK;
    if (!kinds || !r->chain_args) st = error_memory(err, (size_t)n * sizeof(op_args), "the op list");
    for (int32_t i = 0; !st && i < n; i++) {
        kinds[i] = r->graph.ops[i].kind;
        r->chain_args[i] = runner_args(r, &r->graph.ops[i], &one);
    }
    if (!st) st = type->chain_open(&r->chain, r->backend, kinds, r->chain_args, n, &r->fusion.no_chain, err);
    if (!st && r->chain) r->fusion.chained = r->chain->ops;
    free(kinds);
    return st;
}

static nvllm_status open_parts(runner *r, nvllm_error *err)
{
    const runner_options *o = &r->options;
    int32_t pages_per_row = (o->max_context + o->page_slots - 1) / o->page_slots;
    backend_shape shape = memory_plan_shape(r->model, o);
    nvllm_status st = take_graph(r, err);
    if (!st)
        st = placement_open(&r->place, r->model, r->backend, o->max_tokens, o->max_logits,
                            o->max_rows * pages_per_row, err);
    if (!st) st = alloc_buffers(r, err);
    if (!st) st = alloc_kv(r, err);
    if (!st) st = alloc_draws(r, err);
    if (!st) st = open_chain(r, err);
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
    if (r->results) free_host(r, r->results);
    r->backend->type->free(r->backend, r->drawn, (size_t)r->options.max_rows * sizeof *r->drawn);
    free(r->draw_scratch);
    if (r->chain) r->backend->type->chain_close(r->chain);
    free(r->chain_args);
    placement_close(&r->place);
    graph_free(&r->graph);
    free(r);
}

static bool takes_chain(const runner *r, const batch *step)
{
    bool one = step->T == 1 && step->R == 1 && step->N == 1;
    return r->chain && one && !r->hook;
}

/* Runs the ops that a chain has of this step; returns how many. Hooks want to see every op. */
static int32_t run_chain(runner *r, const batch *step)
{
    if (!takes_chain(r, step)) return 0;
    for (int32_t i = 0; i < r->chain->ops; i++) r->chain_args[i] = runner_args(r, &r->graph.ops[i], step);
    r->backend->type->chain_run(r->backend, r->chain, r->chain_args);
    return r->chain->ops;
}

static void run_ops(runner *r, const batch *step)
{
    const graph *g = &r->graph;
    if (r->hook) r->hook(r->hook_context, r, -1, step);
    for (int32_t i = run_chain(r, step); i < g->count; i++) {
        const graph_op *op = &g->ops[i];
        if (op->per_logit && step->N == 0) continue;
        if (op->kind == OP_DRAW && step->n_draws == 0) continue;
        op_args args = runner_args(r, op, step);
        r->backend->type->op[op->kind](r->backend, &args);
        if (r->hook) r->hook(r->hook_context, r, i, step);
    }
}

#define RECORDED_ROWS 256 /* most rows of a recorded step */

/* The bound of kv_len that kernels are launched for: a power of two times 64 tokens. */
static int32_t length_class(const batch *s)
{
    int32_t longest = 0, lengths = 0;
    for (int32_t r = 0; r < s->R; r++)
        if (s->kv_len[r] > longest) longest = s->kv_len[r];
    while ((64ll << lengths) < longest) lengths++;
    return lengths;
}

static int32_t columns_of(const runner *r, const batch *s, int32_t lengths)
{
    int64_t columns = ((64ll << lengths) + r->options.page_slots - 1) / r->options.page_slots;
    return columns < s->P ? (int32_t)columns : s->P;
}

/* How many rows are launched for a step of R: up to 8 as many, then so few different numbers that each is soon recorded
 * (5, 6, 7 or 8 times a power of two), as far as there is room. */
static int32_t rows_of(const runner *r, int32_t R)
{
    const runner_options *o = &r->options;
    int32_t unit = 1, most = o->max_rows;
    if (o->max_tokens < most) most = o->max_tokens;
    if (o->max_logits < most) most = o->max_logits;
    while (8 * unit < R) unit *= 2;
    int32_t rows = (R + unit - 1) / unit * unit;
    return rows < most ? rows : most;
}

/* Steps in which every row makes one token differ in the arrays' contents only: recorded once per number of rows, class of
 * lengths, and whether all draws are greedy. */
static nvllm_status run_recorded(runner *r, const batch *step, int32_t lengths, nvllm_error *err)
{
    const backend_type *type = r->backend->type;
    int32_t key = (2 * lengths + step->greedy) * RECORDED_ROWS + step->R;
    if (type->replay(r->backend, key)) return NVLLM_OK;
    type->record(r->backend);
    run_ops(r, step);
    nvllm_status st = type->record_end(r->backend, key, err);
    if (!st) type->replay(r->backend, key);
    return st;
}

/* Every row makes one token and draws the next, and no array is longer than the rows are: then only the arrays'
 * contents change from step to step. */
static bool is_steady(const runner *r, const batch *s, int32_t lengths)
{
    bool edits = s->n_counts || s->n_bias || s->n_banned;
    return s->T == s->R && s->N == s->R && s->n_draws == s->R && !edits && s->R <= RECORDED_ROWS &&
           (2 * lengths + 2) * RECORDED_ROWS <= BACKEND_MAX_RECORDED && r->backend->type->replay && !r->hook;
}

nvllm_status runner_launch(runner *r, const batch *step, nvllm_error *err)
{
    batch placed;
    int32_t lengths = length_class(step);
    int32_t parity = (int32_t)(r->launched & 1);
    for (int32_t i = 0; i < step->n_draws; i++) {
        step->draws[i].result = parity * r->options.max_rows + i;
        step->draws[i].epoch = (int32_t)(r->launched + 1);
    }
    bool steady = is_steady(r, step, lengths);
    nvllm_status st = placement_step(&r->place, &placed, step, steady ? rows_of(r, step->R) : step->R,
                                     columns_of(r, step, lengths), err);
    if (st) return st;
    placed.greedy = draws_are_greedy(step->draws, step->n_draws);
    placed.max_len = lengths < 24 ? 64 << lengths : 0;
    r->n_draws[parity] = step->n_draws;
    r->n_logits = step->N;
    r->launched++;
    if (steady) return run_recorded(r, &placed, lengths, err);
    run_ops(r, &placed);
    return NVLLM_OK;
}

bool runner_is_async(const runner *r)
{
    return r->backend->type->wait != NULL;
}

nvllm_status runner_draws(runner *r, const draw_result **out, nvllm_error *err)
{
    const backend_type *type = r->backend->type;
    int32_t parity = (int32_t)(r->collected & 1), epoch = (int32_t)(r->collected + 1);
    const draw_result *first = r->results + (size_t)parity * (size_t)r->options.max_rows;
    nvllm_status st = NVLLM_OK;
    for (int32_t i = 0; type->wait && !st && i < r->n_draws[parity]; i++)
        st = type->wait(r->backend, &first[i].epoch, epoch, err);
    r->collected++;
    *out = first;
    return st;
}

nvllm_status runner_logits(runner *r, float **logits, nvllm_error *err)
{
    return placement_logits(&r->place, logits, r->buffer[BUF_LOGITS], r->n_logits, r->model->config.V, err);
}

nvllm_status runner_step(runner *r, const batch *step, float **logits, nvllm_error *err)
{
    nvllm_status st = runner_launch(r, step, err);
    r->collected = r->launched;
    return st ? st : runner_logits(r, logits, err);
}

void runner_set_hook(runner *r, runner_hook hook, void *context)
{
    r->hook = hook;
    r->hook_context = context;
}

const graph *runner_graph(const runner *r)
{
    return &r->graph;
}

const fusion_report *runner_fusion(const runner *r)
{
    return &r->fusion;
}

int32_t runner_width(const runner *r, graph_buffer buffer)
{
    return r->graph.width[buffer];
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
