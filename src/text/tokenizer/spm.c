/* SentencePiece BPE: neighbours are joined while the joined text is a piece, best score first, leftmost
 * first among equals. What is no piece in the end becomes byte tokens, or one unknown token per run.
 * Source of the semantics: sentencepiece/src/bpe_model.cc (Google, Apache-2.0). */
#include "text/tokenizer/heap.h"
#include "text/tokenizer/model.h"
#include "text/utf8.h"

#include <string.h>

typedef struct {
    uint32_t start, len; /* bytes of the text; len 0: swallowed by its left neighbour */
    int32_t prev, next;
} symbol;

/* Ascending order of the result is descending order of the scores. */
static uint32_t score_key(double score)
{
    float f = (float)score + 0.0f; /* -0 equals 0 */
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

static void queue_pair(const tok_model *m, const char *text, const symbol *s, int32_t left,
                       tok_candidate *heap, size_t *queued)
{
    if (left < 0 || s[left].next < 0) return;
    uint32_t len = s[left].len + s[s[left].next].len;
    int32_t id = tok_vocab_find(&m->vocab, text + s[left].start, len);
    if (id < 0 || !m->mergeable[id]) return;
    tok_heap_push(heap, queued,
                  (tok_candidate){(uint64_t)score_key(m->score[id]) << 32 | (uint32_t)left, len});
}

static nvllm_status push_symbols(const tok_model *m, const char *text, const symbol *s, tok_ids *ids,
                                 nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    bool unknown = false;
    for (int32_t i = 0; st == NVLLM_OK && i >= 0; i = s[i].next) {
        const char *piece = text + s[i].start;
        int32_t id = tok_vocab_find(&m->vocab, piece, s[i].len);
        bool done = false;
        if (id >= 0 && m->mergeable[id]) {
            st = tok_ids_push(ids, &id, 1, err);
            unknown = false;
            continue;
        }
        if (m->byte_fallback) st = tok_push_bytes(m, piece, s[i].len, ids, &done, err);
        if (st == NVLLM_OK && !done && !unknown && m->unk_id >= 0) st = tok_ids_push(ids, &m->unk_id, 1, err);
        unknown = !done;
    }
    return st;
}

nvllm_status tok_spm_encode(const tok_model *m, tok_work *w, const char *text, size_t len, tok_ids *ids,
                            nvllm_error *err)
{
    if (len == 0) return NVLLM_OK;
    if (len > INT32_MAX / 4) return error_set(err, NVLLM_ERR_LIMIT, "a piece of %zu bytes", len);
    nvllm_status st = tok_work_reserve(&w->symbols, &w->symbols_cap, len * sizeof(symbol), err);
    if (st == NVLLM_OK) st = tok_work_reserve(&w->heap, &w->heap_cap, 3 * len * sizeof(tok_candidate), err);
    if (st != NVLLM_OK) return st;
    symbol *s = w->symbols;
    tok_candidate *heap = w->heap;
    size_t queued = 0;
    int32_t count = 0;
    for (uint32_t i = 0; i < len; count++) {
        uint32_t n = utf8_length(text[i]);
        if (n > len - i) n = (uint32_t)len - i;
        s[count] = (symbol){i, n, count - 1, count + 1};
        i += n;
    }
    s[count - 1].next = -1;
    for (int32_t i = 0; i + 1 < count; i++) queue_pair(m, text, s, i, heap, &queued);
    while (queued) {
        tok_candidate c = tok_heap_pop(heap, &queued);
        symbol *left = &s[(uint32_t)c.key];
        if (left->len == 0 || left->next < 0) continue;
        symbol *right = &s[left->next];
        if (left->len + right->len != c.value) continue;
        left->len = c.value;
        right->len = 0;
        left->next = right->next;
        if (right->next >= 0) s[right->next].prev = (int32_t)(left - s);
        queue_pair(m, text, s, left->prev, heap, &queued);
        queue_pair(m, text, s, (int32_t)(left - s), heap, &queued);
    }
    return push_symbols(m, text, s, ids, err);
}
