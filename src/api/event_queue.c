/* The double-buffered event queue; see event_queue.h. */
#include "api/event_queue.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for `need` elements; false: out of memory, nothing changed. */
static bool grow(void **data, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity) return true;
    size_t wanted = *capacity ? *capacity * 2 : 64;
    if (wanted < need) wanted = need;
    void *more = realloc(*data, wanted * size);
    if (!more) return false;
    *data = more;
    *capacity = wanted;
    return true;
}

void event_queue_push(event_queue *q, const nvllm_event *event)
{
    event_page *p = &q->pages[q->writing];
    bool room = grow((void **)&p->events, &p->capacity, p->count + 1, sizeof *p->events) &&
                grow((void **)&p->top, &p->top_capacity, p->n_top + event->n_top + 1, sizeof *p->top) &&
                buffer_reserve(&p->text, event->text_len + 1);
    if (!room) {
        q->lost = true;
        return;
    }
    nvllm_event *copy = &p->events[p->count++];
    *copy = *event;
    copy->text = (const char *)(uintptr_t)p->text.len;
    copy->top = (const nvllm_logprob *)(uintptr_t)p->n_top;
    buffer_append(&p->text, event->text ? event->text : "", event->text_len);
    buffer_putc(&p->text, '\0');
    if (event->n_top) memcpy(p->top + p->n_top, event->top, event->n_top * sizeof *p->top);
    p->n_top += event->n_top;
}

static void turn_pages(event_queue *q)
{
    event_page *read = &q->pages[!q->writing];
    read->count = read->next = read->n_top = 0;
    buffer_clear(&read->text);
    q->writing = !q->writing;
}

size_t event_queue_read(event_queue *q, nvllm_event *out, size_t capacity)
{
    if (capacity && q->lost) {
        q->lost = false;
        out[0] = (nvllm_event){.kind = NVLLM_EVENT_ERROR,
                               .token = -1,
                               .text = "",
                               .finish = NVLLM_FINISH_ERROR,
                               .error = "out of memory: events of this engine were lost"};
        return 1;
    }
    if (q->pages[!q->writing].next == q->pages[!q->writing].count) turn_pages(q);
    event_page *p = &q->pages[!q->writing];
    size_t n = 0;
    while (n < capacity && p->next < p->count) {
        out[n] = p->events[p->next++];
        out[n].text = p->text.data + (uintptr_t)out[n].text;
        out[n].top = out[n].n_top ? p->top + (uintptr_t)out[n].top : NULL;
        n++;
    }
    return n;
}

bool event_queue_empty(const event_queue *q)
{
    const event_page *read = &q->pages[!q->writing];
    return read->next == read->count && q->pages[q->writing].count == 0 && !q->lost;
}

void event_queue_free(event_queue *q)
{
    for (int i = 0; i < 2; i++) {
        free(q->pages[i].events);
        free(q->pages[i].top);
        buffer_free(&q->pages[i].text);
    }
}
