/* What one call of the tokenizer needs to write: scratch that stages share, and the lists they pass on.
 *
 * A tokenizer is immutable; every call makes its own tok_work, which is what makes calls thread-safe. */
#ifndef NVLLM_TEXT_TOK_WORK_H
#define NVLLM_TEXT_TOK_WORK_H

#include "base/buffer.h"
#include "base/error.h"
#include "text/tokenizer/pattern.h"

#include <stdint.h>

typedef struct {
    tok_matcher *matcher;
    size_t text_limit; /* bytes that any stage may make of the text; guards against growth by Replace */
    buffer spare;      /* a stage's new text, before it is swapped with the old one */
    void *heap;        /* of the BPE merges */
    size_t heap_cap;   /* bytes */
    void *symbols;
    size_t symbols_cap;
} tok_work;

nvllm_status tok_work_open(tok_work *w, size_t text_len, nvllm_error *err);
void tok_work_close(tok_work *w);

/* A stage's end: checks `spare` for failure and size, then swaps it with *text. */
nvllm_status tok_work_swap(tok_work *w, buffer *text, nvllm_error *err);

/* Grows *memory (of *cap bytes) to at least `bytes`, content kept. */
nvllm_status tok_work_reserve(void **memory, size_t *cap, size_t bytes, nvllm_error *err);

typedef struct {
    int32_t *data;
    size_t count, cap;
} tok_ids;

nvllm_status tok_ids_push(tok_ids *ids, const int32_t *more, size_t count, nvllm_error *err);

/* A text cut into pieces. `at_origin`: the piece begins where the caller's text begins (Metaspace asks). */
typedef struct {
    size_t start, len;
    bool at_origin;
} tok_span;

typedef struct {
    buffer text;
    tok_span *span;
    size_t count, cap; /* of span */
} tok_pieces;

nvllm_status tok_pieces_push(tok_pieces *p, tok_span span, nvllm_error *err); /* an empty span is dropped */
void tok_pieces_swap_spans(tok_pieces *p, tok_pieces *other);                 /* the texts stay */
void tok_pieces_free(tok_pieces *p);

#endif
