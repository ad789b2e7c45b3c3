/* Trie over bytes: which of a set of strings begin at a place in the text. */
#ifndef NVLLM_TEXT_TOK_TRIE_H
#define NVLLM_TEXT_TOK_TRIE_H

#include "base/error.h"

#include <stdint.h>

typedef struct {
    uint64_t *slots; /* [mask + 1] node << 40 | byte << 32 | child; 0: free (no child is the root) */
    uint32_t mask, nodes;
    int32_t *value; /* [nodes] the string that ends here, or -1 */
    uint32_t value_cap;
} tok_trie;

/* Adds a string that is not empty; the value of a string added twice is the last one. */
nvllm_status tok_trie_add(tok_trie *t, const char *text, size_t len, int32_t value, nvllm_error *err);
void tok_trie_free(tok_trie *t);

uint32_t tok_trie_step(const tok_trie *t, uint32_t node, unsigned char byte); /* 0: no such child */

#endif
