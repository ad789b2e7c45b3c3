/* A spinning thread pool for hundreds of short parallel loops per token.
 *
 * The caller's thread takes part as worker 0. Workers spin for a short while after a loop (a decode step has
 * hundreds of joins, a futex wake costs 10-50 us, a spin 0.2-1 us) and then sleep, so an idle engine uses no CPU.
 * One loop at a time: thread_pool_run may be called from one thread only, and not from inside a task. */
#ifndef NVLLM_BASE_THREAD_POOL_H
#define NVLLM_BASE_THREAD_POOL_H

#include "base/error.h"

#include <stdint.h>

typedef struct thread_pool thread_pool;

/* Does items [begin, end) of the loop; `worker` is in [0, threads). */
typedef void (*thread_pool_task)(void *arg, int64_t begin, int64_t end, int worker);

/* threads >= 1, the caller's included. */
nvllm_status thread_pool_open(thread_pool **out, int threads, nvllm_error *err);
void thread_pool_close(thread_pool *pool);
int thread_pool_threads(const thread_pool *pool);

/* Splits [0, items) into chunks of at least `grain` items, hands them out dynamically (so that a slow or
 * descheduled core does not hold up the rest), and returns when all are done. Runs inline when
 * items <= grain or threads == 1. */
void thread_pool_run(thread_pool *pool, int64_t items, int64_t grain, thread_pool_task task, void *arg);

int thread_count_default(
    void); /* physical cores this process may use (affinity and cgroup quota respected) */

#endif
