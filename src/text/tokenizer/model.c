/* Models: what the kinds share; see model.h. */
#include "text/tokenizer/model.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tok_model_free(tok_model *m)
{
    tok_vocab_free(&m->vocab);
    tok_trie_free(&m->trie);
    free(m->merges);
    free(m->score);
    free(m->mergeable);
    *m = (tok_model){0};
}

static nvllm_status finish_unigram(tok_model *m, nvllm_error *err)
{
    m->min_score = 0;
    for (uint32_t id = 0; id < m->vocab.size; id++) {
        size_t len;
        const char *piece = tok_vocab_piece(&m->vocab, (int32_t)id, &len);
        if (!piece || (m->mergeable && !m->mergeable[id])) continue;
        if (m->score[id] < m->min_score) m->min_score = m->score[id];
        if (len == 0) continue;
        nvllm_status st = tok_trie_add(&m->trie, piece, len, (int32_t)id, err);
        if (st != NVLLM_OK) return st;
    }
    return NVLLM_OK;
}

/* Offset behind `from` of the first mark (U+2581) that follows another character; len when there is none. */
static size_t next_cut(const char *text, size_t len, size_t from)
{
    static const char mark[3] = {'\xE2', '\x96', '\x81'};
    for (size_t i = from; i + 3 <= len; i++) {
        const char *at = memchr(text + i, mark[0], len - 2 - i);
        if (!at) return len;
        i = (size_t)(at - text);
        if (i > from && memcmp(at, mark, 3) == 0 && !(i >= from + 3 && memcmp(at - 3, mark, 3) == 0))
            return i;
    }
    return len;
}

/* Only exact where the mark is itself a token: then a pending unknown token never crosses the cut. */
static bool may_cut_at_mark(const tok_model *m)
{
    if (m->kind == TOK_UNIGRAM || m->ignore_merges || tok_vocab_find(&m->vocab, "\xE2\x96\x81", 3) < 0)
        return false;
    for (uint32_t id = 0; id < m->vocab.size; id++) {
        size_t len;
        const char *piece = tok_vocab_piece(&m->vocab, (int32_t)id, &len);
        if (piece && next_cut(piece, len, 0) < len) return false;
    }
    return true;
}

nvllm_status tok_model_finish(tok_model *m, nvllm_error *err)
{
    for (uint32_t b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b & 0xFF);
        m->byte_ids[b] = tok_vocab_find(&m->vocab, name, 6);
    }
    for (uint32_t c = 0; c < 512; c++) {
        char text[4];
        m->char_ids[c] = tok_vocab_find(&m->vocab, text, utf8_encode(c, text));
    }
    m->cut_at_mark = may_cut_at_mark(m);
    return m->kind == TOK_UNIGRAM ? finish_unigram(m, err) : NVLLM_OK;
}

nvllm_status tok_push_bytes(const tok_model *m, const char *text, size_t len, tok_ids *ids, bool *all,
                            nvllm_error *err)
{
    *all = true;
    for (size_t i = 0; i < len; i++)
        if (m->byte_ids[(unsigned char)text[i]] < 0) *all = false;
    nvllm_status st = NVLLM_OK;
    for (size_t i = 0; *all && st == NVLLM_OK && i < len; i++)
        st = tok_ids_push(ids, &m->byte_ids[(unsigned char)text[i]], 1, err);
    return st;
}

static nvllm_status encode_one(const tok_model *m, tok_work *w, const char *text, size_t len, tok_ids *ids,
                               nvllm_error *err)
{
    switch (m->kind) {
    case TOK_BPE: return tok_bpe_encode(m, w, text, len, ids, err);
    case TOK_SPM: return tok_spm_encode(m, w, text, len, ids, err);
    case TOK_UNIGRAM: return tok_unigram_encode(m, w, text, len, ids, err);
    }
    return NVLLM_OK;
}

/* Words repeat: a piece seen before in this text takes its ids from where they already stand in `ids`.
 * Direct mapped by hash, so that a newer piece replaces an older one. */
typedef struct {
    uint32_t piece, count; /* index of the piece; number of its ids, 0: free */
    size_t first;          /* of its ids */
} seen;

#define SEEN_BITS       13
#define SEEN_MIN_PIECES 64
#define SEEN_MAX_BYTES  64

static nvllm_status encode_with_memory(const tok_model *m, tok_work *w, const tok_pieces *p, seen *table,
                                       tok_ids *ids, nvllm_error *err)
{
    const char *text = p->text.data;
    nvllm_status st = NVLLM_OK;
    for (size_t i = 0; st == NVLLM_OK && i < p->count; i++) {
        tok_span s = p->span[i];
        if (s.len > SEEN_MAX_BYTES || i > UINT32_MAX) {
            st = encode_one(m, w, text + s.start, s.len, ids, err);
            continue;
        }
        seen *e = &table[tok_hash(text + s.start, s.len) >> (64 - SEEN_BITS)];
        const tok_span *old = &p->span[e->piece];
        size_t first = ids->count;
        if (e->count && old->len == s.len && memcmp(text + old->start, text + s.start, s.len) == 0) {
            int32_t copy[SEEN_MAX_BYTES];
            memcpy(copy, ids->data + e->first, e->count * sizeof *copy);
            st = tok_ids_push(ids, copy, e->count, err);
            continue;
        }
        st = encode_one(m, w, text + s.start, s.len, ids, err);
        size_t count = ids->count - first;
        if (count && count <= SEEN_MAX_BYTES) *e = (seen){(uint32_t)i, (uint32_t)count, first};
    }
    return st;
}

static nvllm_status cut_at_marks(tok_pieces *p, tok_pieces *spare, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    spare->count = 0;
    for (size_t i = 0; i < p->count; i++) {
        tok_span s = p->span[i];
        const char *text = p->text.data + s.start;
        for (size_t from = 0, to; st == NVLLM_OK && from < s.len; from = to) {
            to = next_cut(text, s.len, from);
            st = tok_pieces_push(spare, (tok_span){s.start + from, to - from, false}, err);
        }
    }
    tok_pieces_swap_spans(p, spare);
    return st;
}

nvllm_status tok_model_encode(const tok_model *m, tok_work *w, tok_pieces *pieces, tok_pieces *spare,
                              tok_ids *ids, nvllm_error *err)
{
    nvllm_status st = m->cut_at_mark ? cut_at_marks(pieces, spare, err) : NVLLM_OK;
    if (st != NVLLM_OK) return st;
    seen *table = pieces->count >= SEEN_MIN_PIECES ? calloc((size_t)1 << SEEN_BITS, sizeof *table) : NULL;
    if (table) { /* without memory for the table the long way gives the same ids */
        st = encode_with_memory(m, w, pieces, table, ids, err);
        free(table);
        return st;
    }
    for (size_t i = 0; st == NVLLM_OK && i < pieces->count; i++)
        st = encode_one(m, w, pieces->text.data + pieces->span[i].start, pieces->span[i].len, ids, err);
    return st;
}
