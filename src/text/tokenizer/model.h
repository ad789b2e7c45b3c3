/* Models: from a piece of text to token ids. Three kinds share the vocabulary and the byte fallback.
 *
 *   BPE      ranked merges of id pairs (tokenizer.json, GGUF "gpt2")
 *   SPM      merges by the score of the joined piece (SentencePiece BPE, GGUF "llama")
 *   UNIGRAM  the best-scoring segmentation
 * Immutable after it is built. */
#ifndef NVLLM_TEXT_TOK_MODEL_H
#define NVLLM_TEXT_TOK_MODEL_H

#include "text/tokenizer/trie.h"
#include "text/tokenizer/vocab.h"
#include "text/tokenizer/work.h"

typedef enum { TOK_BPE, TOK_SPM, TOK_UNIGRAM } tok_model_kind;

typedef struct {
    uint32_t left, right, rank, joined; /* left UINT32_MAX: free slot */
} tok_merge;

typedef struct {
    tok_model_kind kind;
    tok_vocab vocab;
    bool byte_fallback, fuse_unk, ignore_merges;
    int32_t unk_id;        /* -1: none; BPE then drops unknown characters */
    int32_t byte_ids[256]; /* of "<0x00>".."<0xFF>", -1: none */
    int32_t char_ids[512]; /* BPE: of one-character tokens below U+0200, -1: none */

    tok_merge *merges; /* BPE: open addressing, at most half full */
    uint32_t merge_mask, merge_count;
    int32_t last_joined; /* id that the last merge made */

    bool cut_at_mark; /* BPE, SPM: no token has a U+2581 behind another character (see tok_model_encode) */

    double *score; /* SPM, UNIGRAM: [vocab.size] */
    uint8_t
        *mergeable;   /* SPM: [vocab.size] pieces that text may become; UNIGRAM: the same, or NULL for all */
    double min_score; /* UNIGRAM */
    tok_trie trie;    /* UNIGRAM */
} tok_model;

/* BPE: takes the merges in rank order, as pieces, after the vocabulary is complete. A pair named twice keeps
 * its last rank. Refuses a pair whose parts or whole are not in the vocabulary. */
nvllm_status tok_merges_add(tok_model *m, const char *left, size_t left_len, const char *right,
                            size_t right_len, nvllm_error *err);

/* Fills what follows from the vocabulary (byte_ids, char_ids, min_score, trie). Call once, at the end. */
nvllm_status tok_model_finish(tok_model *m, nvllm_error *err);
void tok_model_free(tok_model *m);

/* Appends the ids of all pieces, in order. Where the model sees the whole text as one piece, it may be cut before
 * each U+2581 that follows another character if no token spans such a place: no merge can either, the ids are the
 * same, and words can be remembered. `spare` is scratch. */
nvllm_status tok_model_encode(const tok_model *m, tok_work *w, tok_pieces *pieces, tok_pieces *spare,
                              tok_ids *ids, nvllm_error *err);

/* One piece; the three kinds, called by tok_model_encode. */
nvllm_status tok_bpe_encode(const tok_model *m, tok_work *w, const char *text, size_t len, tok_ids *ids,
                            nvllm_error *err);
nvllm_status tok_spm_encode(const tok_model *m, tok_work *w, const char *text, size_t len, tok_ids *ids,
                            nvllm_error *err);
nvllm_status tok_unigram_encode(const tok_model *m, tok_work *w, const char *text, size_t len, tok_ids *ids,
                                nvllm_error *err);

/* Appends the ids of text's bytes; *all is false, and nothing appended, when one byte has no token. */
nvllm_status tok_push_bytes(const tok_model *m, const char *text, size_t len, tok_ids *ids, bool *all,
                            nvllm_error *err);

#endif
