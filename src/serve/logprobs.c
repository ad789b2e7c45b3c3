/* Log-probabilities; see logprobs.h. */
#include "serve/logprobs.h"

#include <stdio.h>
#include <string.h>

/* The token's bytes, to be freed with nvllm_free; NULL (and length 0) when there are none. */
static char *token_bytes(const logprob_list *l, int32_t id, size_t *len)
{
    char *bytes = NULL;
    *len = 0;
    return l->tokenizer && !nvllm_token_bytes(l->tokenizer, id, &bytes, len, NULL) ? bytes : NULL;
}

/* ---- Chat -------------------------------------------------------------------------------------------------- */

static void chat_item(const logprob_list *l, wire *w, int32_t id, float logprob)
{
    size_t len;
    char *bytes = token_bytes(l, id, &len);
    wire_text(w, "{\"token\":");
    wire_json_string(w, bytes, len);
    wire_text(w, ",\"logprob\":");
    wire_real(w, (double)logprob);
    wire_text(w, ",\"bytes\":[");
    for (size_t i = 0; i < len; i++) {
        if (i) wire_text(w, ",");
        wire_integer(w, (unsigned char)bytes[i]);
    }
    wire_text(w, "]");
    nvllm_free(bytes);
}

void logprobs_add_chat(logprob_list *l, const nvllm_event *event)
{
    wire *w = &l->content;
    if (l->count++) wire_text(w, ",");
    chat_item(l, w, event->token, event->logprob);
    wire_text(w, ",\"top_logprobs\":[");
    for (size_t i = 0; i < event->n_top; i++) {
        if (i) wire_text(w, ",");
        chat_item(l, w, event->top[i].token, event->top[i].logprob);
        wire_text(w, "}");
    }
    wire_text(w, "]}");
}

void logprobs_take_chat(logprob_list *l, wire *out)
{
    wire_text(out, "{\"content\":[");
    wire_append(out, &l->content);
    wire_text(out, "]}");
    wire_clear(&l->content);
    l->count = 0;
}

/* ---- Completions ------------------------------------------------------------------------------------------- */

static bool is_utf8(const char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += n)
        if ((n = wire_character(text + i, len - i)) == 0) return false;
    return true;
}

/* Is the token a control token that the text leaves out, like BOS? */
static bool is_hidden(const logprob_list *l, int32_t id)
{
    char *shown = NULL, *text = NULL;
    size_t shown_len = 0, len = 0;
    if (!l->hide_special ||
        nvllm_detokenize(l->tokenizer, &id, 1, NVLLM_SKIP_SPECIAL, &shown, &shown_len, NULL))
        return false;
    bool hidden = shown_len == 0 && !nvllm_detokenize(l->tokenizer, &id, 1, 0, &text, &len, NULL) && len > 0;
    nvllm_free(shown);
    nvllm_free(text);
    return hidden;
}

/* Bytes that begin a character, so that the halves of one count once. */
static int64_t characters(const char *text, size_t len)
{
    int64_t n = 0;
    for (size_t i = 0; i < len; i++) n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

static void token_name(wire *w, const char *bytes, size_t len)
{
    if (is_utf8(bytes, len)) {
        wire_json_string(w, bytes, len);
        return;
    }
    wire_text(w, "\"bytes:");
    for (size_t i = 0; i < len; i++) {
        char code[8];
        snprintf(code, sizeof code, "\\\\x%02x", (unsigned char)bytes[i]);
        wire_text(w, code);
    }
    wire_text(w, "\"");
}

/* Has one of the first n top tokens, or the token taken, the same bytes? Two keys must not be equal. */
static bool seen_before(const logprob_list *l, const nvllm_event *event, size_t n, const char *bytes,
                        size_t len)
{
    bool seen = false;
    for (size_t i = 0; i <= n && !seen; i++) {
        int32_t id = i < n ? event->top[i].token : event->token;
        size_t other_len;
        char *other = token_bytes(l, id, &other_len);
        seen = other_len == len && (len == 0 || memcmp(other, bytes, len) == 0);
        nvllm_free(other);
    }
    return seen;
}

static void top_entry(wire *w, const char *bytes, size_t len, float logprob)
{
    token_name(w, bytes, len);
    wire_text(w, ":");
    wire_real(w, (double)logprob);
}

static void add_top(logprob_list *l, const nvllm_event *event, const char *bytes, size_t len)
{
    wire_text(&l->top, "{");
    top_entry(&l->top, bytes, len, event->logprob);
    for (size_t i = 0; i < event->n_top; i++) {
        if (event->top[i].token == event->token) continue;
        size_t other_len;
        char *other = token_bytes(l, event->top[i].token, &other_len);
        if (!seen_before(l, event, i, other, other_len)) {
            wire_text(&l->top, ",");
            top_entry(&l->top, other, other_len, event->top[i].logprob);
        }
        nvllm_free(other);
    }
    wire_text(&l->top, "}");
}

void logprobs_add_completion(logprob_list *l, const nvllm_event *event, bool first_of_prompt)
{
    size_t len;
    char *bytes = token_bytes(l, event->token, &len);
    wire *const lists[] = {&l->tokens, &l->values, &l->top, &l->offsets};
    for (size_t i = 0; l->count && i < sizeof lists / sizeof *lists; i++) wire_text(lists[i], ",");
    token_name(&l->tokens, bytes, len);
    wire_integer(&l->offsets, l->characters);
    if (first_of_prompt) {
        wire_text(&l->values, "null");
        wire_text(&l->top, "null");
    } else {
        wire_real(&l->values, (double)event->logprob);
        add_top(l, event, bytes, len);
    }
    if (!is_hidden(l, event->token)) l->characters += characters(bytes, len);
    l->count++;
    nvllm_free(bytes);
}

void logprobs_take_completion(logprob_list *l, wire *out)
{
    const struct {
        const char *name;
        wire *list;
    } parts[] = {{"{\"tokens\":[", &l->tokens},
                 {"],\"token_logprobs\":[", &l->values},
                 {"],\"top_logprobs\":[", &l->top},
                 {"],\"text_offset\":[", &l->offsets}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        wire_text(out, parts[i].name);
        wire_append(out, parts[i].list);
        wire_clear(parts[i].list);
    }
    wire_text(out, "]}");
    l->count = 0;
}

size_t logprobs_bytes(const logprob_list *l)
{
    return l->content.len + l->tokens.len + l->values.len + l->top.len + l->offsets.len;
}

void logprobs_free(logprob_list *l)
{
    wire *const lists[] = {&l->content, &l->tokens, &l->values, &l->top, &l->offsets};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) wire_free(lists[i]);
}
