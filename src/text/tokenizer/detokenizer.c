/* Streaming detokenizer; see detokenizer.h. The work is decode.c's. */
#include "text/detokenizer.h"
#include "text/tokenizer/parts.h"

#include <stdlib.h>

struct detokenizer {
    const tokenizer *t;
    tok_decoding state;
    bool skip_special;
};

nvllm_status detokenizer_open(detokenizer **out, const tokenizer *t, unsigned flags, nvllm_error *err)
{
    detokenizer *d = *out = calloc(1, sizeof *d);
    if (!d) return error_memory(err, sizeof *d, "a detokenizer");
    d->t = t;
    d->skip_special = (flags & TOKENIZER_SKIP_SPECIAL) != 0;
    nvllm_status st = tok_decoding_open(&d->state, &t->decoder, err);
    if (st == NVLLM_OK) return st;
    free(d);
    *out = NULL;
    return st;
}

void detokenizer_close(detokenizer *d)
{
    if (!d) return;
    tok_decoding_close(&d->state);
    free(d);
}

nvllm_status detokenizer_push(detokenizer *d, int32_t id, buffer *out, nvllm_error *err)
{
    size_t len;
    const char *piece = tokenizer_id_to_piece(d->t, id, &len);
    if (!piece || (d->skip_special && tokenizer_is_special(d->t, id))) return NVLLM_OK;
    return tok_decoding_push(&d->state, piece, len, out, err);
}

nvllm_status detokenizer_finish(detokenizer *d, buffer *out, nvllm_error *err)
{
    nvllm_status st = tok_decoding_finish(&d->state, out, err);
    tok_decoding_reset(&d->state);
    return st;
}

void detokenizer_reset(detokenizer *d)
{
    tok_decoding_reset(&d->state);
}
