/* Normalizers; see normalize.h. */
#include "text/tokenizer/normalize.h"
#include "text/tokenizer/compose.h"
#include "text/tokenizer/json.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static void free_step(tok_normalize_step *s)
{
    tok_pattern_close(s->pattern);
    free(s->text);
}

void tok_normalizer_free(tok_normalizer *n)
{
    for (size_t i = 0; i < n->count; i++) free_step(&n->step[i]);
    free(n->step);
    *n = (tok_normalizer){0};
}

nvllm_status tok_normalizer_add(tok_normalizer *n, tok_normalize_step step, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    tok_normalize_step *grown = NULL;
    if (n->count >= TOK_MAX_STEPS)
        st = error_set(err, NVLLM_ERR_LIMIT, "normalizer: more than %d steps", TOK_MAX_STEPS);
    else if (!(grown = realloc(n->step, (n->count + 1) * sizeof *grown)))
        st = error_memory(err, sizeof *grown, "a normalizer");
    if (!grown) {
        free_step(&step);
        return st;
    }
    n->step = grown;
    n->step[n->count++] = step;
    return NVLLM_OK;
}

static nvllm_status read_step(tok_normalize_step *s, const json_t *json, const char *type, nvllm_error *err)
{
    if (strcmp(type, "NFC") == 0) {
        s->kind = TOK_NFC;
        return NVLLM_OK;
    }
    if (strcmp(type, "NFKC") == 0) {
        s->kind = TOK_NFKC;
        return NVLLM_OK;
    }
    if (strcmp(type, "Lowercase") == 0) {
        s->kind = TOK_LOWERCASE;
        return NVLLM_OK;
    }
    if (strcmp(type, "Prepend") == 0) {
        s->kind = TOK_PREPEND;
        return tok_json_text(json, "prepend", "normalizer Prepend", &s->text, &s->text_len, err);
    }
    if (strcmp(type, "Strip") == 0) {
        s->kind = TOK_STRIP;
        nvllm_status st = tok_json_bool(json, "strip_left", "normalizer Strip", TOK_REQUIRED, &s->left, err);
        if (st != NVLLM_OK) return st;
        return tok_json_bool(json, "strip_right", "normalizer Strip", TOK_REQUIRED, &s->right, err);
    }
    if (strcmp(type, "Replace") == 0) {
        s->kind = TOK_REPLACE;
        nvllm_status st = tok_json_text(json, "content", "normalizer Replace", &s->text, &s->text_len, err);
        if (st != NVLLM_OK) return st;
        return tok_pattern_from_json(&s->pattern, json_object_get(json, "pattern"), "normalizer Replace",
                                     err);
    }
    return error_set(
        err, NVLLM_ERR_UNSUPPORTED,
        "normalizer \"%.60s\" is not supported (NFC, NFKC, Prepend, Replace, Strip, Lowercase, Sequence)",
        type);
}

static nvllm_status read_into(tok_normalizer *n, const json_t *json, int depth, nvllm_error *err)
{
    const char *type;
    nvllm_status st = tok_json_type(json, "normalizer", depth, &type, err);
    if (st != NVLLM_OK) return st;
    if (strcmp(type, "Sequence") != 0) {
        tok_normalize_step step = {0};
        st = read_step(&step, json, type, err);
        if (st == NVLLM_OK) return tok_normalizer_add(n, step, err);
        free_step(&step);
        return st;
    }
    const json_t *list = json_object_get(json, "normalizers");
    if (!json_is_array(list))
        return error_set(err, NVLLM_ERR_FORMAT, "normalizer Sequence: \"normalizers\" is not a list");
    for (size_t i = 0; i < json_array_size(list); i++)
        if ((st = read_into(n, json_array_get(list, i), depth + 1, err)) != NVLLM_OK) return st;
    return NVLLM_OK;
}

nvllm_status tok_normalizer_from_json(tok_normalizer *n, const json_t *json, nvllm_error *err)
{
    return !json || json_is_null(json) ? NVLLM_OK : read_into(n, json, 0, err);
}

/* Text without combining marks and without compatibility characters is left alone: below U+0300 nothing
 * composes or decomposes under NFC, and 0xCC is the first lead byte at or above it. */
static bool needs_composition(const buffer *text, unsigned char first)
{
    for (size_t i = 0; i < text->len; i++)
        if ((unsigned char)text->data[i] >= first) return true;
    return false;
}

static nvllm_status compose(tok_work *w, buffer *text, tok_normalize_kind kind, nvllm_error *err)
{
    if (!needs_composition(text, kind == TOK_NFC ? 0xCC : 0x80)) return NVLLM_OK;
    buffer_clear(&w->spare);
    nvllm_status st = tok_compose(&w->spare, text->data, text->len,
                                  kind == TOK_NFC ? TOK_COMPOSE_CANONICAL : TOK_COMPOSE_COMPATIBLE, err);
    if (st != NVLLM_OK) return st;
    return tok_work_swap(w, text, err);
}

