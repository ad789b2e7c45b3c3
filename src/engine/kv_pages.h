/* The pool of KV pages: reference counts, a free list, and the pages kept for prompts that begin alike.
 *
 * A page is free, owned (references > 0), or kept (no reference, listed in the prefix index, evicted when a page is
 * needed, least recently used first). Page ids only; the memory belongs to the runner.
 *
 * Invariants, and the edge cases that bit others:
 *  - A page with one owner may be written; a full, listed page never changes again and may have many owners.
 *  - A page is listed only after the step that wrote its last token, so no hit reads what is still being written.
 *  - A fully cached prompt still computes its last token: its logits are not in the cache.
 *  - The last token drawn has no K and V yet: a sequence's n_computed counts computed tokens, not known ones.
 *  - A preempted sequence gives all pages back and starts over; its listed pages may still be there when it
 *    returns, and then it hits them like anybody else.
 *  - A sequence releases its pages from the last to the first, so that of a kept prefix the end is evicted first.
 * Not thread-safe: the engine's thread owns it. */
#ifndef NVLLM_ENGINE_KV_PAGES_H
#define NVLLM_ENGINE_KV_PAGES_H

#include "engine/prefix_index.h"

typedef struct {
    prefix_index index;
    int32_t *refs; /* [pages] */
    int32_t *free_list;
    int32_t *older, *newer; /* [pages] neighbours in the list of kept pages; -1: end */
    int32_t oldest, newest; /* -1: nothing is kept */
    int32_t pages, n_free, n_kept;
} kv_pages;

nvllm_status kv_pages_open(kv_pages *out, int32_t pages, int32_t slots, nvllm_error *err);
void kv_pages_close(kv_pages *p);

bool kv_pages_take(kv_pages *p, int32_t *out, int32_t count); /* all `count` with one owner each, or none */
void kv_pages_share(kv_pages *p, int32_t page);               /* one more owner of an owned or kept page */
void kv_pages_release(kv_pages *p, const int32_t *pages, int32_t count);

static inline int32_t kv_pages_available(const kv_pages *p)
{
    return p->n_free + p->n_kept;
}

#endif
