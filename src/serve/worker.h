/* A thread for work that streams must not wait for. It does tasks one by one, in the order in which they came, and
 * rings the bell (an eventfd) after each; the I/O thread gives tasks and takes them back. */
#ifndef NVLLM_SERVE_WORKER_H
#define NVLLM_SERVE_WORKER_H

#include <stdbool.h>
#include <stddef.h>

/* Embedded as the first field in what is to be worked on; between worker_add and worker_take it belongs to the worker. */
typedef struct task {
    void (*run)(struct task *t); /* on the worker's thread */
    struct task *next;
} task;

typedef struct worker worker;

/* At most `most` tasks wait. NULL: out of memory or of threads. */
worker *worker_open(int bell, size_t most);

/* false: too many wait already. */
bool worker_add(worker *w, task *t);

/* true: the task was still waiting and is the caller's again; false: worker_take will give it back. */
bool worker_remove(worker *w, task *t);

/* The tasks that were done since the last call, oldest first, linked by `next`; NULL: none. */
task *worker_take(worker *w);

/* No task may wait any more. Waits for the one in hand, and returns what worker_take would. */
task *worker_close(worker *w);

#endif
