/* Decoders: running them; see decode.h. Each step hands its result to the next (`pass`); the row has at
 * most TOK_MAX_STEPS steps, which bounds the recursion. */
#include "text/tokenizer/decode.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define REPLACED_LIMIT (16u << 20) /* bytes that one Replace may make; guards against chains of them */

static nvllm_status pass(tok_decoding *s, size_t i, const char *text, size_t len, nvllm_error *err);

nvllm_status tok_decoding_open(tok_decoding *s, const tok_decoder *d, nvllm_error *err)
{
    *s = (tok_decoding){.decoder = d, .stage = calloc(d->count + 1, sizeof *s->stage)};
    if (!s->stage) return error_memory(err, d->count * sizeof *s->stage, "a decoder");
    nvllm_status st = d->needs_matcher ? tok_matcher_open(&s->matcher, err) : NVLLM_OK;
    if (st != NVLLM_OK) tok_decoding_close(s);
    return st;
}

void tok_decoding_reset(tok_decoding *s)
{
    for (size_t i = 0; i < s->decoder->count; i++) {
        buffer_clear(&s->stage[i].held);
        s->stage[i].count = 0;
    }
}

void tok_decoding_close(tok_decoding *s)
{
    for (size_t i = 0; s->stage && i < s->decoder->count; i++) buffer_free(&s->stage[i].held);
    free(s->stage);
    tok_matcher_close(s->matcher);
    *s = (tok_decoding){0};
}

static nvllm_status byte_level(tok_decoding *s, size_t i, const char *token, size_t len, nvllm_error *err)
{
    buffer *held = &s->stage[i].held;
    size_t before = held->len;
    uint32_t code = 0;
    for (size_t k = 0; k < len;) {
        unsigned n = utf8_decode(token + k, len - k, &code);
        int byte = n ? tok_char_to_byte(code) : -1;
        if (byte < 0) { /* a token with any other character stands for its own bytes */
            held->len = before;
            buffer_append(held, token, len);
            break;
        }
        buffer_putc(held, (char)byte);
        k += n;
    }
    buffer text = {0};
    size_t used = utf8_append_lossy(&text, held->data ? held->data : "", held->len);
    if (held->len > used) memmove(held->data, held->data + used, held->len - used);
    held->len -= used;
    nvllm_status st = held->failed || text.failed ? error_memory(err, len, "decoding")
                      : text.len                  ? pass(s, i + 1, text.data, text.len, err)
                                                  : NVLLM_OK;
    buffer_free(&text);
    return st;
}

static nvllm_status replace(tok_decoding *s, size_t i, const char *token, size_t len, nvllm_error *err)
{
    const tok_decode_step *step = &s->decoder->step[i];
    tok_search search = {.text = token, .len = len};
    buffer text = {0};
    size_t done = 0;
    bool found = len > 0;
    nvllm_status st = NVLLM_OK;
    while (found) {
        st = tok_search_next(&search, step->pattern, s->matcher, &found, err);
        if (st != NVLLM_OK || !found) break;
        buffer_append(&text, token + done, search.start - done);
        buffer_append(&text, step->text, step->text_len);
        done = search.end;
        if (text.len > REPLACED_LIMIT)
            st = error_set(err, NVLLM_ERR_LIMIT, "decoder Replace makes too much text");
        if (st != NVLLM_OK) break;
    }
    buffer_append(&text, token + done, len - done);
    if (st == NVLLM_OK && text.failed) st = error_memory(err, len, "decoding");
    if (st == NVLLM_OK) st = pass(s, i + 1, text.data, text.len, err);
    buffer_free(&text);
    return st;
}

