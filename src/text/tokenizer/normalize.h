/* Normalizers: what happens to the text before it is cut. A flat list of steps; Sequence is flattened.
 *
 * NFC, NFKC, Prepend, Replace, Strip, Lowercase as in the reference, and Squeeze, which is SentencePiece's
 * remove_extra_whitespaces. Others are refused by name when the tokenizer is read. */
#ifndef NVLLM_TEXT_TOK_NORMALIZE_H
#define NVLLM_TEXT_TOK_NORMALIZE_H

#include "text/tokenizer/pattern.h"
#include "text/tokenizer/work.h"

typedef enum {
    TOK_NFC,
    TOK_NFKC,
    TOK_PREPEND, /* text in front, unless the text is empty */
    TOK_REPLACE, /* every match of pattern by text */
    TOK_STRIP,
    TOK_LOWERCASE,
    TOK_SQUEEZE /* no spaces (U+0020) at the ends, single ones inside */
} tok_normalize_kind;

typedef struct {
    tok_normalize_kind kind;
    tok_pattern *pattern;
    char *text;
    size_t text_len;
    bool left, right; /* Strip */
} tok_normalize_step;

typedef struct {
    tok_normalize_step *step;
    size_t count;
} tok_normalizer;

/* json null gives the empty list. Takes nothing over; on failure the list must still be freed. */
nvllm_status tok_normalizer_from_json(tok_normalizer *n, const json_t *json, nvllm_error *err);
nvllm_status tok_normalizer_add(tok_normalizer *n, tok_normalize_step step,
                                nvllm_error *err); /* owns step, always */
void tok_normalizer_free(tok_normalizer *n);

/* Rewrites *text in place. *at_origin becomes false when its first characters were removed. */
nvllm_status tok_normalize(const tok_normalizer *n, tok_work *w, buffer *text, bool *at_origin,
                           nvllm_error *err);

#endif
