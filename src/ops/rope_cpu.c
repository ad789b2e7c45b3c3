/* Rotary position embedding on the CPU.
 *
 * Every element is two products and a sum, each rounded to float32, so the result is the same on every instruction
 * set; the kernels are one loop that the compiler vectorises for three targets. The table (cos and sin in double)
 * is made once per step and used by all layers, so it is only spread over threads. */
#include "ops/rope.h"

#define GRAIN_PAIRS  8192 /* rotations below which a join costs more than it saves */
#define GRAIN_ANGLES 256  /* the same for a double sine and cosine, ~40 ns */

static void table_tokens(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    op_rope_table_args part = *(const op_rope_table_args *)arg;
    part.cos += begin * (part.C / 2);
    part.sin += begin * (part.C / 2);
    part.pos += begin;
    part.T = (int32_t)(end - begin);
    op_rope_table_ref(&part);
}

void op_rope_table_cpu(const op_rope_table_args *a, const cpu_context *cpu)
{
    op_rope_table_args args = *a;
    thread_pool_run(cpu->pool, a->T, GRAIN_ANGLES / (a->C / 2) + 1, table_tokens, &args);
}

typedef void rotate_fn(float *x, const float *cos, const float *sin, int32_t half);

static inline __attribute__((always_inline)) void rotate_halves(float *restrict x, const float *restrict cos,
                                                                const float *restrict sin, int32_t half)
{
    float *restrict y = x + half;
    for (int32_t i = 0; i < half; i++) {
        float u = x[i], v = y[i];
        x[i] = u * cos[i] - v * sin[i];
        y[i] = v * cos[i] + u * sin[i];
    }
}

static inline __attribute__((always_inline)) void rotate_pairs(float *restrict x, const float *restrict cos,
                                                               const float *restrict sin, int32_t half)
{
    for (int32_t i = 0; i < half; i++) {
        float u = x[2 * i], v = x[2 * i + 1];
        x[2 * i] = u * cos[i] - v * sin[i];
        x[2 * i + 1] = v * cos[i] + u * sin[i];
    }
}

static void halves_scalar(float *x, const float *cos, const float *sin, int32_t half)
{
    rotate_halves(x, cos, sin, half);
}

static void pairs_scalar(float *x, const float *cos, const float *sin, int32_t half)
{
    rotate_pairs(x, cos, sin, half);
}

__attribute__((target("avx2"))) static void halves_avx2(float *x, const float *cos, const float *sin,
                                                        int32_t half)
{
    rotate_halves(x, cos, sin, half);
}

__attribute__((target("avx2"))) static void pairs_avx2(float *x, const float *cos, const float *sin,
                                                       int32_t half)
{
    rotate_pairs(x, cos, sin, half);
}

__attribute__((target("avx512f,avx512vl"))) static void halves_avx512(float *x, const float *cos,
                                                                      const float *sin, int32_t half)
{
    rotate_halves(x, cos, sin, half);
}

__attribute__((target("avx512f,avx512vl"))) static void pairs_avx512(float *x, const float *cos,
                                                                     const float *sin, int32_t half)
{
    rotate_pairs(x, cos, sin, half);
}

static rotate_fn *const kernels[2][ISA_COUNT] = {
    [ROPE_HALVES] = {halves_scalar, halves_avx2, halves_avx512},
    [ROPE_PAIRS] = {pairs_scalar, pairs_avx2, pairs_avx512},
};

typedef struct {
    const op_rope_args *args;
    rotate_fn *rotate;
} rope_job;

static void rope_tokens(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const rope_job *job = arg;
    const op_rope_args *a = job->args;
    int32_t half = a->C / 2;
    for (int64_t t = begin; t < end; t++)
        for (int32_t h = 0; h < a->heads; h++)
            job->rotate(a->x + t * a->stride + (int64_t)h * a->C, a->cos + t * half, a->sin + t * half, half);
}

void op_rope_cpu(const op_rope_args *a, const cpu_context *cpu)
{
    rope_job job = {a, kernels[a->pairing][cpu->isa]};
    int64_t pairs = (int64_t)a->heads * (a->C / 2);
    thread_pool_run(cpu->pool, a->T, GRAIN_PAIRS / pairs + 1, rope_tokens, &job);
}
