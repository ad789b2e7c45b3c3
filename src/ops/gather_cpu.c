/* Picks rows on the CPU: memcpy per row, spread over threads by rows when there are many. */
#include "ops/gather.h"

#include <string.h>

#define GRAIN_ELEMENTS 65536 /* below this much work a join costs more than it saves */

static void gather_rows(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const op_gather_args *a = arg;
    size_t D = (size_t)a->D;
    for (int64_t n = begin; n < end; n++)
        memcpy(a->out + (size_t)n * D, a->in + (size_t)a->row[n] * D, D * sizeof(float));
}

void op_gather_cpu(const op_gather_args *a, const cpu_context *cpu)
{
    op_gather_args args = *a;
    thread_pool_run(cpu->pool, a->N, GRAIN_ELEMENTS / a->D + 1, gather_rows, &args);
}
