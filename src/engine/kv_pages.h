/* The pool of KV pages: reference counts and a free list. Page ids only; the memory belongs to the runner.
 *
 * Invariants, and the edge cases that bit others:
 *  - A page with one owner may be written; a page with more is full and never changes again.
 *  - Pages are taken for a sequence's whole possible length when it is admitted, so a running sequence never
 *    finds the pool empty; a request that could never fit is refused when it is submitted.
 *  - A fully cached prompt still computes its last token: its logits are not in the cache.
 *  - The last token drawn has no K and V yet: kv_len counts computed tokens, not known ones.
 * Not thread-safe: the engine's thread owns it. */
#ifndef NVLLM_ENGINE_KV_PAGES_H
#define NVLLM_ENGINE_KV_PAGES_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int32_t *refs; /* [pages] 0: free */
    int32_t *free_list;
    int32_t pages, n_free;
} kv_pages;

nvllm_status kv_pages_open(kv_pages *out, int32_t pages, nvllm_error *err);
void kv_pages_close(kv_pages *p);

bool kv_pages_take(kv_pages *p, int32_t *out, int32_t count); /* all `count` with one owner each, or none */
void kv_pages_share(kv_pages *p, int32_t page);               /* one more owner */
void kv_pages_release(kv_pages *p, const int32_t *pages, int32_t count);

#endif
