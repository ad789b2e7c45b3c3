/* From request to answer; see generation.h. */
#define _GNU_SOURCE
#include "serve/generation.h"
#include "serve/openai_out.h"
#include "serve/sse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* ---- The answer -------------------------------------------------------------------------------------------- */

static void send_chunk(generation *g, choice *c, void write(wire *, generation *, choice *))
{
    sse_begin(&g->out);
    write(&g->out, g, c);
    sse_end(&g->out);
}

static void send_usage(generation *g)
{
    sse_begin(&g->out);
    openai_write_usage_chunk(&g->out, g);
    sse_end(&g->out);
}

static void release_text(generation *g)
{
    for (size_t i = 0; i < g->n_choices; i++) {
        choice *c = &g->choices[i];
        reasoning_free(&c->split);
        wire_free(&c->thought);
        wire_free(&c->text);
        logprobs_free(&c->logprobs);
    }
    g->held = 0;
}

static void send_error(generation *g)
{
    sse_begin(&g->out);
    api_error_write(&g->out, &g->error);
    sse_end(&g->out);
}

/* All choices have ended. */
static void conclude(generation *g)
{
    if (g->request.stream) {
        if (g->failed)
            send_error(g);
        else if (g->request.include_usage)
            send_usage(g);
        sse_done(&g->out);
    } else if (!g->failed) {
        openai_write_answer(&g->out, g);
    }
    release_text(g);
    g->complete = true;
}

/* ---- Events ------------------------------------------------------------------------------------------------ */

static void take_text(choice *c, const nvllm_event *event)
{
    if (c->owner->request.chat)
        reasoning_push(&c->split, event->text, event->text_len, &c->thought, &c->text);
    else
        wire_bytes(&c->text, event->text, event->text_len);
}

static void take_token(generation *g, choice *c, const nvllm_event *event)
{
    c->tokens++;
    if (g->request.max_tokens == 0) return; /* echo alone: the engine had to make one token */
    take_text(c, event);
    if (g->request.top_logprobs >= 0) {
        if (g->request.chat)
            logprobs_add_chat(&c->logprobs, event);
        else
            logprobs_add_completion(&c->logprobs, event, false);
    }
    bool news =
        !c->started || c->text.len || c->thought.len || c->logprobs.count || g->request.continuous_usage;
    if (g->request.stream && news) send_chunk(g, c, openai_write_chunk);
}

static void end_choice(generation *g, choice *c)
{
    c->live = false;
    g->n_live--;
}

static void take_end(generation *g, choice *c, const nvllm_event *event)
{
    c->finish = event->finish;
    c->usage = event->usage;
    end_choice(g, c);
    if (g->request.max_tokens == 0) {
        c->finish = NVLLM_FINISH_LENGTH;
        c->tokens = c->usage.generated_tokens = 0;
    } else {
        take_text(c, event);
    }
    if (g->request.chat) reasoning_finish(&c->split, &c->thought, &c->text);
    if (g->request.stream) send_chunk(g, c, openai_write_last_chunk);
}

static void take_error(generation *g, choice *c, const nvllm_event *event)
{
    end_choice(g, c);
    if (!g->failed)
        api_error_set(&g->error, 500, "engine_error", "%s",
                      event->error ? event->error : "the request failed");
    g->failed = true;
}

static size_t choice_bytes(const choice *c)
{
    return c->split.held.len + c->thought.len + c->text.len + logprobs_bytes(&c->logprobs);
}

void generation_take(generation *g, choice *c, const nvllm_event *event)
{
    g->held -= choice_bytes(c);
    switch (event->kind) {
    case NVLLM_EVENT_PROMPT:
        logprobs_add_completion(&c->logprobs, event, c->prompt_tokens_seen++ == 0);
        break;
    case NVLLM_EVENT_TOKEN: take_token(g, c, event); break;
    case NVLLM_EVENT_DONE: take_end(g, c, event); break;
    case NVLLM_EVENT_ERROR: take_error(g, c, event); break;
    }
    g->held += choice_bytes(c);
    if (g->n_live == 0 && !g->complete) conclude(g);
}

nvllm_usage generation_usage(const generation *g)
{
    nvllm_usage sum = {0};
    for (size_t i = 0; i < g->n_prompts; i++) sum.prompt_tokens += g->prompt_tokens[i];
    for (size_t i = 0; i < g->n_choices; i++) {
        const choice *c = &g->choices[i];
        sum.generated_tokens += c->live ? c->tokens : c->usage.generated_tokens;
        if (c->usage.generate_ms > sum.generate_ms) sum.generate_ms = c->usage.generate_ms;
        /* The choices of one prompt share it: it is the first one's that tells what had to be computed. */
        if (i % (size_t)g->request.n) continue;
        sum.cached_tokens += c->usage.cached_tokens;
        if (c->usage.prompt_ms > sum.prompt_ms) sum.prompt_ms = c->usage.prompt_ms;
    }
    return sum;
}

