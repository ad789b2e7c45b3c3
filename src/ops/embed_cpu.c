/* Embedding lookup on the CPU: the reference, spread over threads by tokens.
 * One row is a few KB from a random place of the table, so the cost is the cache misses, not the widening:
 * no kernel of its own per instruction set. */
#include "ops/embed.h"

#define GRAIN_ELEMENTS 32768 /* below this much work a join costs more than it saves */

static void embed_tokens(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    op_embed_args part = *(const op_embed_args *)arg;
    part.out += begin * part.table->cols;
    part.tokens += begin;
    part.T = (int32_t)(end - begin);
    op_embed_ref(&part);
}

void op_embed_cpu(const op_embed_args *a, const cpu_context *cpu)
{
    op_embed_args args = *a;
    thread_pool_run(cpu->pool, a->T, GRAIN_ELEMENTS / a->table->cols + 1, embed_tokens, &args);
}