static nvllm_status replace(tok_work *w, buffer *text, const tok_normalize_step *s, bool *at_origin,
                            nvllm_error *err)
{
    if (text->len == 0) return NVLLM_OK;
    tok_search search = {.text = text->data, .len = text->len};
    size_t done = 0;
    bool found, any = false;
    buffer_clear(&w->spare);
    for (;;) {
        nvllm_status st = tok_search_next(&search, s->pattern, w->matcher, &found, err);
        if (st != NVLLM_OK) return st;
        if (!found) break;
        any = true;
        if (search.start == 0 && search.end > 0 && s->text_len == 0) *at_origin = false;
        buffer_append(&w->spare, text->data + done, search.start - done);
        buffer_append(&w->spare, s->text, s->text_len);
        done = search.end;
        if (w->spare.len > w->text_limit) break;
    }
    if (!any) return NVLLM_OK;
    buffer_append(&w->spare, text->data + done, text->len - done);
    return tok_work_swap(w, text, err);
}

static size_t leading_spaces(const char *text, size_t len)
{
    size_t i = 0;
    uint32_t code;
    for (unsigned n; i < len && (n = utf8_decode(text + i, len - i, &code)) && utf8_is_space(code);) i += n;
    return i;
}

static size_t without_trailing_spaces(const char *text, size_t len)
{
    while (len) {
        size_t i = len - 1;
        while (i && (text[i] & 0xC0) == 0x80) i--;
        uint32_t code;
        if (!utf8_decode(text + i, len - i, &code) || !utf8_is_space(code)) break;
        len = i;
    }
    return len;
}

static nvllm_status strip(tok_work *w, buffer *text, const tok_normalize_step *s, bool *at_origin,
                          nvllm_error *err)
{
    if (text->len == 0) return NVLLM_OK;
    size_t from = s->left ? leading_spaces(text->data, text->len) : 0;
    size_t to = s->right ? without_trailing_spaces(text->data, text->len) : text->len;
    if (to < from) to = from;
    if (from) *at_origin = false;
    buffer_clear(&w->spare);
    buffer_append(&w->spare, text->data + from, to - from);
    return tok_work_swap(w, text, err);
}

static nvllm_status squeeze(tok_work *w, buffer *text, nvllm_error *err)
{
    buffer_clear(&w->spare);
    size_t end = text->len;
    for (bool more = true; more;) { /* at the end the mark of a space counts as one */
        more = end && text->data[end - 1] == ' ';
        if (more)
            end--;
        else if ((more = end >= 3 && memcmp(text->data + end - 3, "\xE2\x96\x81", 3) == 0))
            end -= 3;
    }
    for (size_t i = 0; i < end; i++) {
        if (text->data[i] == ' ' && (w->spare.len == 0 || w->spare.data[w->spare.len - 1] == ' ')) continue;
        buffer_putc(&w->spare, text->data[i]);
    }
    return tok_work_swap(w, text, err);
}

/* Character by character, as the reference: no final sigma. U+0130 is the one letter with two. */
static nvllm_status lowercase(tok_work *w, buffer *text, nvllm_error *err)
{
    buffer_clear(&w->spare);
    for (size_t i = 0; i < text->len;) {
        uint32_t code = 0;
        char out[4];
        unsigned n = utf8_decode(text->data + i, text->len - i, &code);
        i += n ? n : 1;
        if (code == 0x130)
            buffer_puts(&w->spare, "i\xCC\x87");
        else
            buffer_append(&w->spare, out,
                          utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)code), out));
    }
    return tok_work_swap(w, text, err);
}

static nvllm_status prepend(tok_work *w, buffer *text, const tok_normalize_step *s, nvllm_error *err)
{
    if (text->len == 0) return NVLLM_OK;
    buffer_clear(&w->spare);
    buffer_append(&w->spare, s->text, s->text_len);
    buffer_append(&w->spare, text->data, text->len);
    return tok_work_swap(w, text, err);
}

nvllm_status tok_normalize(const tok_normalizer *n, tok_work *w, buffer *text, bool *at_origin,
                           nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    for (size_t i = 0; st == NVLLM_OK && i < n->count; i++) {
        const tok_normalize_step *s = &n->step[i];
        switch (s->kind) {
        case TOK_NFC:
        case TOK_NFKC: st = compose(w, text, s->kind, err); break;
        case TOK_PREPEND: st = prepend(w, text, s, err); break;
        case TOK_REPLACE: st = replace(w, text, s, at_origin, err); break;
        case TOK_STRIP: st = strip(w, text, s, at_origin, err); break;
        case TOK_LOWERCASE: st = lowercase(w, text, err); break;
        case TOK_SQUEEZE: st = squeeze(w, text, err); break;
        }
    }
    return st;
}
