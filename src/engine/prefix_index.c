/* The prefix index; see prefix_index.h. */
#include "engine/prefix_index.h"

#include <string.h>

nvllm_status prefix_index_open(prefix_index *out, int32_t pages, int32_t slots, nvllm_error *err)
{
    prefix_index x = {.slots = slots};
    size_t n = (size_t)pages, buckets = 16;
    while (buckets < n) buckets *= 2;
    x.mask = (uint32_t)buckets - 1;
    x.bucket = arena_calloc(&x.memory, buckets, sizeof *x.bucket);
    x.next = arena_calloc(&x.memory, n, sizeof *x.next);
    x.parent = arena_calloc(&x.memory, n, sizeof *x.parent);
    x.generation = arena_calloc(&x.memory, n, sizeof *x.generation);
    x.parent_generation = arena_calloc(&x.memory, n, sizeof *x.parent_generation);
    x.tokens = arena_calloc(&x.memory, n * (size_t)slots, sizeof *x.tokens);
    x.listed = arena_calloc(&x.memory, n, sizeof *x.listed);
    if (!x.bucket || !x.next || !x.parent || !x.generation || !x.parent_generation || !x.tokens ||
        !x.listed) {
        arena_free(&x.memory);
        return error_memory(err, n * (size_t)slots * sizeof(int32_t), "the prefix index");
    }
    memset(x.bucket, 0xff, buckets * sizeof *x.bucket);
    *out = x;
    return NVLLM_OK;
}

void prefix_index_close(prefix_index *x)
{
    arena_free(&x->memory);
    *x = (prefix_index){0};
}

static uint32_t generation_of(const prefix_index *x, int32_t page)
{
    return page == PREFIX_ROOT ? 0 : x->generation[page];
}

/* FNV-1a over the parent and the tokens; the root's low bits are as good as any. */
static int32_t *bucket_of(const prefix_index *x, int32_t parent, uint32_t generation, const int32_t *tokens)
{
    uint64_t h = 0xcbf29ce484222325u;
    h = (h ^ (uint32_t)parent) * 0x100000001b3u;
    h = (h ^ generation) * 0x100000001b3u;
    for (int32_t i = 0; i < x->slots; i++) h = (h ^ (uint32_t)tokens[i]) * 0x100000001b3u;
    return &x->bucket[(h ^ (h >> 32)) & x->mask];
}

static const int32_t *tokens_of(const prefix_index *x, int32_t page)
{
    return x->tokens + (size_t)page * (size_t)x->slots;
}

int32_t prefix_index_find(const prefix_index *x, int32_t parent, const int32_t *tokens)
{
    uint32_t generation = generation_of(x, parent);
    size_t bytes = (size_t)x->slots * sizeof *tokens;
    for (int32_t page = *bucket_of(x, parent, generation, tokens); page >= 0; page = x->next[page])
        if (x->parent[page] == parent && x->parent_generation[page] == generation &&
            memcmp(tokens_of(x, page), tokens, bytes) == 0)
            return page;
    return -1;
}

void prefix_index_add(prefix_index *x, int32_t page, int32_t parent, const int32_t *tokens)
{
    uint32_t generation = generation_of(x, parent);
    int32_t *head = bucket_of(x, parent, generation, tokens);
    memcpy(x->tokens + (size_t)page * (size_t)x->slots, tokens, (size_t)x->slots * sizeof *tokens);
    x->parent[page] = parent;
    x->parent_generation[page] = generation;
    x->listed[page] = true;
    x->next[page] = *head;
    *head = page;
}

void prefix_index_remove(prefix_index *x, int32_t page)
{
    int32_t *at = bucket_of(x, x->parent[page], x->parent_generation[page], tokens_of(x, page));
    while (*at != page) at = &x->next[*at];
    *at = x->next[page];
    x->listed[page] = false;
    x->generation[page]++;
}
