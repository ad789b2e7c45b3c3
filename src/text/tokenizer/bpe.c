/* BPE with ranked merges: characters become ids, then the pair of lowest rank, leftmost first, is joined
 * until no pair has a rank. Short pieces scan for the lowest rank; long ones keep a heap, O(n log n).
 * Source of the semantics: tokenizers/src/models/bpe (Hugging Face, Apache-2.0). */
#include "text/tokenizer/heap.h"
#include "text/tokenizer/model.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define SCAN_MAX 32 /* symbols; below it the scan beats the heap */
#define NO_MERGE UINT32_MAX

typedef struct {
    int32_t id; /* -1: swallowed by its left neighbour */
    int32_t prev, next;
} symbol;

static uint32_t slot_of(const tok_model *m, uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)((key ^ key >> 32) * 0xD6E8FEB8u >> 7) & m->merge_mask;
}

static const tok_merge *find_merge(const tok_model *m, int32_t left, int32_t right)
{
    if (!m->merges) return NULL;
    for (uint32_t i = slot_of(m, (uint32_t)left, (uint32_t)right); m->merges[i].left != UINT32_MAX;
         i = (i + 1) & m->merge_mask)
        if (m->merges[i].left == (uint32_t)left && m->merges[i].right == (uint32_t)right)
            return &m->merges[i];
    return NULL;
}

/* The pair's slot, or the free one where it belongs. */
static tok_merge *merge_slot(tok_model *m, uint32_t left, uint32_t right)
{
    uint32_t i = slot_of(m, left, right);
    while (m->merges[i].left != UINT32_MAX && (m->merges[i].left != left || m->merges[i].right != right))
        i = (i + 1) & m->merge_mask;
    return &m->merges[i];
}

/* At most two thirds full. */
static nvllm_status grow_merges(tok_model *m, nvllm_error *err)
{
    size_t old_size = m->merges ? (size_t)m->merge_mask + 1 : 0, size = old_size ? old_size * 2 : 1024;
    if (m->merge_count < old_size / 3 * 2) return NVLLM_OK;
    if (size > UINT32_MAX / 4)
        return error_set(err, NVLLM_ERR_LIMIT, "model: %u merges are too many", m->merge_count);
    tok_merge *old = m->merges, *bigger = malloc(size * sizeof *bigger);
    if (!bigger) return error_memory(err, size * sizeof *bigger, "the merges");
    memset(bigger, 0xFF, size * sizeof *bigger);
    m->merges = bigger;
    m->merge_mask = (uint32_t)(size - 1);
    for (size_t i = 0; i < old_size; i++)
        if (old[i].left != UINT32_MAX) *merge_slot(m, old[i].left, old[i].right) = old[i];
    free(old);
    return NVLLM_OK;
}

static nvllm_status missing(const tok_model *m, const char *piece, size_t len, nvllm_error *err)
{
    return error_set(err, NVLLM_ERR_FORMAT, "model: merge %u names \"%.*s\", which is not in the vocabulary",
                     m->merge_count, len < 100 ? (int)len : 100, piece);
}

nvllm_status tok_merges_add(tok_model *m, const char *left, size_t left_len, const char *right,
                            size_t right_len, nvllm_error *err)
{
    char joined[512], *whole = joined;
    size_t len = left_len + right_len;
    tok_vocab_prefetch(&m->vocab, tok_hash(right, right_len));
    int32_t a = tok_vocab_find(&m->vocab, left, left_len), b = tok_vocab_find(&m->vocab, right, right_len);
    if (a < 0) return missing(m, left, left_len, err);
    if (b < 0) return missing(m, right, right_len, err);
    if (len > sizeof joined && !(whole = malloc(len))) return error_memory(err, len, "a merge");
    if (left_len) memcpy(whole, left, left_len);
    if (right_len) memcpy(whole + left_len, right, right_len);
    int32_t id = tok_vocab_find_near(&m->vocab, whole, len, m->last_joined + 1);
    nvllm_status st = id < 0 ? missing(m, whole, len, err) : NVLLM_OK;
    if (whole != joined) free(whole);
    if (st != NVLLM_OK) return st;
    if ((st = grow_merges(m, err)) != NVLLM_OK) return st;
    m->last_joined = id;
    *merge_slot(m, (uint32_t)a, (uint32_t)b) =
        (tok_merge){(uint32_t)a, (uint32_t)b, m->merge_count++, (uint32_t)id};
    return NVLLM_OK;
}

static int32_t char_id(const tok_model *m, const char *text, unsigned len)
{
    uint32_t code;
    if (len <= 2 && utf8_decode(text, len, &code) && code < 512) return m->char_ids[code];
    return tok_vocab_find(&m->vocab, text, len);
}

/* The piece's characters as ids appended to `ids`, with byte fallback and the unknown token. As in the
 * reference an unknown run that is pending is written only before the next known character. */
