/* Decoders: from token strings back to text, one token at a time.
 *
 * A decoder is a row of steps; each takes tokens and gives tokens, until one (Fuse, ByteLevel) makes a
 * single token of all, whose text then flows on in chunks. What is not yet certain is held back: part of a
 * UTF-8 character, a run of byte tokens (one bad byte spoils the whole run in the reference), white space
 * that Strip may still remove. So the chunks and the end together are exactly what the reference gives
 * for the whole list, by construction: decoding a list is pushing its tokens.
 * Steps in scope: ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence. */
#ifndef NVLLM_TEXT_TOK_DECODE_H
#define NVLLM_TEXT_TOK_DECODE_H

#include "base/buffer.h"
#include "text/tokenizer/pattern.h"
#include "text/tokenizer/pretokenize.h"

typedef enum {
    TOK_DEC_BYTE_LEVEL,
    TOK_DEC_REPLACE,
    TOK_DEC_BYTE_FALLBACK,
    TOK_DEC_FUSE,
    TOK_DEC_STRIP,
    TOK_DEC_METASPACE,
    TOK_DEC_JOIN /* no decoder: a space between tokens */
} tok_decode_kind;

typedef struct {
    tok_decode_kind kind;
    tok_pattern *pattern; /* Replace */
    char *text;           /* Replace */
    size_t text_len;
    char mark[4]; /* Strip, Metaspace: the character */
    size_t mark_len;
    size_t start, stop; /* Strip: at most so many at either end */
    tok_prepend prepend;
    bool fused; /* the step sees one token, in chunks */
} tok_decode_step;

typedef struct {
    tok_decode_step *step;
    size_t count;
    bool needs_matcher;
} tok_decoder;

nvllm_status tok_decoder_from_json(tok_decoder *d, const json_t *json, nvllm_error *err);
nvllm_status tok_decoder_add(tok_decoder *d, tok_decode_step step, nvllm_error *err); /* owns step, always */
void tok_decoder_free(tok_decoder *d);

typedef struct {
    buffer held;  /* input kept back */
    size_t count; /* tokens seen, or characters stripped */
} tok_decode_stage;

typedef struct {
    const tok_decoder *decoder;
    tok_decode_stage *stage; /* [decoder->count] */
    tok_matcher *matcher;
    buffer *out; /* set by each call */
} tok_decoding;

nvllm_status tok_decoding_open(tok_decoding *s, const tok_decoder *d, nvllm_error *err);
void tok_decoding_reset(tok_decoding *s); /* as just opened */
void tok_decoding_close(tok_decoding *s);

/* Appends to *out what has become certain. After an error the state is good for reset and close only. */
nvllm_status tok_decoding_push(tok_decoding *s, const char *token, size_t len, buffer *out, nvllm_error *err);
nvllm_status tok_decoding_finish(tok_decoding *s, buffer *out, nvllm_error *err);

#endif
