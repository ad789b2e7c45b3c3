/* What this machine can do at best, measured: the limits that `bench` states its results against.
 *
 * Each takes about 0.3 s and uses all threads of the pool, in loops that do nothing else: no product of matrices
 * can read its weights faster, or multiply faster. Best of many short runs, since neighbours only make one slower. */
#ifndef NVLLM_OPS_PROBE_H
#define NVLLM_OPS_PROBE_H

#include "ops/op.h"

/* Bytes per second read from memory, over a block of 256 MB that it allocates for the time; 0: no memory. */
double probe_memory_bandwidth(thread_pool *pool);

/* Operations per second (a multiply and an add are two) of the instructions with which op_linear_cpu multiplies
 * bf16 on this instruction set, all operands in registers. */
double probe_bf16_flops(thread_pool *pool, cpu_isa isa);

#endif