static nvllm_status push_characters(const tok_model *m, const char *text, size_t len, tok_ids *ids,
                                    nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    bool pending = false;
    for (size_t i = 0; st == NVLLM_OK && i < len;) {
        unsigned n = utf8_length(text[i]);
        if (n > len - i) n = (unsigned)(len - i);
        int32_t id = char_id(m, text + i, n);
        bool done = false;
        if (id >= 0) {
            if (pending) st = tok_ids_push(ids, &m->unk_id, 1, err);
            pending = false;
            if (st == NVLLM_OK) st = tok_ids_push(ids, &id, 1, err);
            done = true;
        } else if (m->byte_fallback) {
            st = tok_push_bytes(m, text + i, n, ids, &done, err);
        }
        if (st == NVLLM_OK && !done && m->unk_id >= 0) {
            if (pending && !m->fuse_unk) st = tok_ids_push(ids, &m->unk_id, 1, err);
            pending = true;
        }
        i += n;
    }
    return st == NVLLM_OK && pending ? tok_ids_push(ids, &m->unk_id, 1, err) : st;
}

/* Joins in place; returns the new count. */
static size_t merge_by_scan(const tok_model *m, int32_t *id, size_t count)
{
    uint32_t rank[SCAN_MAX], joined[SCAN_MAX]; /* of the pair (i, i + 1) */
    for (size_t i = 0; i + 1 < count; i++) {
        const tok_merge *g = find_merge(m, id[i], id[i + 1]);
        rank[i] = g ? g->rank : NO_MERGE;
        joined[i] = g ? g->joined : 0;
    }
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_MERGE) break;
        id[best] = (int32_t)joined[best];
        count--;
        for (size_t i = best + 1; i < count; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
            joined[i - 1] = joined[i];
        }
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < count; i++) {
            const tok_merge *g = find_merge(m, id[i], id[i + 1]);
            rank[i] = g ? g->rank : NO_MERGE;
            joined[i] = g ? g->joined : 0;
        }
    }
    return count;
}

static void queue_pair(const tok_model *m, const symbol *s, int32_t left, tok_candidate *heap, size_t *queued)
{
    if (left < 0 || s[left].next < 0) return;
    const tok_merge *g = find_merge(m, s[left].id, s[s[left].next].id);
    if (g) tok_heap_push(heap, queued, (tok_candidate){(uint64_t)g->rank << 32 | (uint32_t)left, g->joined});
}

/* Each merge removes one symbol and queues at most two pairs, so 3 * count candidates suffice. */
static nvllm_status merge_by_heap(const tok_model *m, tok_work *w, int32_t *id, size_t *count,
                                  nvllm_error *err)
{
    if (*count > INT32_MAX / 4) return error_set(err, NVLLM_ERR_LIMIT, "a piece of %zu characters", *count);
    nvllm_status st = tok_work_reserve(&w->symbols, &w->symbols_cap, *count * sizeof(symbol), err);
    if (st == NVLLM_OK)
        st = tok_work_reserve(&w->heap, &w->heap_cap, 3 * *count * sizeof(tok_candidate), err);
    if (st != NVLLM_OK) return st;
    symbol *s = w->symbols;
    tok_candidate *heap = w->heap;
    size_t queued = 0;
    int32_t last = (int32_t)*count - 1;
    for (int32_t i = 0; i <= last; i++) s[i] = (symbol){id[i], i - 1, i < last ? i + 1 : -1};
    for (int32_t i = 0; i < last; i++) queue_pair(m, s, i, heap, &queued);
    while (queued) {
        tok_candidate c = tok_heap_pop(heap, &queued);
        symbol *left = &s[(uint32_t)c.key];
        if (left->id < 0 || left->next < 0) continue;
        symbol *right = &s[left->next];
        const tok_merge *g = find_merge(m, left->id, right->id);
        if (!g || g->joined != c.value) continue;
        left->id = (int32_t)g->joined;
        right->id = -1;
        left->next = right->next;
        if (right->next >= 0) s[right->next].prev = (int32_t)(left - s);
        queue_pair(m, s, left->prev, heap, &queued);
        queue_pair(m, s, (int32_t)(left - s), heap, &queued);
    }
    size_t kept = 0;
    for (int32_t i = 0; i >= 0; i = s[i].next) id[kept++] = s[i].id;
    *count = kept;
    return NVLLM_OK;
}

nvllm_status tok_bpe_encode(const tok_model *m, tok_work *w, const char *text, size_t len, tok_ids *ids,
                            nvllm_error *err)
{
    if (m->ignore_merges) {
        int32_t id = tok_vocab_find(&m->vocab, text, len);
        if (id >= 0) return tok_ids_push(ids, &id, 1, err);
    }
    size_t first = ids->count;
    nvllm_status st = push_characters(m, text, len, ids, err);
    if (st != NVLLM_OK) return st;
    size_t count = ids->count - first;
    if (count > SCAN_MAX)
        st = merge_by_heap(m, w, ids->data + first, &count, err);
    else if (count > 1)
        count = merge_by_scan(m, ids->data + first, count);
    ids->count = first + count;
    return st;
}
