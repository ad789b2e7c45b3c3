/* One thread with a queue; see worker.h. */
#define _GNU_SOURCE
#include "serve/worker.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* A list that grows at its end. */
typedef struct {
    task *first, **end;
} task_list;

struct worker {
    int bell;
    size_t most;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t news;
    task_list waiting, done;
    size_t n_waiting;
    bool closing;
};

static void append(task_list *list, task *t)
{
    t->next = NULL;
    *list->end = t;
    list->end = &t->next;
}

static task *take_first(task_list *list)
{
    task *t = list->first;
    list->first = t->next;
    if (!list->first) list->end = &list->first;
    return t;
}

/* With the lock held, which is free while the task runs. */
static void do_first(worker *w)
{
    uint64_t one = 1;
    task *t = take_first(&w->waiting);
    w->n_waiting--;
    pthread_mutex_unlock(&w->lock);
    t->run(t);
    pthread_mutex_lock(&w->lock);
    append(&w->done, t);
    /* The counter cannot overflow: a write fails only when 2^64 - 2 rings were not heard. */
    if (write(w->bell, &one, sizeof one) < 0) return;
}

static void *work(void *arg)
{
    worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->closing) {
        if (w->waiting.first)
            do_first(w);
        else
            pthread_cond_wait(&w->news, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

worker *worker_open(int bell, size_t most)
{
    worker *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->bell = bell;
    w->most = most;
    w->waiting.end = &w->waiting.first;
    w->done.end = &w->done.first;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->news, NULL);
    if (pthread_create(&w->thread, NULL, work, w) == 0) return w;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->news);
    free(w);
    return NULL;
}

bool worker_add(worker *w, task *t)
{
    pthread_mutex_lock(&w->lock);
    bool room = w->n_waiting < w->most;
    if (room) {
        append(&w->waiting, t);
        w->n_waiting++;
        pthread_cond_signal(&w->news);
    }
    pthread_mutex_unlock(&w->lock);
    return room;
}

bool worker_remove(worker *w, task *t)
{
    pthread_mutex_lock(&w->lock);
    task **at = &w->waiting.first;
    while (*at && *at != t) at = &(*at)->next;
    bool found = *at != NULL;
    if (found) {
        *at = t->next;
        if (!*at) w->waiting.end = at;
        w->n_waiting--;
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

task *worker_take(worker *w)
{
    pthread_mutex_lock(&w->lock);
    task *first = w->done.first;
    w->done = (task_list){NULL, &w->done.first};
    pthread_mutex_unlock(&w->lock);
    return first;
}

task *worker_close(worker *w)
{
    if (!w) return NULL;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_signal(&w->news);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    task *rest = w->done.first;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->news);
    free(w);
    return rest;
}
