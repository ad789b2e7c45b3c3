/* From the public request struct to what the engine runs; see request.h. */
#include "api/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static nvllm_status check_range(const char *field, double value, double low, double high, nvllm_error *err)
{
    if (value >= low && value <= high) return NVLLM_OK; /* NaN fails both */
    if (isinf(high))
        return error_set(err, NVLLM_ERR_USAGE, "%s is %g, must be at least %g", field, value, low);
    return error_set(err, NVLLM_ERR_USAGE, "%s is %g, must be between %g and %g", field, value, low, high);
}

static nvllm_status check_sampling(const nvllm_request *q, nvllm_error *err)
{
    const struct {
        const char *field;
        double value, low, high;
    } rules[] = {
        {"temperature", (double)q->temperature, 0, 100},
        {"top_p", (double)q->top_p, 1e-9, 1},
        {"min_p", (double)q->min_p, 0, 1},
        {"top_k", q->top_k, 0, INFINITY},
        {"repetition_penalty", (double)q->repetition_penalty, 1e-3, 1000},
        {"presence_penalty", (double)q->presence_penalty, -100, 100},
        {"frequency_penalty", (double)q->frequency_penalty, -100, 100},
        {"max_tokens", q->max_tokens, 0, INFINITY},
        {"min_tokens", q->min_tokens, 0, INFINITY},
        {"logprobs", q->logprobs, -1, ENGINE_MAX_TOP_LOGPROBS},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        nvllm_status st = check_range(rules[i].field, rules[i].value, rules[i].low, rules[i].high, err);
        if (st) return st;
    }
    return NVLLM_OK;
}

static nvllm_status check_ids(const int32_t *ids, size_t n, int32_t V, const char *what, nvllm_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= V)
            return error_set(err, NVLLM_ERR_USAGE, "%s: token %d is outside the vocabulary of %d", what,
                             ids[i], V);
    return NVLLM_OK;
}

static nvllm_status copy_ids(int32_t **out, const int32_t *ids, size_t n, nvllm_error *err)
{
    *out = malloc((n + 1) * sizeof **out);
    if (!*out) return error_memory(err, n * sizeof **out, "token ids");
    if (n) memcpy(*out, ids, n * sizeof **out);
    return NVLLM_OK;
}

static nvllm_status take_prompt(request *r, const nvllm_model *m, const nvllm_request *from, nvllm_error *err)
{
    size_t n = from->n_ids;
    nvllm_status st;
    if (from->text) {
        const nvllm_tokenizer *t;
        st = nvllm_model_tokenizer(m, &t, err);
        size_t len = from->text_len ? from->text_len : strlen(from->text);
        if (!st) st = nvllm_tokenize(t, from->text, len, from->text_flags, &r->prompt, &n, err);
    } else {
        st = copy_ids(&r->prompt, from->ids, n, err);
    }
    if (!st && n > INT32_MAX / 2) st = error_set(err, NVLLM_ERR_LIMIT, "the prompt has %zu tokens", n);
    if (!st) st = check_ids(r->prompt, n, m->model->config.V, "prompt", err);
    r->sequence.n_prompt = (int32_t)n;
    r->sequence.prompt = r->prompt;
    return st;
}

static nvllm_status take_stop_ids(request *r, const nvllm_model *m, const nvllm_request *from,
                                  nvllm_error *err)
{
    const model_config *c = &m->model->config;
    const generation_config *g = &m->generation;
    size_t most = (size_t)c->n_eos + (size_t)g->n_eos + from->n_stop_ids, n = 0;
    nvllm_status st = check_ids(from->stop_ids, from->n_stop_ids, c->V, "stop_ids", err);
    if (st) return st;
    r->stop_ids = malloc((most + 1) * sizeof *r->stop_ids);
    if (!r->stop_ids) return error_memory(err, most * sizeof *r->stop_ids, "stop ids");
    for (int32_t i = 0; !from->ignore_eos && i < c->n_eos; i++) r->stop_ids[n++] = c->eos[i];
    for (int32_t i = 0; !from->ignore_eos && i < g->n_eos; i++) r->stop_ids[n++] = g->eos[i];
    for (size_t i = 0; i < from->n_stop_ids; i++) r->stop_ids[n++] = from->stop_ids[i];
    r->sequence.stop_ids = r->stop_ids;
    r->sequence.n_stop_ids = (int32_t)n;
    return NVLLM_OK;
}

static nvllm_status take_bias(request *r, const nvllm_model *m, const nvllm_request *from, nvllm_error *err)
{
    r->bias = malloc((from->n_logit_bias + 1) * sizeof *r->bias);
    if (!r->bias) return error_memory(err, from->n_logit_bias * sizeof *r->bias, "logit bias");
    for (size_t i = 0; i < from->n_logit_bias; i++) {
        nvllm_status st = check_ids(&from->logit_bias[i].token, 1, m->model->config.V, "logit_bias", err);
        if (st) return st;
        r->bias[i] = (sample_bias){from->logit_bias[i].token, from->logit_bias[i].bias};
    }
    r->sequence.bias = r->bias;
    r->sequence.n_bias = (int32_t)from->n_logit_bias;
    return NVLLM_OK;
}

