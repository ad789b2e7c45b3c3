/* What `inspect` shows: the configuration, the tensors, the op list and the memory, as JSON. */
#include "api/engine_options.h"
#include "api/handles.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *rope_json(const rope_config *r)
{
    static const char *const scalings[] = {"default", "linear", "llama3", "yarn"};
    json_t *o = json_pack("{s:s, s:s, s:f}", "scaling", scalings[r->scaling], "pairing",
                          r->pairing == ROPE_PAIRS ? "pairs" : "halves", "theta", (double)r->theta);
    if (r->scaling == ROPE_PLAIN) return o;
    json_object_set_new(o, "factor", json_real((double)r->factor));
    json_object_set_new(o, "original_context", json_integer(r->original_context));
    if (r->scaling == ROPE_LLAMA3) {
        json_object_set_new(o, "low_freq_factor", json_real((double)r->low_freq_factor));
        json_object_set_new(o, "high_freq_factor", json_real((double)r->high_freq_factor));
    }
    if (r->scaling == ROPE_YARN) {
        json_object_set_new(o, "beta_fast", json_real((double)r->beta_fast));
        json_object_set_new(o, "beta_slow", json_real((double)r->beta_slow));
        json_object_set_new(o, "attention_factor", json_real((double)r->attention_factor));
    }
    return o;
}

static json_t *config_json(const nvllm_model *m)
{
    const model_config *c = &m->model->config;
    json_t *eos = json_array();
    for (int32_t i = 0; i < c->n_eos; i++) json_array_append_new(eos, json_integer(c->eos[i]));
    json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f}", "architecture",
                          c->family->architecture, "source", m->path, "layers", c->L, "model_dim", c->D,
                          "heads", c->H, "kv_heads", c->K, "head_dim", c->C, "ff_dim", c->F, "vocab_size",
                          c->V, "max_context", c->max_context, "norm_eps", (double)c->norm_eps);
    json_object_set_new(o, "rope", rope_json(&c->rope));
    json_object_set_new(o, "tied_head", json_boolean(c->tied));
    json_object_set_new(o, "qkv_bias", json_boolean(c->q_bias));
    json_object_set_new(o, "o_bias", json_boolean(c->o_bias));
    json_object_set_new(o, "mlp_bias", json_boolean(c->mlp_bias));
    json_object_set_new(o, "qk_norm", json_boolean(c->qk_norm));
    json_object_set_new(o, "sliding_window", c->window ? json_integer(c->window) : json_null());
    json_object_set_new(o, "bos", c->bos >= 0 ? json_integer(c->bos) : json_null());
    json_object_set_new(o, "eos", eos);
    return o;
}

static json_t *tensor_json(const tensor *t)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->n_dims; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_t *o = json_pack("{s:s, s:o, s:I, s:s}", "name", t->name, "shape", shape, "bytes",
                          (json_int_t)t->bytes, "file", t->file);
    json_object_set_new(o, "dtype", t->refused ? json_null() : json_string(dtype_name(t->type)));
    if (t->refused) json_object_set_new(o, "refused", json_string(t->refused));
    return o;
}

static json_t *tensors_json(const nvllm_model *m)
{
    const tensor_store *store = m->model->store;
    json_t *list = json_array();
    for (size_t i = 0; store && i < tensor_store_count(store); i++)
        json_array_append_new(list, tensor_json(tensor_store_at(store, i)));
    return json_pack("{s:I, s:o}", "mapped_bytes", (json_int_t)(store ? tensor_store_bytes(store) : 0),
                     "tensors", list);
}

static json_t *view_json(graph_view v)
{
    return json_pack("{s:s, s:i, s:i}", "buffer", graph_buffer_name(v.buffer), "col", v.col, "cols", v.cols);
}

static json_t *op_json(const model *m, const graph_op *op)
{
    json_t *parts = json_array();
    for (int32_t p = 0; p < op->n_parts; p++) {
        const weight *w = weights_get(&m->weights, op->w[p], op->layer);
        json_array_append_new(parts,
                              json_pack("{s:s, s:s, s:[i,i], s:b}", "role", weight_role_name(op->w[p]),
                                        "dtype", dtype_name(w->format), "shape", w->rows, w->cols, "bias",
                                        weights_get(&m->weights, op->bias[p], op->layer) != NULL));
    }
    return json_pack("{s:s, s:i, s:o, s:o, s:o, s:b, s:i, s:I, s:I}", "op", op_name(op->kind), "layer",
                     op->layer, "out", view_json(op->out), "in", view_json(op->in), "weights", parts,
                     "accumulate", (int)op->accumulate, "groups", op->groups, "weight_bytes",
                     (json_int_t)graph_op_weight_bytes(op, &m->weights), "flops_per_token",
                     (json_int_t)graph_op_flops(op, &m->weights));
}

