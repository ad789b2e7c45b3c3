/* Scratch of one call; see work.h. */
#include "text/tokenizer/work.h"

#include <stdlib.h>
#include <string.h>

nvllm_status tok_work_open(tok_work *w, size_t text_len, nvllm_error *err)
{
    *w = (tok_work){.text_limit = text_len * 64 + 65536};
    return tok_matcher_open(&w->matcher, err);
}

void tok_work_close(tok_work *w)
{
    tok_matcher_close(w->matcher);
    buffer_free(&w->spare);
    free(w->heap);
    free(w->symbols);
    *w = (tok_work){0};
}

nvllm_status tok_work_swap(tok_work *w, buffer *text, nvllm_error *err)
{
    if (w->spare.failed) return error_memory(err, text->len, "the text");
    if (w->spare.len > w->text_limit)
        return error_set(err, NVLLM_ERR_LIMIT,
                         "the tokenizer's normalizers make more than %zu bytes of the text", w->text_limit);
    buffer old = *text;
    *text = w->spare;
    w->spare = old;
    buffer_clear(&w->spare);
    return NVLLM_OK;
}

nvllm_status tok_work_reserve(void **memory, size_t *cap, size_t bytes, nvllm_error *err)
{
    if (bytes <= *cap) return NVLLM_OK;
    size_t size = *cap * 2 > bytes ? *cap * 2 : bytes;
    void *grown = realloc(*memory, size);
    if (!grown) return error_memory(err, size, "tokenizing");
    *memory = grown;
    *cap = size;
    return NVLLM_OK;
}

nvllm_status tok_ids_push(tok_ids *ids, const int32_t *more, size_t count, nvllm_error *err)
{
    if (ids->count + count > ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        if (cap < ids->count + count) cap = ids->count + count;
        int32_t *data = realloc(ids->data, cap * sizeof *data);
        if (!data) return error_memory(err, cap * sizeof *data, "token ids");
        ids->data = data;
        ids->cap = cap;
    }
    if (count) memcpy(ids->data + ids->count, more, count * sizeof *more);
    ids->count += count;
    return NVLLM_OK;
}

nvllm_status tok_pieces_push(tok_pieces *p, tok_span span, nvllm_error *err)
{
    if (span.len == 0) return NVLLM_OK;
    if (p->count == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        tok_span *grown = realloc(p->span, cap * sizeof *grown);
        if (!grown) return error_memory(err, cap * sizeof *grown, "pieces of the text");
        p->span = grown;
        p->cap = cap;
    }
    p->span[p->count++] = span;
    return NVLLM_OK;
}

void tok_pieces_swap_spans(tok_pieces *p, tok_pieces *other)
{
    tok_pieces old = *p;
    p->span = other->span;
    p->count = other->count;
    p->cap = other->cap;
    other->span = old.span;
    other->count = old.count;
    other->cap = old.cap;
}

void tok_pieces_free(tok_pieces *p)
{
    buffer_free(&p->text);
    free(p->span);
    *p = (tok_pieces){0};
}
