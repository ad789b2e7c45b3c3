/* The model handle: weights mapped by the caller's thread, tokenizer and chat template read by another meanwhile. */
#define _GNU_SOURCE
#include "api/handles.h"
#include "backend/backend.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

/* ---- The text side ------------------------------------------------------------------------------------------- */

static void *read_text(void *arg)
{
    model_text *t = arg;
    if (t->gguf) {
        tokenizer_of_gguf(&t->handle.tokenizer, t->gguf, &t->tokenizer_error);
        chat_template_of_gguf(&t->chat, t->gguf, t->handle.tokenizer, &t->chat_error);
    } else {
        tokenizer_open(&t->handle.tokenizer, t->path, &t->tokenizer_error);
        chat_template_open(&t->chat, t->path, &t->chat_error);
    }
    return NULL;
}

const model_text *model_text_of(const nvllm_model *m)
{
    nvllm_model *open =
        (nvllm_model *)(uintptr_t)m; /* joining the reader changes no value that anyone sees */
    pthread_mutex_lock(&open->text_lock);
    if (open->text_running) pthread_join(open->text_thread, NULL);
    open->text_running = false;
    pthread_mutex_unlock(&open->text_lock);
    return &m->text;
}

static void start_text(nvllm_model *m, bool is_gguf)
{
    m->text.path = m->path;
    m->text.gguf = is_gguf ? tensor_store_gguf(m->model->store) : NULL;
    m->text_running = pthread_create(&m->text_thread, NULL, read_text, &m->text) == 0;
    if (!m->text_running) read_text(&m->text);
}

/* ---- The device ---------------------------------------------------------------------------------------------- */

static void *prepare_device(void *name)
{
    backend_prepare(name);
    return NULL;
}

/* What cannot be started here is done by nvllm_engine_open, later. */
static void start_device(nvllm_model *m, const char *name)
{
    m->device = name ? strdup(name) : NULL;
    if (!m->device || pthread_create(&m->device_thread, NULL, prepare_device, m->device) == 0) return;
    free(m->device);
    m->device = NULL;
}

static void stop_device(nvllm_model *m)
{
    if (m->device) pthread_join(m->device_thread, NULL);
    free(m->device);
}

/* ---- Opening ------------------------------------------------------------------------------------------------- */

static nvllm_status read_generation(nvllm_model *m, nvllm_error *err)
{
    char *path = file_join(m->path, "generation_config.json"), *text = NULL;
    size_t len;
    nvllm_status st = NVLLM_OK;
    if (!path) return error_memory(err, strlen(m->path), "a path");
    if (file_exists(path)) {
        st = file_read(&text, &len, path, (size_t)1 << 20, err);
        if (!st) st = generation_config_read(&m->generation, text, len, path, err);
    }
    free(text);
    free(path);
    return st;
}

static nvllm_status open_source(nvllm_model *m, const char *source, nvllm_error *err)
{
    model_source found;
    nvllm_status st = model_source_resolve(&found, source, err);
    if (st) return st;
    m->path = found.path; /* ours now */
    bool is_gguf = found.kind == MODEL_GGUF;
    if (!is_gguf) start_text(m, false); /* before the weights: it takes longest */
    st = model_open(&m->model, m->path, err);
    if (!st && is_gguf) start_text(m, true);
    return st || is_gguf ? st : read_generation(m, err);
}

static nvllm_status parse_dtype(dtype *out, const char *name, nvllm_error *err)
{
    static const struct {
        const char *name;
        dtype type;
    } known[] = {{"f32", DTYPE_F32}, {"f16", DTYPE_F16}, {"bf16", DTYPE_BF16}, {"q8_0", DTYPE_Q8_0}};
    *out = DTYPE_COUNT; /* the config's own */
    if (!name) return NVLLM_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        *out = known[i].type;
        return NVLLM_OK;
    }
    return error_set(err, NVLLM_ERR_USAGE, "unknown dtype \"%s\" (known: f32, f16, bf16, q8_0)", name);
}

