/* Arena: many small allocations with one lifetime, freed together.
 *
 * Used where a whole object graph is dropped at once (a parsed template, a tokenizer, a request).
 * Memory comes in chunks; arena_reset keeps the chunks for reuse. Not thread-safe. */
#ifndef NVLLM_BASE_ARENA_H
#define NVLLM_BASE_ARENA_H

#include <stddef.h>

typedef struct arena_chunk arena_chunk;

typedef struct {
    arena_chunk *first, *current;
    size_t total; /* bytes handed out since the last reset */
    size_t limit; /* arena_alloc fails past this many bytes; 0: no limit */
} arena;

/* Zero initialisation `arena a = {0}` is a valid, empty arena. */
void *arena_alloc(arena *a, size_t bytes);               /* 16-byte aligned, zeroed; NULL: no memory */
void *arena_calloc(arena *a, size_t count, size_t size); /* the same, with an overflow check */
char *arena_strndup(arena *a, const char *text, size_t len);
void arena_reset(arena *a); /* everything handed out is gone; the chunks stay */
void arena_free(arena *a);  /* back to {0}, limit kept */

#endif
