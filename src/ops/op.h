/* The kinds of op that a forward pass is made of, and what the CPU kernels share.
 *
 * One home per op: src/ops/<op>.h holds its args struct and formula, <op>.c the plain reference (the oracle),
 * <op>_cpu.c the fast CPU kernels, <op>.cu the CUDA ones; tests/ops/test_<op>.c compares them.
 * Reference:  void op_<name>_ref(const op_<name>_args *a);
 * CPU:        void op_<name>_cpu(const op_<name>_args *a, const cpu_context *cpu);
 * Outputs never alias inputs unless the op's header says so. All activations are float32, row-major, with a
 * stride in elements between tokens. Letters: T tokens in the step, R rows (sequences), D model dim, H query
 * heads, K kv heads, C head dim, F feed-forward dim, V vocabulary, P pages per row, S slots per page. */
#ifndef NVLLM_OPS_OP_H
#define NVLLM_OPS_OP_H

#include "base/thread_pool.h"

#include <stddef.h>
#include <stdint.h>

/* From OP_FIRST_FUSED on: fused ops, which a backend may lack (model/fusion.h). */
typedef enum {
    OP_EMBED,      /* out[t] = table[token[t]] */
    OP_ROPE_TABLE, /* cos, sin of every token's position, once per step */
    OP_RMSNORM,    /* also per head (q/k norm) */
    OP_LINEAR,     /* 1-3 matrices on one input; optional bias; optional accumulate into the output */
    OP_ROPE,
    OP_KV_WRITE,
    OP_ATTENTION,
    OP_SILU_MUL,
    OP_GATHER, /* the tokens that want logits */
    OP_DRAW,   /* the next token of each row that wants one */
    OP_FIRST_FUSED,
    OP_NORM_LINEAR = OP_FIRST_FUSED, /* gather, rmsnorm, linear, silu_mul */
    OP_ROPE_ATTENTION,               /* q/k norm, rope, kv_write, attention */
    OP_COUNT
} op_kind;

const char *op_name(op_kind kind); /* "embed", "rope_table", ... */

/* Instruction sets of the CPU kernels, best last. */
typedef enum { ISA_SCALAR, ISA_AVX2, ISA_AVX512, ISA_COUNT } cpu_isa;

cpu_isa cpu_isa_detect(void); /* the best that this CPU runs; ISA_AVX512 means F, BW, VL, VNNI and BF16 */
const char *cpu_isa_name(cpu_isa isa); /* "scalar", "avx2", "avx512" */
int cpu_isa_parse(const char *name);   /* -1: unknown name */

/* What every CPU kernel gets: the threads, the instruction set, and one scratch block that ops may overwrite.
 * Results never depend on the number of threads, on how tokens are grouped into steps, or on other rows. */
typedef struct {
    thread_pool *pool;
    cpu_isa isa;
    void *scratch; /* 64-byte aligned */
    size_t scratch_bytes;
} cpu_context;

#endif