static nvllm_status open_random(nvllm_model *m, const nvllm_model_options *options, nvllm_error *err)
{
    static const char none[] = "a model with random weights has no %s";
    dtype type;
    nvllm_status st = parse_dtype(&type, options->dtype, err);
    if (st) return st;
    error_set(&m->text.tokenizer_error, NVLLM_ERR_UNSUPPORTED, none, "tokenizer");
    error_set(&m->text.chat_error, NVLLM_ERR_UNSUPPORTED, none, "chat template");
    m->path = malloc(strlen(options->random_config) + 1);
    if (!m->path) return error_memory(err, strlen(options->random_config), "a path");
    strcpy(m->path, options->random_config);
    return model_open_random(&m->model, m->path, type, options->seed, err);
}

nvllm_status nvllm_model_open(nvllm_model **out, const nvllm_model_options *options, nvllm_error *err)
{
    if (!options || !options->source == !options->random_config)
        return error_set(err, NVLLM_ERR_USAGE,
                         "a model needs either a source or a config for random weights");
    nvllm_model *m = calloc(1, sizeof *m);
    if (!m) return error_memory(err, sizeof *m, "a model");
    pthread_mutex_init(&m->text_lock, NULL);
    start_device(m, options->device);
    nvllm_status st = options->source ? open_source(m, options->source, err) : open_random(m, options, err);
    if (st) {
        nvllm_model_close(m);
        return st;
    }
    *out = m;
    return NVLLM_OK;
}

void nvllm_model_close(nvllm_model *m)
{
    if (!m) return;
    model_text_of(m);
    stop_device(m);
    chat_template_close(m->text.chat);
    tokenizer_close(m->text.handle.tokenizer);
    model_close(m->model);
    pthread_mutex_destroy(&m->text_lock);
    free(m->path);
    free(m);
}

/* ---- Looking ------------------------------------------------------------------------------------------------- */

nvllm_model_info nvllm_model_describe(const nvllm_model *m)
{
    const model *md = m->model;
    const model_config *c = &md->config;
    const model_text *t = model_text_of(m);
    nvllm_model_info info = {.architecture = c->family->architecture,
                             .source = m->path,
                             .layers = c->L,
                             .model_dim = c->D,
                             .heads = c->H,
                             .kv_heads = c->K,
                             .head_dim = c->C,
                             .ff_dim = c->F,
                             .vocab_size = c->V,
                             .max_context = c->max_context,
                             .parameters = weights_parameters(&md->weights, c),
                             .weight_bytes = (int64_t)weights_bytes(&md->weights, c),
                             .has_tokenizer = t->handle.tokenizer != NULL,
                             .has_chat_template = t->chat != NULL};
    for (int32_t i = 0; i < md->graph.count; i++) {
        const graph_op *op = &md->graph.ops[i];
        info.bytes_per_token += (int64_t)graph_op_weight_bytes(op, &md->weights);
        if (!op->per_logit) info.flops_per_token += graph_op_flops(op, &md->weights);
    }
    return info;
}

nvllm_status nvllm_model_tokenizer(const nvllm_model *m, const nvllm_tokenizer **out, nvllm_error *err)
{
    const model_text *t = model_text_of(m);
    if (!t->handle.tokenizer) {
        if (err) *err = t->tokenizer_error;
        return t->tokenizer_error.code;
    }
    *out = &t->handle;
    return NVLLM_OK;
}

/* Sampling as generation_config.json asks, where it asks for sampling; otherwise greedy. */
nvllm_request nvllm_request_defaults(const nvllm_model *m)
{
    nvllm_request q = {.top_p = 1, .repetition_penalty = 1, .logprobs = -1, .text_flags = NVLLM_ADD_SPECIAL};
    const generation_config *g = &m->generation;
    if (g->repetition_penalty.set) q.repetition_penalty = g->repetition_penalty.value;
    if (g->presence_penalty.set) q.presence_penalty = g->presence_penalty.value;
    if (g->frequency_penalty.set) q.frequency_penalty = g->frequency_penalty.value;
    if (!g->do_sample.set || !g->do_sample.value) return q;
    q.temperature = g->temperature.set ? g->temperature.value : 1;
    if (g->top_p.set && g->top_p.value > 0) q.top_p = g->top_p.value;
    if (g->min_p.set) q.min_p = g->min_p.value;
    if (g->top_k.set) q.top_k = g->top_k.value;
    return q;
}
