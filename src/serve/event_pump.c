/* Two pages of events that change places; see event_pump.h. */
#define _GNU_SOURCE
#include "serve/event_pump.h"
#include "serve/wire.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MOST = 256 };

/* While a page is written, text and top of its events are offsets into `text` and `top`. */
typedef struct {
    nvllm_event *events;
    double *times;
    size_t count, capacity;
    wire text, top;
    bool failed; /* events were lost for want of memory */
} page;

struct event_pump {
    nvllm_engine *engine;
    int bell;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    uint64_t wakes;
    bool closing;
    page pages[2]; /* [writing] is the thread's, under the lock; the other one the reader's */
    int writing;
};

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool grow(page *p, size_t more)
{
    if (more <= p->capacity - p->count) return true;
    size_t capacity = 2 * (p->count + more);
    nvllm_event *events = realloc(p->events, capacity * sizeof *events);
    if (events) p->events = events;
    double *times = realloc(p->times, capacity * sizeof *times);
    if (times) p->times = times;
    if (!events || !times) return false;
    p->capacity = capacity;
    return true;
}

static void add(page *p, const nvllm_event *event, double time)
{
    nvllm_event copy = *event;
    const char *text = event->kind == NVLLM_EVENT_ERROR && event->error ? event->error : event->text;
    size_t len = event->kind == NVLLM_EVENT_ERROR ? (text ? strlen(text) + 1 : 0) : event->text_len;
    copy.text_len = len;
    copy.text = (const char *)p->text.len;
    copy.top = (const nvllm_logprob *)(p->top.len);
    wire_bytes(&p->text, text, len);
    wire_bytes(&p->top, event->top, event->n_top * sizeof *event->top);
    if (p->text.failed || p->top.failed || !grow(p, 1)) {
        p->failed = true;
        return;
    }
    p->times[p->count] = time;
    p->events[p->count++] = copy;
}

static void push(event_pump *p, const nvllm_event *events, size_t n)
{
    double time = seconds_now();
    uint64_t one = 1;
    pthread_mutex_lock(&p->lock);
    page *to = &p->pages[p->writing];
    bool ring = to->count == 0;
    for (size_t i = 0; i < n; i++) add(to, &events[i], time);
    pthread_mutex_unlock(&p->lock);
    /* The counter cannot overflow: a write fails only when 2^64 - 2 rings were not heard. */
    if (ring && write(p->bell, &one, sizeof one) < 0) return;
}

/* Sleeps until someone submits; false: it is time to end. */
static bool wait_for_work(event_pump *p, uint64_t seen)
{
    pthread_mutex_lock(&p->lock);
    while (p->wakes == seen && !p->closing) pthread_cond_wait(&p->woken, &p->lock);
    bool go_on = p->wakes != seen;
    pthread_mutex_unlock(&p->lock);
    return go_on;
}

static void *pump(void *arg)
{
    event_pump *p = arg;
    nvllm_event events[POLL_MOST];
    for (;;) {
        pthread_mutex_lock(&p->lock);
        uint64_t seen = p->wakes;
        pthread_mutex_unlock(&p->lock);
        /* 0: nothing runs. Whoever submits after that is seen by the change of `wakes`. */
        size_t n = nvllm_poll(p->engine, events, POLL_MOST, -1);
        if (n)
            push(p, events, n);
        else if (!wait_for_work(p, seen))
            return NULL;
    }
}

event_pump *event_pump_open(nvllm_engine *engine, int bell)
{
    event_pump *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->engine = engine;
    p->bell = bell;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->woken, NULL);
    if (pthread_create(&p->thread, NULL, pump, p) == 0) return p;
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->woken);
    free(p);
    return NULL;
}

void event_pump_wake(event_pump *p)
{
    pthread_mutex_lock(&p->lock);
    p->wakes++;
    pthread_cond_signal(&p->woken);
    pthread_mutex_unlock(&p->lock);
}

size_t event_pump_take(event_pump *p, const nvllm_event **events, const double **times)
{
    pthread_mutex_lock(&p->lock);
    page *read = &p->pages[p->writing], *next = &p->pages[!p->writing];
    wire_clear(&next->text);
    wire_clear(&next->top);
    next->count = 0;
    p->writing = !p->writing;
    pthread_mutex_unlock(&p->lock);

    for (size_t i = 0; i < read->count; i++) {
        nvllm_event *e = &read->events[i];
        e->text = read->text.data + (uintptr_t)e->text;
        e->top = e->n_top ? (const nvllm_logprob *)(void *)(read->top.data + (uintptr_t)e->top) : NULL;
        if (e->kind == NVLLM_EVENT_ERROR) {
            e->error = e->text_len ? e->text : NULL;
            e->text_len = 0;
        }
    }
    if (read->failed && grow(read, 1)) {
        read->failed = read->text.failed = read->top.failed = false;
        read->times[read->count] = seconds_now();
        read->events[read->count++] = (nvllm_event){.kind = NVLLM_EVENT_ERROR,
                                                    .token = -1,
                                                    .finish = NVLLM_FINISH_ERROR,
                                                    .error = "out of memory: events were lost"};
    }
    *events = read->events;
    *times = read->times;
    return read->count;
}

void event_pump_close(event_pump *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_signal(&p->woken);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    for (int i = 0; i < 2; i++) {
        free(p->pages[i].events);
        free(p->pages[i].times);
        wire_free(&p->pages[i].text);
        wire_free(&p->pages[i].top);
    }
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->woken);
    free(p);
}
