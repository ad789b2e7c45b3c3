/* Detokenizing and stop strings; see text_stream.h. */
#define _GNU_SOURCE
#include "api/text_stream.h"

#include <stdlib.h>
#include <string.h>

static nvllm_status copy_stops(stop_list *out, const nvllm_request *request, nvllm_error *err)
{
    out->strings = calloc(request->n_stop + 1, sizeof *out->strings);
    if (!out->strings) return error_memory(err, request->n_stop * sizeof *out->strings, "stop strings");
    for (size_t i = 0; i < request->n_stop; i++) {
        size_t len = request->stop[i] ? strlen(request->stop[i]) : 0;
        if (len == 0) return error_set(err, NVLLM_ERR_USAGE, "stop string %zu is empty", i);
        out->strings[out->count] = strdup(request->stop[i]);
        if (!out->strings[out->count]) return error_memory(err, len + 1, "a stop string");
        out->count++;
        if (len > out->longest) out->longest = len;
    }
    return NVLLM_OK;
}

nvllm_status text_stream_open(text_stream *out, const tokenizer *t, const nvllm_request *request,
                              nvllm_error *err)
{
    text_stream s = {.include_stop = request->include_stop};
    nvllm_status st = copy_stops(&s.stop, request, err);
    if (!st && !t && request->n_stop)
        st = error_set(err, NVLLM_ERR_USAGE, "stop strings need a model with a tokenizer");
    if (!st && t)
        st = detokenizer_open(&s.detokenizer, t, request->keep_special ? 0 : TOKENIZER_SKIP_SPECIAL, err);
    if (st) {
        text_stream_close(&s);
        return st;
    }
    *out = s;
    return NVLLM_OK;
}

void text_stream_close(text_stream *s)
{
    detokenizer_close(s->detokenizer);
    for (size_t i = 0; i < s->stop.count; i++) free(s->stop.strings[i]);
    free(s->stop.strings);
    buffer_free(&s->held);
    *s = (text_stream){0};
}

/* Feeds the end of the prompt; what comes out of the detokenizer is dropped, what it holds back stays in it. */
static void feed_prompt(text_stream *s, const int32_t *prompt, int32_t n_prompt)
{
    /* Tokens: more than a character's bytes, and past the special tokens at a prompt's end. */
    const int32_t reach = 16;
    for (int32_t i = n_prompt > reach ? n_prompt - reach : 0; i < n_prompt; i++)
        if (detokenizer_push(s->detokenizer, prompt[i], &s->held, NULL)) s->failed = true;
    buffer_clear(&s->held);
}

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

void text_stream_continue(text_stream *s, const int32_t *prompt, int32_t n_prompt)
{
    if (!s->detokenizer) return;
    feed_prompt(s, prompt, n_prompt);
    /* What is held back now (a run of byte tokens) comes out with the answer: count it, and begin again. */
    if (detokenizer_finish(s->detokenizer, &s->held, NULL)) s->failed = true;
    for (size_t i = 0; i < s->held.len; i++) s->skip += begins_character(s->held.data[i]);
    feed_prompt(s, prompt, n_prompt);
}

static void drop_prompt(text_stream *s)
{
    size_t at = 0;
    for (; s->skip && at < s->held.len; s->skip--) {
        at++;
        while (at < s->held.len && !begins_character(s->held.data[at])) at++;
    }
    if (at == 0) return;
    memmove(s->held.data, s->held.data + at, s->held.len - at);
    s->held.len -= at;
}

/* The first stop string in the held text: its start, and its end in *end; NULL: none. */
static const char *find_stop(const text_stream *s, const char **end)
{
    const char *first = NULL;
    for (size_t i = 0; i < s->stop.count; i++) {
        size_t len = strlen(s->stop.strings[i]);
        const char *at = s->held.len ? memmem(s->held.data, s->held.len, s->stop.strings[i], len) : NULL;
        if (at && (!first || at < first)) {
            first = at;
            *end = at + len;
        }
    }
    return first;
}

/* Length of the longest end of the held text that some stop string begins with. */
static size_t possible_stop(const text_stream *s)
{
    size_t most = s->stop.longest ? s->stop.longest - 1 : 0;
    if (most > s->held.len) most = s->held.len;
    for (size_t len = most; len > 0; len--) {
        const char *tail = s->held.data + s->held.len - len;
        for (size_t i = 0; i < s->stop.count; i++)
            if (strlen(s->stop.strings[i]) > len && memcmp(s->stop.strings[i], tail, len) == 0) return len;
    }
    return 0;
}

/* Passes on what is certain, keeping `keep` bytes; true when a stop string was met. */
static bool pass_on(text_stream *s, buffer *out, bool last)
{
    const char *end = NULL, *start = find_stop(s, &end);
    if (start) {
        buffer_append(out, s->held.data, (size_t)((s->include_stop ? end : start) - s->held.data));
        buffer_clear(&s->held);
        s->stopped = true;
        return true;
    }
    size_t keep = last ? 0 : possible_stop(s), pass = s->held.len - keep;
    if (pass == 0) return false;
    buffer_append(out, s->held.data, pass);
    memmove(s->held.data, s->held.data + pass, keep);
    s->held.len = keep;
    return false;
}

bool text_stream_push(text_stream *s, int32_t token, buffer *out)
{
    if (!s->detokenizer || s->failed) return false;
    if (detokenizer_push(s->detokenizer, token, &s->held, NULL)) s->failed = true;
    if (s->skip) drop_prompt(s);
    return pass_on(s, out, false);
}

bool text_stream_finish(text_stream *s, buffer *out)
{
    if (!s->detokenizer || s->failed || s->stopped) return false;
    if (detokenizer_finish(s->detokenizer, &s->held, NULL)) s->failed = true;
    if (s->skip) drop_prompt(s);
    return pass_on(s, out, true);
}