/* ---- Preparation ------------------------------------------------------------------------------------------- */

/* The field that errors of the prompt are about. */
static const char *prompt_field(const generation *g)
{
    return g->request.chat ? "messages" : "prompt";
}

static bool take_length(generation *g, const generation_model *m, size_t index, size_t n_ids, api_error *err)
{
    long long answer = g->request.max_tokens > 0 ? g->request.max_tokens : 1;
    if ((long long)n_ids + answer <= m->context) {
        g->prompt_tokens[index] = (int32_t)n_ids;
        return true;
    }
    api_error_set(
        err, 400, "context_length_exceeded",
        "this model's context holds %d tokens, and %lld were asked for: %zu of the prompt and %lld of the "
        "answer",
        m->context, (long long)n_ids + answer, n_ids, answer);
    snprintf(err->param, sizeof err->param, "%s", prompt_field(g));
    return false;
}

/* Others wait behind this prompt, so a text that cannot fit whatever its tokens are is not looked at. */
static bool check_length(const generation *g, size_t len, int32_t context, api_error *err)
{
    enum { LONGEST_TOKEN = 256 }; /* bytes; vocabularies in use have runs of spaces of up to 128 */
    if (len / LONGEST_TOKEN <= (size_t)context) return true;
    api_error_set(err, 400, "context_length_exceeded",
                  "this model's context holds %d tokens, and the prompt has %zu bytes", context, len);
    snprintf(err->param, sizeof err->param, "%s", prompt_field(g));
    return false;
}

static bool tokenize(generation *g, const generation_model *m, size_t index, const char *text, size_t len,
                     unsigned flags, api_error *err)
{
    nvllm_error why = {0};
    size_t n;
    if (!check_length(g, len, m->context, err)) return false;
    if (nvllm_tokenize(m->tokenizer, text, len, flags, &g->prompt_ids[index], &n, &why))
        return api_error_from(err, &why, prompt_field(g));
    return take_length(g, m, index, n, err);
}

static bool read_chat(generation *g, const generation_model *m, api_error *err)
{
    nvllm_error why = {0};
    char *text;
    nvllm_chat_options options = {.variables = g->request.variables,
                                  .no_generation_prompt = g->request.no_generation_prompt};
    if (nvllm_chat_render(m->model, g->request.messages, &options, &text, &why))
        return api_error_from(err, &why, "messages");
    size_t len = strlen(text);
    bool ok = tokenize(g, m, 0, text, len, NVLLM_PARSE_SPECIAL, err);
    for (size_t i = 0; i < g->n_choices; i++) g->choices[i].split.state = reasoning_after_prompt(text, len);
    nvllm_free(text);
    return ok;
}

static bool keep_echo(generation *g, const generation_model *m, size_t index, const api_prompt *from,
                      api_error *err)
{
    nvllm_error why = {0};
    if (from->text) {
        g->prompt_text[index] = strdup(from->text);
        g->prompt_text_len[index] = from->len;
        return g->prompt_text[index] ? true : api_error_set(err, 500, NULL, "out of memory for the prompt");
    }
    if (nvllm_detokenize(m->tokenizer, from->ids, from->n_ids, 0, &g->prompt_text[index],
                         &g->prompt_text_len[index], &why))
        return api_error_from(err, &why, "prompt");
    return true;
}

static bool read_prompt(generation *g, const generation_model *m, size_t index, api_error *err)
{
    api_prompt *from = &g->request.prompts[index];
    if (g->request.echo && !keep_echo(g, m, index, from, err)) return false;
    if (from->ids) {
        g->prompt_ids[index] = from->ids;
        from->ids = NULL;
        return take_length(g, m, index, from->n_ids, err);
    }
    unsigned flags = NVLLM_PARSE_SPECIAL | (g->request.no_special ? 0 : NVLLM_ADD_SPECIAL);
    return tokenize(g, m, index, from->text, from->len, flags, err);
}

static void free_ids(generation *g)
{
    for (size_t i = 0; g->prompt_ids && i < g->n_prompts; i++) nvllm_free(g->prompt_ids[i]);
    free(g->prompt_ids);
    g->prompt_ids = NULL;
}

static void name_generation(generation *g)
{
    unsigned char bits[12] = {0};
    char *at = g->id + snprintf(g->id, sizeof g->id, g->request.chat ? "chatcmpl-" : "cmpl-");
    if (getrandom(bits, sizeof bits, 0) < 0) memcpy(bits, &g, sizeof g);
    for (size_t i = 0; i < sizeof bits; i++) at += sprintf(at, "%02x", bits[i]);
}

