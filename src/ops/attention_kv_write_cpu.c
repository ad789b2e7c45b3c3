/* The write of K and V into their pages on the CPU: narrowing to the pool's format, spread over threads by tokens. */
#include "ops/attention.h"
#include "ops/attention_kernels.h"

#include <string.h>

#define GRAIN_ELEMENTS 32768 /* below this much work a join costs more than it saves */

static const attention_kernels *const kernels[ISA_COUNT] = {
    &attention_kernels_scalar, &attention_kernels_avx2, &attention_kernels_avx512};

typedef struct {
    const op_kv_write_args *args;
    const attention_kernels *kernels;
} write_job;

static void write_head(const write_job *job, void *pool, int64_t first, const float *x)
{
    const kv_layer *kv = &job->args->kv;
    if (kv->format == DTYPE_F32)
        memcpy((float *)pool + first, x, (size_t)kv->C * sizeof *x);
    else
        job->kernels->narrow((uint16_t *)pool + first, x, kv->C, kv->format);
}

static void write_tokens(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const write_job *job = arg;
    const op_kv_write_args *a = job->args;
    const kv_layer *kv = &a->kv;
    for (int64_t t = begin; t < end; t++)
        for (int64_t k = 0; k < kv->K; k++) {
            int64_t from = t * a->stride + k * kv->C;
            int64_t to = ((a->slot[t] / kv->S * (int64_t)kv->K + k) * kv->S + a->slot[t] % kv->S) * kv->C;
            write_head(job, kv->k_pool, to, a->k + from);
            write_head(job, kv->v_pool, to, a->v + from);
        }
}

void op_kv_write_cpu(const op_kv_write_args *a, const cpu_context *cpu)
{
    write_job job = {a, kernels[cpu->isa]};
    thread_pool_run(cpu->pool, a->T, GRAIN_ELEMENTS / (2 * a->kv.K * a->kv.C) + 1, write_tokens, &job);
}
