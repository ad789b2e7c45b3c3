/* Reference-counted KV pages; see kv_pages.h. */
#include "engine/kv_pages.h"

#include <assert.h>
#include <stdlib.h>

nvllm_status kv_pages_open(kv_pages *out, int32_t pages, int32_t slots, nvllm_error *err)
{
    kv_pages p = {.pages = pages, .n_free = pages, .oldest = -1, .newest = -1};
    size_t bytes = (size_t)pages * sizeof(int32_t);
    nvllm_status st = prefix_index_open(&p.index, pages, slots, err);
    if (st) return st;
    p.refs = calloc((size_t)pages, sizeof *p.refs);
    p.free_list = malloc(bytes);
    p.older = malloc(bytes);
    p.newer = malloc(bytes);
    if (!p.refs || !p.free_list || !p.older || !p.newer) {
        kv_pages_close(&p);
        return error_memory(err, 4 * bytes, "the table of KV pages");
    }
    for (int32_t i = 0; i < pages; i++) p.free_list[i] = pages - 1 - i; /* low ids first */
    *out = p;
    return NVLLM_OK;
}

void kv_pages_close(kv_pages *p)
{
    prefix_index_close(&p->index);
    free(p->refs);
    free(p->free_list);
    free(p->older);
    free(p->newer);
    *p = (kv_pages){0};
}

static void keep(kv_pages *p, int32_t page)
{
    p->older[page] = p->newest;
    p->newer[page] = -1;
    if (p->newest >= 0)
        p->newer[p->newest] = page;
    else
        p->oldest = page;
    p->newest = page;
    p->n_kept++;
}

static void unkeep(kv_pages *p, int32_t page)
{
    int32_t older = p->older[page], newer = p->newer[page];
    if (older >= 0)
        p->newer[older] = newer;
    else
        p->oldest = newer;
    if (newer >= 0)
        p->older[newer] = older;
    else
        p->newest = older;
    p->n_kept--;
}

static int32_t take_one(kv_pages *p)
{
    if (p->n_free > 0) return p->free_list[--p->n_free];
    int32_t page = p->oldest;
    unkeep(p, page);
    prefix_index_remove(&p->index, page);
    return page;
}

bool kv_pages_take(kv_pages *p, int32_t *out, int32_t count)
{
    if (count > kv_pages_available(p)) return false;
    for (int32_t i = 0; i < count; i++) {
        out[i] = take_one(p);
        p->refs[out[i]] = 1;
    }
    return true;
}

void kv_pages_share(kv_pages *p, int32_t page)
{
    assert(p->refs[page] > 0 || prefix_index_has(&p->index, page));
    if (p->refs[page]++ == 0) unkeep(p, page);
}

void kv_pages_release(kv_pages *p, const int32_t *pages, int32_t count)
{
    for (int32_t i = count - 1; i >= 0; i--) {
        int32_t page = pages[i];
        assert(p->refs[page] > 0);
        if (--p->refs[page] > 0) continue;
        if (prefix_index_has(&p->index, page))
            keep(p, page);
        else
            p->free_list[p->n_free++] = page;
    }
}