static generation *generation_new(api_request *request, const generation_model *m)
{
    generation *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->request = *request;
    *request = (api_request){0};
    g->n_prompts = g->request.chat ? 1 : g->request.n_prompts;
    g->n_choices = g->n_prompts * (size_t)g->request.n;
    g->prompt_ids = calloc(g->n_prompts, sizeof *g->prompt_ids);
    g->prompt_tokens = calloc(g->n_prompts, sizeof *g->prompt_tokens);
    g->prompt_text = calloc(g->n_prompts, sizeof *g->prompt_text);
    g->prompt_text_len = calloc(g->n_prompts, sizeof *g->prompt_text_len);
    g->choices = calloc(g->n_choices, sizeof *g->choices);
    if (!g->prompt_ids || !g->prompt_tokens || !g->prompt_text || !g->prompt_text_len || !g->choices) {
        generation_free(g);
        return NULL;
    }
    for (size_t i = 0; i < g->n_choices; i++) {
        g->choices[i].owner = g;
        g->choices[i].index = (int32_t)i;
        g->choices[i].logprobs.tokenizer = m->tokenizer;
        g->choices[i].logprobs.hide_special = !g->request.sampling.keep_special;
    }
    g->model_name = m->name;
    g->most_held = m->max_answer;
    g->created = (int64_t)time(NULL);
    name_generation(g);
    if (!g->request.has_seed && getrandom(&g->request.sampling.seed, sizeof g->request.sampling.seed, 0) < 0)
        g->request.sampling.seed = (uint64_t)g->created;
    return g;
}

bool generation_prepare(generation **out, api_request *request, const generation_model *m, api_error *err)
{
    if (request->n_prompts && (size_t)request->n > API_MOST_PROMPTS / request->n_prompts)
        return api_error_field(err, "n", "n times the number of prompts is more than %d", API_MOST_PROMPTS);
    generation *g = generation_new(request, m);
    if (!g) return api_error_set(err, 500, NULL, "out of memory for the request");
    bool ok = true;
    for (size_t i = 0; ok && i < g->n_prompts; i++)
        ok = g->request.chat ? read_chat(g, m, err) : read_prompt(g, m, i, err);
    if (!ok) {
        generation_free(g);
        return false;
    }
    api_request_free_prompts(&g->request);
    *out = g;
    return true;
}

/* ---- Submission -------------------------------------------------------------------------------------------- */

static bool submit_choice(generation *g, const generation_model *m, choice *c, api_error *err)
{
    nvllm_error why = {0};
    nvllm_request q = g->request.sampling;
    q.ids = g->prompt_ids[c->prompt];
    q.n_ids = (size_t)g->prompt_tokens[c->prompt];
    q.max_tokens = g->request.max_tokens > 0    ? (int32_t)g->request.max_tokens
                   : g->request.max_tokens == 0 ? 1
                                                : 0;
    q.seed += (uint64_t)c->index % (uint64_t)g->request.n;
    if (nvllm_submit(m->engine, &q, &c->id, &why)) return api_error_from(err, &why, NULL);
    c->live = true;
    g->n_live++;
    return true;
}

/* 400, because asking again would lead to the same. */
static bool too_long(const generation *g, api_error *err)
{
    return api_error_set(err, 400, "answer_too_long",
                         "the answer is longer than the %zu bytes that this server holds for one: ask for a "
                         "stream, or for less (n, max_tokens, logprobs)",
                         g->most_held);
}

bool generation_submit(generation *g, const generation_model *m, api_error *err)
{
    for (size_t i = 0; i < g->n_choices; i++) {
        choice *c = &g->choices[i];
        c->prompt = (int32_t)(i / (size_t)g->request.n);
        if (g->request.echo) wire_bytes(&c->text, g->prompt_text[c->prompt], g->prompt_text_len[c->prompt]);
        g->held += c->text.len;
        if (g->held > g->most_held ? too_long(g, err) : submit_choice(g, m, c, err)) continue;
        generation_cancel(g, m->engine);
        return false;
    }
    free_ids(g);
    return true;
}

void generation_cancel(generation *g, nvllm_engine *engine)
{
    for (size_t i = 0; i < g->n_choices; i++) {
        if (!g->choices[i].live) continue;
        nvllm_cancel(engine, g->choices[i].id);
        end_choice(g, &g->choices[i]);
    }
    g->complete = true;
}

void generation_overflow(generation *g, nvllm_engine *engine)
{
    generation_cancel(g, engine);
    g->failed = true;
    too_long(g, &g->error);
    conclude(g);
}

void generation_free(generation *g)
{
    if (!g) return;
    if (g->choices) release_text(g);
    for (size_t i = 0; g->prompt_text && i < g->n_prompts; i++) nvllm_free(g->prompt_text[i]);
    free_ids(g);
    free(g->choices);
    free(g->prompt_tokens);
    free(g->prompt_text);
    free(g->prompt_text_len);
    wire_free(&g->out);
    api_request_free(&g->request);
    free(g);
}
