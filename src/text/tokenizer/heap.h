/* Binary min-heap of merge candidates, in caller's memory. Keys are unique enough: priority in the upper
 * half, position in the lower, so that equal priorities come out from left to right. */
#ifndef NVLLM_TEXT_TOK_HEAP_H
#define NVLLM_TEXT_TOK_HEAP_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t key;
    uint32_t value; /* what the merge made when it was queued; tells stale entries */
} tok_candidate;

static inline void tok_heap_push(tok_candidate *heap, size_t *count, tok_candidate c)
{
    size_t i = (*count)++;
    for (; i > 0; i = (i - 1) / 2) {
        size_t parent = (i - 1) / 2;
        if (heap[parent].key <= c.key) break;
        heap[i] = heap[parent];
    }
    heap[i] = c;
}

static inline tok_candidate tok_heap_pop(tok_candidate *heap, size_t *count)
{
    tok_candidate top = heap[0], last = heap[--*count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *count) break;
        if (child + 1 < *count && heap[child + 1].key < heap[child].key) child++;
        if (last.key <= heap[child].key) break;
        heap[i] = heap[child];
        i = child;
    }
    if (*count) heap[i] = last;
    return top;
}

#endif
