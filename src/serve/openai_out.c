/* Answers of the OpenAI dialect; see openai_out.h. Shapes: https://platform.openai.com/docs/api-reference and, for
 * usage in every chunk and for `timings`, what vLLM and llama-server send. */
#include "serve/openai_out.h"

#include <string.h>

static const char *finish_name(nvllm_finish finish)
{
    return finish == NVLLM_FINISH_LENGTH ? "length" : "stop";
}

static void write_head(wire *w, const generation *g, const char *object)
{
    wire_text(w, "{\"id\":\"");
    wire_text(w, g->id);
    wire_text(w, "\",\"object\":\"");
    wire_text(w, object);
    wire_text(w, "\",\"created\":");
    wire_integer(w, g->created);
    wire_text(w, ",\"model\":");
    wire_json_string(w, g->model_name, strlen(g->model_name));
}

static void write_usage(wire *w, const nvllm_usage *u)
{
    wire_text(w, "{\"prompt_tokens\":");
    wire_integer(w, u->prompt_tokens);
    wire_text(w, ",\"completion_tokens\":");
    wire_integer(w, u->generated_tokens);
    wire_text(w, ",\"total_tokens\":");
    wire_integer(w, (int64_t)u->prompt_tokens + u->generated_tokens);
    wire_text(w, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    wire_integer(w, u->cached_tokens);
    wire_text(w, "}}");
}

static void write_pace(wire *w, const char *name, int32_t count, double ms)
{
    const struct {
        const char *suffix;
        double value;
    } parts[] = {{"_n\":", count},
                 {"_ms\":", ms},
                 {"_per_token_ms\":", count > 0 ? ms / count : 0},
                 {"_per_second\":", ms > 0 ? count * 1000 / ms : 0}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        wire_text(w, ",\"");
        wire_text(w, name);
        wire_text(w, parts[i].suffix);
        wire_real(w, parts[i].value);
    }
}

/* As llama-server reports them: prompt_n counts what was computed, cache_n what was not. */
static void write_timings(wire *w, const nvllm_usage *u)
{
    wire_text(w, ",\"timings\":{\"cache_n\":");
    wire_integer(w, u->cached_tokens);
    write_pace(w, "prompt", u->prompt_tokens - u->cached_tokens, u->prompt_ms);
    write_pace(w, "predicted", u->generated_tokens, u->generate_ms);
    wire_text(w, "}");
}

static void write_logprobs(wire *w, generation *g, choice *c)
{
    wire_text(w, ",\"logprobs\":");
    if (g->request.top_logprobs < 0 || c->logprobs.count == 0)
        wire_text(w, "null");
    else if (g->request.chat)
        logprobs_take_chat(&c->logprobs, w);
    else
        logprobs_take_completion(&c->logprobs, w);
}

static void write_finish(wire *w, nvllm_finish finish)
{
    wire_text(w, ",\"finish_reason\":");
    if (finish == NVLLM_FINISH_NONE)
        wire_text(w, "null");
    else
        wire_json_string(w, finish_name(finish), strlen(finish_name(finish)));
    wire_text(w, "}");
}

static void take_string(wire *w, wire *text)
{
    wire_json_string(w, text->data, text->len);
    if (text->failed) w->failed = true;
    wire_clear(text);
}

/* ---- One document ------------------------------------------------------------------------------------------ */

static void write_choice(wire *w, generation *g, choice *c)
{
    wire_text(w, "{\"index\":");
    wire_integer(w, c->index);
    if (g->request.chat) {
        wire_text(w, ",\"message\":{\"role\":\"assistant\",\"content\":");
        take_string(w, &c->text);
        if (c->thought.len) {
            wire_text(w, ",\"reasoning_content\":");
            take_string(w, &c->thought);
        }
        wire_text(w, "}");
    } else {
        wire_text(w, ",\"text\":");
        take_string(w, &c->text);
    }
    write_logprobs(w, g, c);
    write_finish(w, c->finish);
}

void openai_write_answer(wire *out, generation *g)
{
    nvllm_usage usage = generation_usage(g);
    write_head(out, g, g->request.chat ? "chat.completion" : "text_completion");
    wire_text(out, ",\"choices\":[");
    for (size_t i = 0; i < g->n_choices; i++) {
        if (i) wire_text(out, ",");
        write_choice(out, g, &g->choices[i]);
    }
    wire_text(out, "],\"usage\":");
    write_usage(out, &usage);
    write_timings(out, &usage);
    wire_text(out, "}");
}

/* ---- Stream ------------------------------------------------------------------------------------------------ */

static void write_chunk_head(wire *w, const generation *g)
{
    write_head(w, g, g->request.chat ? "chat.completion.chunk" : "text_completion");
    wire_text(w, ",\"choices\":[");
}

static void write_delta(wire *w, choice *c)
{
    const char *comma = "";
    wire_text(w, ",\"delta\":{");
    if (!c->started) {
        wire_text(w, "\"role\":\"assistant\"");
        comma = ",";
    }
    if (c->thought.len) {
        wire_text(w, comma);
        wire_text(w, "\"reasoning_content\":");
        take_string(w, &c->thought);
        comma = ",";
    }
    if (c->text.len || (!c->started && *comma && c->thought.len == 0)) {
        wire_text(w, comma);
        wire_text(w, "\"content\":");
        take_string(w, &c->text);
    }
    wire_text(w, "}");
}

static void write_stream_choice(wire *w, generation *g, choice *c, nvllm_finish finish)
{
    wire_text(w, "{\"index\":");
    wire_integer(w, c->index);
    if (g->request.chat) {
        write_delta(w, c);
    } else {
        wire_text(w, ",\"text\":");
        take_string(w, &c->text);
    }
    write_logprobs(w, g, c);
    write_finish(w, finish);
    c->started = true;
}

/* "usage": null where usage will come in a chunk of its own, the figures so far where each chunk shall have them. */
static void write_chunk_usage(wire *w, const generation *g)
{
    if (g->request.continuous_usage) {
        nvllm_usage usage = generation_usage(g);
        wire_text(w, ",\"usage\":");
        write_usage(w, &usage);
    } else if (g->request.include_usage) {
        wire_text(w, ",\"usage\":null");
    }
}

void openai_write_chunk(wire *out, generation *g, choice *c)
{
    write_chunk_head(out, g);
    write_stream_choice(out, g, c, NVLLM_FINISH_NONE);
    wire_text(out, "]");
    write_chunk_usage(out, g);
    wire_text(out, "}");
}

void openai_write_last_chunk(wire *out, generation *g, choice *c)
{
    write_chunk_head(out, g);
    write_stream_choice(out, g, c, c->finish);
    wire_text(out, "]");
    write_chunk_usage(out, g);
    if (g->n_live == 0 && !g->request.include_usage) {
        nvllm_usage usage = generation_usage(g);
        write_timings(out, &usage);
    }
    wire_text(out, "}");
}

void openai_write_usage_chunk(wire *out, generation *g)
{
    nvllm_usage usage = generation_usage(g);
    write_chunk_head(out, g);
    wire_text(out, "],\"usage\":");
    write_usage(out, &usage);
    write_timings(out, &usage);
    wire_text(out, "}");
}