/* The byte that "<0x..>" names, or -1. The reference's parser takes a plus sign for a digit. */
static int byte_of_token(const char *token, size_t len)
{
    if (len != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>') return -1;
    static const char digits[] = "0123456789abcdef";
    int value = 0;
    for (int k = token[3] == '+' ? 4 : 3; k < 5; k++) {
        char c = token[k] >= 'A' && token[k] <= 'F' ? (char)(token[k] + 32) : token[k];
        const char *digit = c ? strchr(digits, c) : NULL;
        if (!digit) return -1;
        value = value * 16 + (int)(digit - digits);
    }
    return value;
}

/* The end of a run of byte tokens: valid UTF-8 as one token, otherwise U+FFFD for every byte. */
static nvllm_status end_byte_run(tok_decoding *s, size_t i, nvllm_error *err)
{
    buffer *run = &s->stage[i].held;
    nvllm_status st = NVLLM_OK;
    if (run->failed) return error_memory(err, run->len, "decoding");
    if (run->len == 0) return NVLLM_OK;
    if (utf8_valid_prefix(run->data, run->len) == run->len)
        st = pass(s, i + 1, run->data, run->len, err);
    else
        for (size_t k = 0; st == NVLLM_OK && k < run->len; k++) st = pass(s, i + 1, "\xEF\xBF\xBD", 3, err);
    buffer_clear(run);
    return st;
}

static nvllm_status byte_fallback(tok_decoding *s, size_t i, const char *token, size_t len, nvllm_error *err)
{
    int byte = byte_of_token(token, len);
    if (byte >= 0) {
        buffer_putc(&s->stage[i].held, (char)byte);
        return NVLLM_OK;
    }
    nvllm_status st = end_byte_run(s, i, err);
    return st == NVLLM_OK ? pass(s, i + 1, token, len, err) : st;
}

static bool mark_at(const tok_decode_step *step, const char *text, size_t len)
{
    return len >= step->mark_len && memcmp(text, step->mark, step->mark_len) == 0;
}

/* Bytes of the marks at the end of text, at most `most` of them. A mark is a whole character, so comparing
 * bytes from the end cannot hit the middle of another. */
static size_t trailing_marks(const tok_decode_step *step, const char *text, size_t len, size_t most)
{
    size_t n = 0;
    while (most-- && len - n >= step->mark_len &&
           mark_at(step, text + len - n - step->mark_len, step->mark_len))
        n += step->mark_len;
    return n;
}

static nvllm_status strip(tok_decoding *s, size_t i, const char *token, size_t len, nvllm_error *err)
{
    const tok_decode_step *step = &s->decoder->step[i];
    for (size_t k = 0; k < step->start && mark_at(step, token, len); k++) {
        token += step->mark_len;
        len -= step->mark_len;
    }
    len -= trailing_marks(step, token, len, step->stop);
    return pass(s, i + 1, token, len, err);
}

/* A chunk of the one token: `count` marks were stripped at its start, step->start once something else came;
 * `held` are the marks at its end so far. */
static nvllm_status strip_chunk(tok_decoding *s, size_t i, const char *text, size_t len, nvllm_error *err)
{
    const tok_decode_step *step = &s->decoder->step[i];
    tok_decode_stage *stage = &s->stage[i];
    while (stage->count < step->start && mark_at(step, text, len)) {
        text += step->mark_len;
        len -= step->mark_len;
        stage->count++;
    }
    if (len == 0) return NVLLM_OK;
    stage->count = step->start;
    buffer_append(&stage->held, text, len);
    if (stage->held.failed) return error_memory(err, len, "decoding");
    size_t keep = trailing_marks(step, stage->held.data, stage->held.len, step->stop),
           give = stage->held.len - keep;
    nvllm_status st = give ? pass(s, i + 1, stage->held.data, give, err) : NVLLM_OK;
    memmove(stage->held.data, stage->held.data + give, keep);
    stage->held.len = keep;
    return st;
}

static nvllm_status metaspace(tok_decoding *s, size_t i, const char *token, size_t len, nvllm_error *err)
{
    const tok_decode_step *step = &s->decoder->step[i];
    bool first = step->fused || s->stage[i].count++ == 0;
    bool drop = first && step->prepend != TOK_PREPEND_NEVER;
    buffer text = {0};
    for (size_t k = 0; k < len;) {
        size_t n = utf8_length(token[k]);
        if (n > len - k) n = len - k;
        if (!mark_at(step, token + k, len - k))
            buffer_append(&text, token + k, n);
        else if (!drop)
            buffer_putc(&text, ' ');
        k += n;
    }
    nvllm_status st = text.failed ? error_memory(err, len, "decoding")
                                  : pass(s, i + 1, text.data ? text.data : "", text.len, err);
    buffer_free(&text);
    return st;
}

static nvllm_status hold(tok_decoding *s, size_t i, const char *text, size_t len, nvllm_error *err)
{
    buffer_append(&s->stage[i].held, text, len);
    return s->stage[i].held.failed ? error_memory(err, len, "decoding") : NVLLM_OK;
}

/* Steps whose result for one token needs the whole token wait for its end. */
static bool waits_for_end(const tok_decode_step *step)
{
    return step->fused && (step->kind == TOK_DEC_BYTE_LEVEL || step->kind == TOK_DEC_BYTE_FALLBACK ||
                           step->kind == TOK_DEC_REPLACE);
}

static nvllm_status run_step(tok_decoding *s, size_t i, const char *text, size_t len, nvllm_error *err)
{
    const tok_decode_step *step = &s->decoder->step[i];
    switch (step->kind) {
    case TOK_DEC_BYTE_LEVEL: return byte_level(s, i, text, len, err);
    case TOK_DEC_REPLACE: return replace(s, i, text, len, err);
    case TOK_DEC_BYTE_FALLBACK: return byte_fallback(s, i, text, len, err);
    case TOK_DEC_STRIP: return step->fused ? strip_chunk(s, i, text, len, err) : strip(s, i, text, len, err);
    case TOK_DEC_METASPACE: return metaspace(s, i, text, len, err);
    case TOK_DEC_FUSE: break;
    case TOK_DEC_JOIN:
        if (s->stage[i].count++) buffer_putc(s->out, ' ');
        break;
    }
    return pass(s, i + 1, text, len, err);
}

static nvllm_status pass(tok_decoding *s, size_t i, const char *text, size_t len, nvllm_error *err)
{
    if (i < s->decoder->count)
        return waits_for_end(&s->decoder->step[i]) ? hold(s, i, text, len, err)
                                                   : run_step(s, i, text, len, err);
    buffer_append(s->out, text, len);
    return s->out->failed ? error_memory(err, len, "decoding") : NVLLM_OK;
}

/* What step i still holds goes on, now that nothing follows. */
static nvllm_status end_step(tok_decoding *s, size_t i, nvllm_error *err)
{
    const tok_decode_step *step = &s->decoder->step[i];
    nvllm_status st = NVLLM_OK;
    if (waits_for_end(step)) {
        buffer whole = s->stage[i].held;
        s->stage[i].held = (buffer){0};
        st = run_step(s, i, whole.data ? whole.data : "", whole.len, err);
        buffer_free(&whole);
    }
    if (st == NVLLM_OK && step->kind == TOK_DEC_BYTE_FALLBACK) st = end_byte_run(s, i, err);
    if (st == NVLLM_OK && step->kind == TOK_DEC_BYTE_LEVEL && s->stage[i].held.len)
        st = pass(s, i + 1, "\xEF\xBF\xBD", 3, err); /* an unfinished character */
    buffer_clear(&s->stage[i].held);
    return st;
}

nvllm_status tok_decoding_push(tok_decoding *s, const char *token, size_t len, buffer *out, nvllm_error *err)
{
    s->out = out;
    return pass(s, 0, token, len, err);
}

nvllm_status tok_decoding_finish(tok_decoding *s, buffer *out, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    s->out = out;
    for (size_t i = 0; st == NVLLM_OK && i < s->decoder->count; i++) st = end_step(s, i, err);
    return st;
}
