/* Pre-tokenizers: cutting; see pretokenize.h.
 *
 * A step that only cuts walks over each piece as a row of segments, each matched or not, that cover it
 * (`segment`), and folds them into pieces as its behavior says (`cut`). */
#include "text/tokenizer/pretokenize.h"
#include "text/utf8.h"

#include <string.h>

uint32_t tok_byte_to_char(unsigned char byte)
{
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174) return byte;
    return byte <= 32 ? 256u + byte : byte <= 160 ? 162u + byte : 323u;
}

int tok_char_to_byte(uint32_t code)
{
    if (code < 256) return tok_byte_to_char((unsigned char)code) == code ? (int)code : -1;
    if (code <= 288) return (int)code - 256;
    return code <= 322 ? (int)code - 162 : code == 323 ? 173 : -1;
}

/* Folds the segments of one piece into pieces of `out`. */
typedef struct {
    tok_pieces *out;
    tok_span from;    /* the piece that is cut */
    tok_span pending; /* not yet pushed, may still grow; relative to the text */
    tok_behavior behavior;
    bool has_pending, previous; /* previous: the last segment matched */
    nvllm_error *err;
} cut;

static nvllm_status flush(cut *c)
{
    if (!c->has_pending) return NVLLM_OK;
    c->has_pending = false;
    return tok_pieces_push(c->out, c->pending, c->err);
}

/* Adds text[start..end), which follows the last segment, `matched` or not. The reference folds
 * MergedWithNext from the right; here the same comes out from the left: a match that is not followed by
 * another match (an empty one apart, segments alternate) joins what comes next. */
static nvllm_status segment(cut *c, size_t start, size_t end, bool matched)
{
    tok_span span = {start, end - start, c->from.at_origin && start == c->from.start};
    bool join = false;
    switch (c->behavior) {
    case TOK_REMOVED: return matched ? NVLLM_OK : tok_pieces_push(c->out, span, c->err);
    case TOK_ISOLATED: return tok_pieces_push(c->out, span, c->err);
    case TOK_MERGED_WITH_PREVIOUS: join = matched && !c->previous; break;
    case TOK_MERGED_WITH_NEXT: join = c->previous && !matched; break;
    case TOK_CONTIGUOUS: join = matched == c->previous; break;
    }
    c->previous = matched;
    if (join && c->has_pending) {
        c->pending.len += span.len;
        return NVLLM_OK;
    }
    nvllm_status st = flush(c);
    c->pending = span;
    c->has_pending = true;
    return st;
}

static nvllm_status split_by_pattern(cut *c, tok_work *w, const char *text, const tok_pattern *pattern,
                                     bool invert)
{
    tok_search search = {.text = text + c->from.start, .len = c->from.len};
    size_t base = c->from.start, done = 0;
    for (;;) {
        bool found;
        nvllm_status st = tok_search_next(&search, pattern, w->matcher, &found, c->err);
        if (st == NVLLM_OK && found && search.start > done)
            st = segment(c, base + done, base + search.start, invert);
        if (st == NVLLM_OK && found) st = segment(c, base + search.start, base + search.end, !invert);
        if (st != NVLLM_OK) return st;
        if (!found) break;
        done = search.end;
    }
    nvllm_status st = done < search.len ? segment(c, base + done, base + search.len, invert) : NVLLM_OK;
    return st == NVLLM_OK ? flush(c) : st;
}

static nvllm_status split_by_class(cut *c, const char *text, bool (*is_match)(uint32_t))
{
    size_t end = c->from.start + c->from.len, done = c->from.start;
    uint32_t code = 0;
    for (size_t i = c->from.start, next; i < end; i = next) {
        unsigned n = utf8_decode(text + i, end - i, &code);
        next = i + (n ? n : 1);
        if (!is_match(code)) continue;
        nvllm_status st = i > done ? segment(c, done, i, false) : NVLLM_OK;
        if (st == NVLLM_OK) st = segment(c, i, next, true);
        if (st != NVLLM_OK) return st;
        done = next;
    }
    nvllm_status st = done < end ? segment(c, done, end, false) : NVLLM_OK;
    return st == NVLLM_OK ? flush(c) : st;
}

/* \w+|[^\w\s]+ : runs of one class each; white space is dropped. */
static nvllm_status split_words(cut *c, const char *text)
{
    size_t end = c->from.start + c->from.len, start = c->from.start;
    int run = 0; /* 0 space, 1 word, 2 other */
    uint32_t code = 0;
    for (size_t i = start; i < end;) {
        unsigned n = utf8_decode(text + i, end - i, &code);
        int kind = utf8_is_word(code) ? 1 : utf8_is_space(code) ? 0 : 2;
        if (kind != run) {
            nvllm_status st = run ? segment(c, start, i, true) : NVLLM_OK;
            if (st != NVLLM_OK) return st;
            run = kind;
            start = i;
        }
        i += n ? n : 1;
    }
    return run ? segment(c, start, end, true) : NVLLM_OK;
}

