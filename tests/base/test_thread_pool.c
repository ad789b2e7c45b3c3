/* The thread pool: every item exactly once, in chunks of the promised size, with any number of threads. */
#define _GNU_SOURCE
#include "base/thread_pool.h"
#include "support/test.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum { ITEMS_MAX = 5000 };

typedef struct {
    _Atomic int visits[ITEMS_MAX];
    _Atomic int chunks, bad_worker, small_chunks;
    int64_t items, grain;
    int threads;
} count_job;

static void count_visits(void *arg, int64_t begin, int64_t end, int worker)
{
    count_job *job = arg;
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&job->visits[i], 1);
    atomic_fetch_add(&job->chunks, 1);
    if (worker < 0 || worker >= job->threads) atomic_fetch_add(&job->bad_worker, 1);
    if (end - begin < job->grain && end != job->items) atomic_fetch_add(&job->small_chunks, 1);
}

static void check_run(thread_pool *pool, int64_t items, int64_t grain)
{
    static count_job job;
    memset(&job, 0, sizeof job);
    job.items = items;
    job.grain = grain;
    job.threads = thread_pool_threads(pool);
    thread_pool_run(pool, items, grain, count_visits, &job);
    for (int64_t i = 0; i < ITEMS_MAX; i++) assert_int_equal(job.visits[i], i < items ? 1 : 0);
    assert_int_equal(job.bad_worker, 0);
    assert_int_equal(job.small_chunks, 0);
}

static void thread_pool_run_of_any_size_visits_every_item_once(void **state)
{
    (void)state;
    const int threads[] = {1, 2, 3, 9};
    const int64_t sizes[] = {0, 1, 2, 31, 32, 33, 64, 100, 1000, 4999}, grains[] = {1, 3, 64, 10000};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        thread_pool *pool = NULL;
        assert_int_equal(thread_pool_open(&pool, threads[t], NULL), NVLLM_OK);
        assert_int_equal(thread_pool_threads(pool), threads[t]);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) check_run(pool, sizes[s], grains[g]);
        thread_pool_close(pool);
    }
}

static void thread_pool_run_of_at_most_grain_items_stays_on_the_caller(void **state)
{
    (void)state;
    thread_pool *pool = NULL;
    assert_int_equal(thread_pool_open(&pool, 2, NULL), NVLLM_OK);
    static count_job job;
    memset(&job, 0, sizeof job);
    job.threads = 1; /* worker 0 only */
    job.items = 64;
    thread_pool_run(pool, 64, 64, count_visits, &job);
    assert_int_equal(job.bad_worker, 0);
    assert_int_equal(job.chunks, 1);
    thread_pool_close(pool);
}

typedef struct {
    int64_t value[64]; /* plain memory: the pool itself must order the writes */
} plain_job;

static void increment_plain(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    plain_job *job = arg;
    for (int64_t i = begin; i < end; i++) job->value[63 - i] += i + 1;
}

static void thread_pool_run_many_times_orders_memory_between_loops(void **state)
{
    (void)state;
    enum { LOOPS = 20000 };
    thread_pool *pool = NULL;
    assert_int_equal(thread_pool_open(&pool, 3, NULL), NVLLM_OK);
    plain_job job = {{0}};
    for (int i = 0; i < LOOPS; i++) thread_pool_run(pool, 64, 1, increment_plain, &job);
    for (int i = 0; i < 64; i++) assert_int_equal(job.value[63 - i], (int64_t)LOOPS * (i + 1));
    thread_pool_close(pool);
}

static void pause_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void thread_pool_idle_uses_no_cpu_and_wakes_again(void **state)
{
    (void)state;
    thread_pool *pool = NULL;
    assert_int_equal(thread_pool_open(&pool, 4, NULL), NVLLM_OK);
    check_run(pool, 1000, 1);
    pause_ms(100); /* time to fall asleep, also on a busy machine */
    double before = cpu_seconds();
    pause_ms(200);
    assert_true(cpu_seconds() - before < 0.02);
    check_run(pool, 1000, 1);
    for (int i = 0; i < 20; i++) { /* runs that meet workers about to sleep */
        pause_ms(i % 4);
        check_run(pool, 100, 1);
    }
    thread_pool_close(pool);
}

static void thread_pool_close_of_null_does_nothing(void **state)
{
    (void)state;
    thread_pool_close(NULL);
}

static void thread_count_default_with_one_allowed_processor_is_one(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_in_range(thread_count_default(), 1, CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(thread_count_default(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_pool_run_of_any_size_visits_every_item_once),
        cmocka_unit_test(thread_pool_run_of_at_most_grain_items_stays_on_the_caller),
        cmocka_unit_test(thread_pool_run_many_times_orders_memory_between_loops),
        cmocka_unit_test(thread_pool_idle_uses_no_cpu_and_wakes_again),
        cmocka_unit_test(thread_pool_close_of_null_does_nothing),
        cmocka_unit_test(thread_count_default_with_one_allowed_processor_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
