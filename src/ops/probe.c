/* The probes; see probe.h. */
#define _GNU_SOURCE
#include "ops/probe.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PAGE = 4096,
    BLOCK_PAGES = 65536, /* 256 MB, far more than any cache */
    WINDOW_PAGES = 8192, /* read and timed at once: short enough to fit between two interruptions */
    GRAIN_PAGES = 64,
    PROBE_MS = 250,
    MULTIPLY_STEPS = 100000, /* per run: some 0.3 ms */
    MULTIPLY_RUNS =
        4,      /* per thread in one loop, so that a late thread is visible in the time, not in the sum */
    CHAINS = 12 /* independent accumulators: more than latency times throughput of any unit */
};

typedef uint64_t line __attribute__((vector_size(64)));

typedef struct {
    uint8_t *block, *window;
    size_t prefetch;       /* bytes ahead */
    _Atomic uint64_t sink; /* keeps the compiler from dropping the loop */
} read_job;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Written, since pages that never were all share one page of zeros. */
static void fill_pages(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    read_job *job = arg;
    memset(job->block + begin * PAGE, 1, (size_t)(end - begin) * PAGE);
}

static void read_pages(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    read_job *job = arg;
    const uint8_t *p = job->window + begin * PAGE, *stop = job->window + end * PAGE;
    line a = {0}, b = {0};
    for (; p < stop; p += 2 * sizeof(line)) {
        if (job->prefetch) {
            __builtin_prefetch(p + job->prefetch);
            __builtin_prefetch(p + job->prefetch + sizeof(line));
        }
        a ^= *(const line *)p;
        b ^= *(const line *)(p + sizeof(line));
    }
    a ^= b;
    job->sink = a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}

double probe_memory_bandwidth(thread_pool *pool)
{
    static const size_t prefetch[] = {0, 4096, 8192};
    read_job job = {.block = aligned_alloc(PAGE, (size_t)BLOCK_PAGES * PAGE)};
    if (!job.block) return 0.0;
    thread_pool_run(pool, BLOCK_PAGES, GRAIN_PAGES, fill_pages, &job);
    double best = 0.0, start = seconds();
    for (int i = 0; i < 6 || seconds() - start < PROBE_MS * 1e-3; i++) {
        job.prefetch = prefetch[i % 3];
        job.window = job.block + (size_t)(i % (BLOCK_PAGES / WINDOW_PAGES)) * WINDOW_PAGES * PAGE;
        double t = seconds();
        thread_pool_run(pool, WINDOW_PAGES, GRAIN_PAGES, read_pages, &job);
        double rate = (double)WINDOW_PAGES * PAGE / (seconds() - t);
        if (rate > best) best = rate;
    }
    free(job.block);
    return best;
}

/* ---- multiply and add ---- */

static volatile const float one = 1.0f; /* the compiler must not know */

static float multiply_scalar(void)
{
    typedef float float4 __attribute__((vector_size(16)));
    float4 x = {one, one, one, one}, w = x, acc[CHAINS];
    for (int i = 0; i < CHAINS; i++) acc[i] = x;
    for (int s = 0; s < MULTIPLY_STEPS; s++)
        for (int i = 0; i < CHAINS; i++) {
            __asm__("" : "+x"(x)); /* a new product each time, as far as the compiler knows */
            acc[i] += x * w;
        }
    for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];
    return acc[0][0];
}

__attribute__((target("avx2,fma"))) static float multiply_avx2(void)
{
    __m256 x = _mm256_set1_ps(one), acc[CHAINS];
    for (int i = 0; i < CHAINS; i++) acc[i] = x;
    for (int s = 0; s < MULTIPLY_STEPS; s++)
        for (int i = 0; i < CHAINS; i++) acc[i] = _mm256_fmadd_ps(x, x, acc[i]);
    for (int i = 1; i < CHAINS; i++) acc[0] = _mm256_add_ps(acc[0], acc[i]);
    return _mm256_cvtss_f32(acc[0]);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static float multiply_avx512(void)
{
    __m512 start = _mm512_set1_ps(one), acc[CHAINS];
    __m512bh x = _mm512_cvtne2ps_pbh(start, start);
    for (int i = 0; i < CHAINS; i++) acc[i] = start;
    for (int s = 0; s < MULTIPLY_STEPS; s++)
        for (int i = 0; i < CHAINS; i++) acc[i] = _mm512_dpbf16_ps(acc[i], x, x);
    for (int i = 1; i < CHAINS; i++) acc[0] = _mm512_add_ps(acc[0], acc[i]);
    return _mm512_cvtss_f32(acc[0]);
}

static const struct {
    float (*run)(void);
    int products; /* per instruction or pair of them */
} multipliers[ISA_COUNT] = {[ISA_SCALAR] = {multiply_scalar, 4},
                            [ISA_AVX2] = {multiply_avx2, 8},
                            [ISA_AVX512] = {multiply_avx512, 32}};

typedef struct {
    cpu_isa isa;
    _Atomic float sink;
} multiply_job;

static void multiply(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    multiply_job *job = arg;
    for (int64_t i = begin; i < end; i++) job->sink = multipliers[job->isa].run();
}

double probe_bf16_flops(thread_pool *pool, cpu_isa isa)
{
    multiply_job job = {.isa = isa};
    int64_t runs = (int64_t)MULTIPLY_RUNS * thread_pool_threads(pool);
    double work = 2.0 * multipliers[isa].products * CHAINS * MULTIPLY_STEPS * (double)runs;
    double best = 0.0, start = seconds();
    while (seconds() - start < PROBE_MS * 1e-3) {
        double t = seconds();
        thread_pool_run(pool, runs, 1, multiply, &job);
        double rate = work / (seconds() - t);
        if (rate > best) best = rate;
    }
    return best;
}