static json_t *graph_json(const nvllm_model *m)
{
    const graph *g = &m->model->graph;
    json_t *ops = json_array();
    for (int32_t i = 0; i < g->count; i++) json_array_append_new(ops, op_json(m->model, &g->ops[i]));
    return json_pack("{s:i, s:o}", "count", g->count, "ops", ops);
}

static json_t *memory_json(const nvllm_model *m)
{
    const model *md = m->model;
    dtype kv = model_default_kv_type(md);
    nvllm_model_info info = nvllm_model_describe(m);
    return json_pack("{s:I, s:I, s:s, s:I, s:i, s:I, s:I}", "parameters", (json_int_t)info.parameters,
                     "weight_bytes", (json_int_t)info.weight_bytes, "kv_dtype", dtype_name(kv),
                     "kv_bytes_per_token", (json_int_t)model_kv_bytes_per_token(md, kv), "max_context",
                     info.max_context, "kv_bytes_at_max_context",
                     (json_int_t)model_kv_bytes_per_token(md, kv) * info.max_context,
                     "weight_bytes_per_token", (json_int_t)info.bytes_per_token);
}

nvllm_status nvllm_model_inspect(const nvllm_model *m, const char *what, char **json, nvllm_error *err)
{
    static const struct {
        const char *name;
        json_t *(*make)(const nvllm_model *m);
    } views[] = {
        {"config", config_json}, {"tensors", tensors_json}, {"graph", graph_json}, {"memory", memory_json}};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        if (strcmp(views[i].name, what) != 0) continue;
        json_t *o = views[i].make(m);
        char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
        json_decref(o);
        if (!text) return error_memory(err, 0, what);
        *json = text;
        return NVLLM_OK;
    }
    return error_set(err, NVLLM_ERR_USAGE, "unknown view \"%s\" (known: config, tensors, graph, memory)",
                     what);
}

/* ---- Plan ---------------------------------------------------------------------------------------------------- */

static void add_row(json_t *rows, const char *part, size_t bytes, const char *note)
{
    char about[32];
    snprintf(about, sizeof about, "%.3f GB", (double)bytes / 1e9);
    json_array_append_new(rows, json_pack("{s:s, s:I, s:s, s:s}", "part", part, "bytes", (json_int_t)bytes,
                                          "size", about, "note", note));
}

static json_t *parts_json(const engine_memory *memory, const engine_options *o, bool on_device)
{
    const memory_plan *p = &memory->parts;
    char kv[64], step[64];
    json_t *rows = json_array();
    snprintf(kv, sizeof kv, "%lld tokens", (long long)o->kv_tokens);
    snprintf(step, sizeof step, "steps of %d tokens", (int)o->step_tokens);
    add_row(rows, "weights", p->weights, on_device ? "copied to the device" : "mapped files");
    add_row(rows, "kv_cache", p->kv, kv);
    add_row(rows, "activations", p->activations, step);
    add_row(rows, "op_scratch", p->scratch, "shared by all operations");
    if (on_device)
        add_row(rows, "headroom", memory->headroom, "kernels and recorded steps: not known before");
    add_row(rows, "sum", memory_plan_sum(p) + memory->headroom,
            engine_memory_fits(memory) ? "fits" : "does not fit");
    add_row(rows, "available", memory->available, on_device ? "free on the device" : "of this machine");
    add_row(rows, "total", memory->total, on_device ? "of the device" : "of this machine");
    return rows;
}

static json_t *plan_json(const engine_options *o, const model *m, backend *b)
{
    engine_memory memory = engine_memory_of(o, m, b);
    json_t *plan =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:I, s:b, s:o}", "device", b->type->name, "device_name",
                  b->isa ? b->isa : "", "context", (int)o->context, "max_sequences", (int)o->max_sequences,
                  "step_tokens", (int)o->step_tokens, "kv_tokens", (json_int_t)o->kv_tokens, "fits",
                  (int)engine_memory_fits(&memory), "parts", parts_json(&memory, o, b->type->memory != NULL));
    if (*b->passed_over) json_object_set_new(plan, "passed_over", json_string(b->passed_over));
    return plan;
}

nvllm_status nvllm_engine_plan(const nvllm_model *m, const nvllm_engine_options *options, char **json,
                               nvllm_error *err)
{
    static const nvllm_engine_options defaults = {0};
    if (!options) options = &defaults;
    backend *b = NULL;
    engine_options resolved;
    backend_options bo = {.threads = options->threads, .isa = options->isa};
    nvllm_status st = backend_open(&b, options->device, &bo, err);
    if (!st) st = engine_options_resolve(&resolved, options, m->model, b, err);
    if (!st) {
        json_t *o = memory_json(m);
        json_object_set_new(o, "plan", plan_json(&resolved, m->model, b));
        *json = json_dumps(o, JSON_INDENT(2));
        json_decref(o);
        if (!*json) st = error_memory(err, 0, "the plan");
    }
    backend_close(b);
    return st;
}
