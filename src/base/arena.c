/* Arena allocator; see arena.h. */
#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_MIN_CHUNK (64u * 1024u)
#define ARENA_ALIGN     16u

struct arena_chunk {
    arena_chunk *next;
    size_t used, capacity;
    _Alignas(16) unsigned char data[];
};

static arena_chunk *chunk_new(size_t capacity)
{
    if (capacity < ARENA_MIN_CHUNK) capacity = ARENA_MIN_CHUNK;
    if (capacity > SIZE_MAX - sizeof(arena_chunk)) return NULL;
    arena_chunk *c = malloc(sizeof *c + capacity);
    if (!c) return NULL;
    c->next = NULL;
    c->used = 0;
    c->capacity = capacity;
    return c;
}

/* The first chunk, from the current one on, that has room; chunks behind current are empty. */
static arena_chunk *chunk_with_room(arena *a, size_t bytes)
{
    for (arena_chunk *c = a->current; c; c = c->next) {
        if (c->capacity - c->used >= bytes) return a->current = c;
        if (!c->next) {
            c->next = chunk_new(bytes);
            return c->next ? (a->current = c->next) : NULL;
        }
    }
    return a->first = a->current = chunk_new(bytes);
}

void *arena_alloc(arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX - ARENA_ALIGN) return NULL;
    bytes = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (a->limit && (bytes > a->limit || a->total > a->limit - bytes)) return NULL;
    arena_chunk *c = chunk_with_room(a, bytes);
    if (!c) return NULL;
    void *p = c->data + c->used;
    c->used += bytes;
    a->total += bytes;
    memset(p, 0, bytes);
    return p;
}

void *arena_calloc(arena *a, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size) return NULL;
    return arena_alloc(a, count * size);
}

char *arena_strndup(arena *a, const char *text, size_t len)
{
    if (len == SIZE_MAX) return NULL;
    char *copy = arena_alloc(a, len + 1);
    if (copy && len) memcpy(copy, text, len);
    return copy;
}

void arena_reset(arena *a)
{
    for (arena_chunk *c = a->first; c; c = c->next) c->used = 0;
    a->current = a->first;
    a->total = 0;
}

void arena_free(arena *a)
{
    for (arena_chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    a->first = a->current = NULL;
    a->total = 0;
}