/* The answer ends where the context does, when it is not limited before. */
static nvllm_status take_length(request *r, const nvllm_request *from, int32_t context, nvllm_error *err)
{
    int32_t n = r->sequence.n_prompt, left = context - n;
    if (n < 1) return error_set(err, NVLLM_ERR_USAGE, "the prompt has no tokens");
    if (left < 1)
        return error_set(
            err, NVLLM_ERR_LIMIT,
            "the prompt has %d tokens; with one token of answer it does not fit the context of %d", n,
            context);
    r->sequence.max_tokens = from->max_tokens > 0 && from->max_tokens < left ? from->max_tokens : left;
    r->sequence.min_tokens = from->min_tokens;
    return NVLLM_OK;
}

_Static_assert(sizeof(nvllm_logprob) == sizeof(sample_logprob), "the engine writes into the public struct");

static nvllm_status take_prompt_logprobs(request *r, const nvllm_request *from, nvllm_error *err)
{
    if (!from->prompt_logprobs) return NVLLM_OK;
    if (from->logprobs < 0) return error_set(err, NVLLM_ERR_USAGE, "prompt_logprobs needs logprobs >= 0");
    size_t n = (size_t)r->sequence.n_prompt, k = (size_t)from->logprobs;
    r->prompt_score = calloc(n, sizeof *r->prompt_score);
    r->prompt_top = calloc(n * k + 1, sizeof *r->prompt_top);
    if (!r->prompt_score || !r->prompt_top)
        return error_memory(err, n * k * sizeof *r->prompt_top, "prompt_logprobs");
    r->sequence.score = r->prompt_score;
    r->sequence.score_top = k ? (sample_logprob *)r->prompt_top : NULL;
    return NVLLM_OK;
}

static nvllm_status fill(request *r, const nvllm_model *m, const nvllm_request *from, int32_t context,
                         nvllm_error *err)
{
    nvllm_status st = check_sampling(from, err);
    if (!st && !from->text && !from->ids) st = error_set(err, NVLLM_ERR_USAGE, "the request has no prompt");
    if (!st) st = take_prompt(r, m, from, err);
    if (!st) st = take_length(r, from, context, err);
    if (!st) st = take_stop_ids(r, m, from, err);
    if (!st) st = take_bias(r, m, from, err);
    if (st) return st;
    r->sequence.sampling = (sample_params){.temperature = from->temperature,
                                           .top_p = from->top_p,
                                           .min_p = from->min_p,
                                           .top_k = from->top_k,
                                           .repetition_penalty = from->repetition_penalty,
                                           .presence_penalty = from->presence_penalty,
                                           .frequency_penalty = from->frequency_penalty,
                                           .seed = from->seed};
    r->sequence.top_logprobs = from->logprobs;
    r->sequence.priority = from->priority;
    st = take_prompt_logprobs(r, from, err);
    if (!st) st = text_stream_open(&r->stream, model_text_of(m)->handle.tokenizer, from, err);
    if (!st) text_stream_continue(&r->stream, r->prompt, r->sequence.n_prompt);
    return st;
}

nvllm_status request_new(request **out, const nvllm_model *m, const nvllm_request *from, int32_t context,
                         nvllm_error *err)
{
    request *r = calloc(1, sizeof *r);
    if (!r) return error_memory(err, sizeof *r, "a request");
    nvllm_status st = fill(r, m, from, context, err);
    if (st) {
        request_free(r);
        return st;
    }
    r->usage.prompt_tokens = r->sequence.n_prompt;
    *out = r;
    return NVLLM_OK;
}

nvllm_status request_new_score(request **out, const nvllm_model *m, const int32_t *ids, size_t n_ids,
                               float *logprobs, nvllm_error *err)
{
    request *r = calloc(1, sizeof *r);
    if (!r) return error_memory(err, sizeof *r, "a request");
    nvllm_request from = {.ids = ids, .n_ids = n_ids};
    nvllm_status st = take_prompt(r, m, &from, err);
    if (!st && n_ids < 1) st = error_set(err, NVLLM_ERR_USAGE, "nothing to score: no tokens");
    if (st) {
        request_free(r);
        return st;
    }
    r->sequence.sampling.repetition_penalty = 1;
    r->sequence.top_logprobs = -1;
    r->sequence.score = logprobs;
    logprobs[0] = 0;
    *out = r;
    return NVLLM_OK;
}

void request_free(request *r)
{
    if (!r) return;
    text_stream_close(&r->stream);
    free(r->prompt);
    free(r->stop_ids);
    free(r->bias);
    free(r->prompt_score);
    free(r->prompt_top);
    free(r);
}
