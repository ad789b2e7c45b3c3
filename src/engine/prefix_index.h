/* Which full pages hold which tokens after which page: the prefix cache's memory, by page id.
 *
 * A page is listed under (the page before it, its tokens), so walking a prompt page by page from the start finds the
 * longest known prefix, exactly: tokens are compared, hashes only choose the bucket. A page id that was reused in
 * between is told apart by its generation, so pages listed behind a page that is gone are never found again.
 * Only written, full pages are listed: the engine lists a page after the step that filled it. */
#ifndef NVLLM_ENGINE_PREFIX_INDEX_H
#define NVLLM_ENGINE_PREFIX_INDEX_H

#include "base/arena.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define PREFIX_ROOT (-1) /* what comes before a first page */

typedef struct {
    int32_t slots; /* tokens per page */
    uint32_t mask;
    int32_t *bucket, *next;                   /* [mask + 1], [pages]; -1: end */
    int32_t *parent;                          /* [pages] */
    uint32_t *generation, *parent_generation; /* [pages] */
    int32_t *tokens;                          /* [pages, slots] */
    bool *listed;                             /* [pages] */
    arena memory;
} prefix_index;

nvllm_status prefix_index_open(prefix_index *out, int32_t pages, int32_t slots, nvllm_error *err);
void prefix_index_close(prefix_index *x);

/* The listed page that holds tokens[slots] after `parent`; -1: none. */
int32_t prefix_index_find(const prefix_index *x, int32_t parent, const int32_t *tokens);

/* Lists `page`, which must not be listed; parent is PREFIX_ROOT or a listed page. */
void prefix_index_add(prefix_index *x, int32_t page, int32_t parent, const int32_t *tokens);
void prefix_index_remove(prefix_index *x, int32_t page);

/* Is `page` still what it was when it had this generation? PREFIX_ROOT always is. */
static inline bool prefix_index_is(const prefix_index *x, int32_t page, uint32_t generation)
{
    return page == PREFIX_ROOT || (x->listed[page] && x->generation[page] == generation);
}

static inline bool prefix_index_has(const prefix_index *x, int32_t page)
{
    return x->listed[page];
}

#endif
