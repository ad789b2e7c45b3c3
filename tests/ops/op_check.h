/* What the op tests share: seeded numbers, a CPU context per instruction set, comparison with a tolerance. */
#ifndef NVLLM_TEST_OP_CHECK_H
#define NVLLM_TEST_OP_CHECK_H

#include "support/test.h"
#include "ops/op.h"

#include <math.h>
#include <stdbool.h>
#include <time.h>

/* splitmix64 */
static inline uint64_t check_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Uniform in [-range, range). */
static inline float check_uniform(uint64_t *state, float range)
{
    return range * (float)((double)(int64_t)check_random(state) * 0x1p-63);
}

static inline void check_fill(float *x, size_t n, float range, uint64_t *state)
{
    for (size_t i = 0; i < n; i++) x[i] = check_uniform(state, range);
}

static inline void *check_alloc(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    assert_non_null(p);
    return p;
}

static inline cpu_context check_open(cpu_isa isa, int threads, size_t scratch)
{
    cpu_context cpu = {.isa = isa, .scratch_bytes = scratch, .scratch = check_alloc(scratch)};
    assert_int_equal(thread_pool_open(&cpu.pool, threads, NULL), NVLLM_OK);
    return cpu;
}

static inline void check_close(cpu_context *cpu)
{
    thread_pool_close(cpu->pool);
    free(cpu->scratch);
}

/* |got - want| <= absolute + relative * |want| for every element; NaN fails. */
static inline void check_near(const float *got, const float *want, size_t n, double relative, double absolute,
                              const char *what)
{
    for (size_t i = 0; i < n; i++) {
        double gap = fabs((double)got[i] - (double)want[i]);
        if (gap <= absolute + relative * fabs((double)want[i])) continue;
        fail_msg("%s: element %zu is %.9g, expected %.9g", what, i, (double)got[i], (double)want[i]);
    }
}

static inline double check_seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