static nvllm_status cut_piece(const tok_pre_step *s, tok_work *w, const char *text, cut *c)
{
    switch (s->kind) {
    case TOK_DIGITS: return split_by_class(c, text, utf8_is_numeric);
    case TOK_PUNCTUATION: return split_by_class(c, text, utf8_is_punctuation);
    case TOK_SPACE_SPLIT: return split_by_class(c, text, utf8_is_space);
    case TOK_WORDS: c->behavior = TOK_ISOLATED; return split_words(c, text);
    default: return split_by_pattern(c, w, text, s->pattern, s->invert);
    }
}

static nvllm_status cut_all(const tok_pre_step *s, tok_work *w, tok_pieces *in, tok_pieces *out,
                            nvllm_error *err)
{
    out->count = 0;
    for (size_t i = 0; i < in->count; i++) {
        cut c = {.out = out, .from = in->span[i], .behavior = s->behavior, .err = err};
        nvllm_status st = cut_piece(s, w, in->text.data, &c);
        if (st != NVLLM_OK) return st;
    }
    tok_pieces_swap_spans(in, out);
    return NVLLM_OK;
}

/* At most two bytes of UTF-8 per byte. */
static void append_bytes_as_chars(buffer *out, const char *text, size_t len)
{
    if (!buffer_reserve(out, 2 * len)) return;
    char *to = out->data + out->len;
    for (size_t i = 0; i < len; i++) to += utf8_encode(tok_byte_to_char((unsigned char)text[i]), to);
    out->len = (size_t)(to - out->data);
}

/* ByteLevel: an optional space in front of each piece, GPT-2's cut, then bytes as characters. */
static nvllm_status byte_level(const tok_pre_step *s, tok_work *w, tok_pieces *in, tok_pieces *out,
                               nvllm_error *err)
{
    if (s->add_prefix_space) {
        buffer_clear(&w->spare);
        for (size_t i = 0; i < in->count; i++) {
            tok_span *span = &in->span[i];
            size_t start = w->spare.len;
            if (in->text.data[span->start] != ' ') buffer_putc(&w->spare, ' ');
            buffer_append(&w->spare, in->text.data + span->start, span->len);
            span->start = start;
            span->len = w->spare.len - start;
        }
        nvllm_status st = tok_work_swap(w, &in->text, err);
        if (st != NVLLM_OK) return st;
    }
    if (s->pattern) {
        tok_pre_step split = {.kind = TOK_SPLIT, .pattern = s->pattern, .behavior = TOK_ISOLATED};
        nvllm_status st = cut_all(&split, w, in, out, err);
        if (st != NVLLM_OK) return st;
    }
    buffer_clear(&w->spare);
    for (size_t i = 0; i < in->count; i++) {
        tok_span *span = &in->span[i];
        size_t start = w->spare.len;
        append_bytes_as_chars(&w->spare, in->text.data + span->start, span->len);
        span->start = start;
        span->len = w->spare.len - start;
    }
    return tok_work_swap(w, &in->text, err);
}

static bool starts_with(const char *text, size_t len, const tok_pre_step *s)
{
    return len >= s->mark_len && memcmp(text, s->mark, s->mark_len) == 0;
}

static nvllm_status metaspace(const tok_pre_step *s, tok_work *w, tok_pieces *in, tok_pieces *out,
                              nvllm_error *err)
{
    buffer_clear(&w->spare);
    for (size_t i = 0; i < in->count; i++) {
        tok_span *span = &in->span[i];
        const char *text = in->text.data + span->start;
        size_t start = w->spare.len;
        bool wanted =
            s->prepend == TOK_PREPEND_ALWAYS || (s->prepend == TOK_PREPEND_FIRST && span->at_origin);
        if (wanted && text[0] != ' ' && !starts_with(text, span->len, s))
            buffer_append(&w->spare, s->mark, s->mark_len);
        for (size_t k = 0; k < span->len; k++) {
            if (text[k] == ' ')
                buffer_append(&w->spare, s->mark, s->mark_len);
            else
                buffer_putc(&w->spare, text[k]);
        }
        span->start = start;
        span->len = w->spare.len - start;
    }
    nvllm_status st = tok_work_swap(w, &in->text, err);
    if (st != NVLLM_OK || !s->split) return st;
    tok_pattern *mark;
    if ((st = tok_pattern_literal(&mark, s->mark, s->mark_len, err)) != NVLLM_OK) return st;
    tok_pre_step split = {.kind = TOK_SPLIT, .pattern = mark, .behavior = TOK_MERGED_WITH_NEXT};
    st = cut_all(&split, w, in, out, err);
    tok_pattern_close(mark);
    return st;
}

nvllm_status tok_pretokenize(const tok_pretokenizer *p, tok_work *w, tok_pieces *pieces, tok_pieces *other,
                             nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    for (size_t i = 0; st == NVLLM_OK && i < p->count; i++) {
        const tok_pre_step *s = &p->step[i];
        if (s->kind == TOK_BYTE_LEVEL)
            st = byte_level(s, w, pieces, other, err);
        else if (s->kind == TOK_METASPACE)
            st = metaspace(s, w, pieces, other, err);
        else
            st = cut_all(s, w, pieces, other, err);
    }
    return st;
}
