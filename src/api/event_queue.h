/* Events on their way from the engine's thread to the thread that polls.
 *
 * Two pages: the engine writes one while the reader goes through the other; they change places when the reader has
 * read its page to the end. Text and top log-probabilities of a page live in the page, so a pointer handed out stays
 * good until the next read, and in the steady state nothing is allocated. Not locked: the engine handle's mutex is. */
#ifndef NVLLM_API_EVENT_QUEUE_H
#define NVLLM_API_EVENT_QUEUE_H

#include "base/buffer.h"
#include "nanovllm.h"

typedef struct {
    nvllm_event *events; /* text and top are offsets until they are read */
    size_t count, capacity, next;
    buffer text;
    nvllm_logprob *top;
    size_t n_top, top_capacity;
} event_page;

typedef struct {
    event_page pages[2];
    int writing; /* index of the page being written */
    bool lost;   /* out of memory: an event could not be kept; the reader is told */
} event_queue;

/* Copies the event with the text and the top log-probabilities that it points to. */
void event_queue_push(event_queue *q, const nvllm_event *event);
size_t event_queue_read(event_queue *q, nvllm_event *out, size_t capacity);
bool event_queue_empty(const event_queue *q);
void event_queue_free(event_queue *q);

#endif
