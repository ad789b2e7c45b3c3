/* The spinning thread pool; see thread_pool.h.
 *
 * One 64-bit word, `state`, publishes a loop: the loop's number in the high half, the chunks not yet taken in the
 * low half. A chunk is taken by a compare-and-swap that lowers the count, so a worker that wakes late, with an old
 * word in its hands, fails the swap and touches nothing. The plain fields task, arg, items, chunk are read only
 * after a successful swap: the caller cannot return, hence not overwrite them, before that chunk is counted in
 * `done`. The caller therefore waits for chunks, never for workers: one that is descheduled between two chunks
 * holds nobody up.
 *
 * Waiting: pause instructions first, then sched_yield between them (the core may be shared), then, for workers
 * only, a condition variable. */
#define _GNU_SOURCE
#include "base/thread_pool.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CACHE_LINE = 64,
    CHUNKS_PER_THREAD = 32,  /* the last ones may find the others idle: 1/64 of the loop, on average */
    SPINS_PER_CHECK = 128,   /* pauses between two looks at the clock */
    YIELD_AFTER_NS = 30000,  /* spin alone this long, then offer the core to others */
    SLEEP_AFTER_NS = 1500000 /* a worker without work this long sleeps */
};

typedef struct {
    thread_pool *pool;
    pthread_t thread;
    int index;
} pool_worker;

struct thread_pool {
    _Alignas(CACHE_LINE) _Atomic uint64_t state; /* loop number << 32 | chunks not yet taken */
    _Alignas(CACHE_LINE) _Atomic int64_t done;   /* chunks finished */
    _Alignas(CACHE_LINE) _Atomic int sleepers;   /* workers inside or about to enter the wait on `wake` */
    _Atomic bool stop;
    int64_t items, chunk, chunks;
    thread_pool_task task;
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int threads, started; /* started: workers that really run */
    pool_worker *workers;
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Takes and does one chunk; false when none is left. */
static bool do_chunk(thread_pool *p, int worker)
{
    uint64_t state = atomic_load_explicit(&p->state, memory_order_acquire);
    do {
        if ((uint32_t)state == 0) return false;
    } while (!atomic_compare_exchange_weak_explicit(&p->state, &state, state - 1, memory_order_acquire,
                                                    memory_order_acquire));
    int64_t begin = (p->chunks - (int64_t)(uint32_t)state) * p->chunk, end = begin + p->chunk;
    p->task(p->arg, begin, end < p->items ? end : p->items, worker);
    atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
    return true;
}

static bool has_work(thread_pool *p)
{
    return (uint32_t)atomic_load(&p->state) != 0 || atomic_load(&p->stop);
}

static void sleep_until_work(thread_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers,
                     1); /* before the look at state: the caller writes state, then reads this */
    while (!has_work(p)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void wait_for_work(thread_pool *p)
{
    int64_t start = 0;
    for (;;) {
        for (int i = 0; i < SPINS_PER_CHECK; i++) {
            if (has_work(p)) return;
            spin_pause();
        }
        int64_t now = now_ns();
        if (!start) start = now;
        if (now - start > SLEEP_AFTER_NS) break;
        if (now - start > YIELD_AFTER_NS) sched_yield();
    }
    sleep_until_work(p);
}

static void *worker_main(void *arg)
{
    pool_worker *w = arg;
    while (!atomic_load_explicit(&w->pool->stop, memory_order_acquire))
        if (!do_chunk(w->pool, w->index)) wait_for_work(w->pool);
    return NULL;
}

nvllm_status thread_pool_open(thread_pool **out, int threads, nvllm_error *err)
{
    assert(threads >= 1);
    *out = NULL;
    thread_pool *p = aligned_alloc(CACHE_LINE, sizeof *p);
    if (!p) return error_memory(err, sizeof *p, "the thread pool");
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->threads = threads;
    p->workers = calloc((size_t)threads, sizeof *p->workers);
    if (!p->workers) {
        thread_pool_close(p);
        return error_memory(err, (size_t)threads * sizeof(pool_worker), "the thread pool");
    }
    for (int i = 1; i < threads; i++) {
        pool_worker *w = &p->workers[p->started];
        *w = (pool_worker){.pool = p, .index = i};
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc != 0) {
            thread_pool_close(p);
            return error_set(err, NVLLM_ERR_MEMORY, "thread pool: cannot start thread %d of %d: %s", i + 1,
                             threads, strerror(rc));
        }
        p->started++;
    }
    *out = p;
    return NVLLM_OK;
}

static void wake_sleepers(thread_pool *p)
{
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void thread_pool_close(thread_pool *p)
{
    if (!p) return;
    atomic_store(&p->stop, true);
    wake_sleepers(p);
    for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int thread_pool_threads(const thread_pool *pool)
{
    return pool->threads;
}

static void wait_for_chunks(thread_pool *p)
{
    int64_t start = 0;
    for (;;) {
        for (int i = 0; i < SPINS_PER_CHECK; i++) {
            if (atomic_load_explicit(&p->done, memory_order_acquire) == p->chunks) return;
            spin_pause();
        }
        int64_t now = now_ns();
        if (!start) start = now;
        if (now - start > YIELD_AFTER_NS) sched_yield();
    }
}

void thread_pool_run(thread_pool *p, int64_t items, int64_t grain, thread_pool_task task, void *arg)
{
    if (items <= 0) return;
    if (items <= grain || p->threads == 1) {
        task(arg, 0, items, 0);
        return;
    }
    int64_t most = (int64_t)p->threads * CHUNKS_PER_THREAD, fair = items / most + (items % most != 0);
    p->chunk = grain > fair ? grain : fair;
    p->chunks = items / p->chunk + (items % p->chunk != 0);
    p->items = items;
    p->task = task;
    p->arg = arg;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t loop = (atomic_load_explicit(&p->state, memory_order_relaxed) >> 32) + 1;
    atomic_store(&p->state, loop << 32 | (uint64_t)p->chunks);
    if (atomic_load(&p->sleepers) > 0) wake_sleepers(p);
    while (do_chunk(p, 0)) continue;
    wait_for_chunks(p);
}
