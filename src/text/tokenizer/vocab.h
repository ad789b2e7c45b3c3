/* Vocabulary: token strings and their ids, both ways, in three flat arrays and one hash table.
 *
 * Ids may arrive in any order and may leave holes. A piece (a token's string) may be any bytes without
 * limit on content; two ids never share a piece, and two pieces never share an id. Immutable after the
 * tokenizer is built, so lookups need no lock. */
#ifndef NVLLM_TEXT_TOK_VOCAB_H
#define NVLLM_TEXT_TOK_VOCAB_H

#include "base/error.h"

#include <stdint.h>

/* More than any published vocabulary (the largest has 0.3 million); bounds what a wrong id can allocate. */
#define TOK_MAX_ID 2000000

typedef struct {
    uint32_t start, length; /* in bytes */
} tok_piece;

typedef struct {
    char *bytes; /* all pieces, one after the other */
    size_t bytes_len, bytes_cap;
    tok_piece *piece;   /* [size] by id; a hole has start UINT32_MAX */
    uint32_t size, cap; /* ids are below size */
    uint32_t count;     /* pieces */
    uint32_t longest;   /* bytes of the longest piece */
    uint64_t *slots;    /* [mask + 1] upper half of the hash << 32 | id; UINT64_MAX: free */
    uint32_t mask;
} tok_vocab;

/* Refuses an id out of range or taken, and a piece already there. */
nvllm_status tok_vocab_add(tok_vocab *v, const char *piece, size_t len, int64_t id, nvllm_error *err);
/* Room for about `count` pieces; a hint that saves growing step by step. */
nvllm_status tok_vocab_reserve(tok_vocab *v, size_t count, nvllm_error *err);
void tok_vocab_free(tok_vocab *v);

int32_t tok_vocab_find(const tok_vocab *v, const char *piece, size_t len); /* -1: none */

/* The same where the id is probably `guess`: a list of merges makes the tokens in the order of their ids. */
int32_t tok_vocab_find_near(const tok_vocab *v, const char *piece, size_t len, int32_t guess);
/* Starts loading what a lookup of a piece with this hash reads first. */
void tok_vocab_prefetch(const tok_vocab *v, uint64_t hash);

/* The piece of an id, not NUL-terminated, valid as long as the vocabulary; NULL: no such id. */
const char *tok_vocab_piece(const tok_vocab *v, int32_t id, size_t *len);

/* 64-bit hash of bytes, shared by the tables of the tokenizer. */
uint64_t tok_hash(const char *bytes, size_t len);

#endif
