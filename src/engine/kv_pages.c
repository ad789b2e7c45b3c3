/* Reference-counted KV pages; see kv_pages.h. */
#include "engine/kv_pages.h"

#include <assert.h>
#include <stdlib.h>

nvllm_status kv_pages_open(kv_pages *out, int32_t pages, nvllm_error *err)
{
    kv_pages p = {.pages = pages, .n_free = pages};
    p.refs = calloc((size_t)pages, sizeof *p.refs);
    p.free_list = malloc((size_t)pages * sizeof *p.free_list);
    if (!p.refs || !p.free_list) {
        kv_pages_close(&p);
        return error_memory(err, 2 * (size_t)pages * sizeof *p.refs, "the table of KV pages");
    }
    for (int32_t i = 0; i < pages; i++) p.free_list[i] = pages - 1 - i; /* low ids first */
    *out = p;
    return NVLLM_OK;
}

void kv_pages_close(kv_pages *p)
{
    free(p->refs);
    free(p->free_list);
    *p = (kv_pages){0};
}

bool kv_pages_take(kv_pages *p, int32_t *out, int32_t count)
{
    if (count > p->n_free) return false;
    for (int32_t i = 0; i < count; i++) {
        out[i] = p->free_list[--p->n_free];
        p->refs[out[i]] = 1;
    }
    return true;
}

void kv_pages_share(kv_pages *p, int32_t page)
{
    assert(p->refs[page] > 0);
    p->refs[page]++;
}

void kv_pages_release(kv_pages *p, const int32_t *pages, int32_t count)
{
    for (int32_t i = count - 1; i >= 0; i--) { /* backwards: the next owner gets them in the same order */
        assert(p->refs[pages[i]] > 0);
        if (--p->refs[pages[i]] == 0) p->free_list[p->n_free++] = pages[i];
    }
}
