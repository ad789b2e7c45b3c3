/* Unigram: the segmentation with the highest sum of scores (Viterbi over byte positions).
 * Source of the semantics: tokenizers/src/models/unigram (Hugging Face, Apache-2.0), encode_optimized. */
#include "text/tokenizer/model.h"
#include "text/utf8.h"

#include <string.h>

#define UNKNOWN_PENALTY 10.0 /* below the lowest score of the vocabulary */

typedef struct {
    double score; /* of the best path that ends here */
    size_t from;  /* where its last token starts; SIZE_MAX: nothing ends here */
    int32_t id;   /* -2: an unknown character */
} node;

static void offer(node *to, double score, size_t from, int32_t id)
{
    if (to->from == SIZE_MAX || score > to->score) *to = (node){score, from, id};
}

static nvllm_status best_paths(const tok_model *m, const char *text, size_t len, node *path, nvllm_error *err)
{
    double unknown = m->min_score - UNKNOWN_PENALTY;
    for (size_t i = 0; i <= len; i++) path[i] = (node){0, SIZE_MAX, -2};
    for (size_t i = 0; i < len;) {
        size_t n = utf8_length(text[i]), end = i;
        if (n > len - i) n = len - i;
        bool has_character = false;
        uint32_t at = 0;
        while (end < len && (at = tok_trie_step(&m->trie, at, (unsigned char)text[end]))) {
            int32_t id = m->trie.value[at];
            end++;
            if (id < 0) continue;
            offer(&path[end], m->score[id] + path[i].score, i, id);
            has_character |= end - i == n;
        }
        if (!has_character) {
            if (m->unk_id < 0)
                return error_set(err, NVLLM_ERR_FORMAT,
                                 "a character is not in the vocabulary, which has no unk_id");
            offer(&path[i + n], unknown + path[i].score, i, m->unk_id);
        }
        i += n;
    }
    return NVLLM_OK;
}

/* One segment, whose string decides: a token, else its bytes, else the unknown token. */
static nvllm_status push_segment(const tok_model *m, const char *text, size_t len, tok_ids *ids,
                                 nvllm_error *err)
{
    int32_t id = tok_vocab_find(&m->vocab, text, len);
    if (id >= 0 && (!m->mergeable || m->mergeable[id])) return tok_ids_push(ids, &id, 1, err);
    bool done = false;
    nvllm_status st = m->byte_fallback ? tok_push_bytes(m, text, len, ids, &done, err) : NVLLM_OK;
    if (st != NVLLM_OK || done) return st;
    if (m->unk_id < 0)
        return error_set(err, NVLLM_ERR_FORMAT, "a character is not in the vocabulary, which has no unk_id");
    return tok_ids_push(ids, &m->unk_id, 1, err);
}

nvllm_status tok_unigram_encode(const tok_model *m, tok_work *w, const char *text, size_t len, tok_ids *ids,
                                nvllm_error *err)
{
    nvllm_status st = tok_work_reserve(&w->symbols, &w->symbols_cap, (len + 1) * sizeof(node), err);
    if (st != NVLLM_OK) return st;
    node *path = w->symbols;
    if ((st = best_paths(m, text, len, path, err)) != NVLLM_OK) return st;
    /* Turn the links round: path[start].from becomes the end of the segment that starts there. */
    size_t end = len, next_end = SIZE_MAX;
    for (;;) {
        size_t from = path[end].from;
        path[end].from = next_end;
        if (end == 0) break;
        next_end = end;
        end = from;
    }
    /* path[i].id still tells the token that ends at i; runs of the unknown token are one segment. */
    for (size_t i = 0; st == NVLLM_OK && i < len;) {
        end = path[i].from;
        if (path[end].id == m->unk_id)
            while (end < len && path[path[end].from].id == m->unk_id) end = path[end].from;
        st = push_segment(m, text + i, end - i, ids, err);
        i = end;
    }
    return st;
}
