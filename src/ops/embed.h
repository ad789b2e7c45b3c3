/* Embedding lookup: out[t, d] = table[token[t], d], widened to float32. No scaling (Qwen3 and Llama have none).
 * Source: the `embed_tokens` row gather of every decoder family. Memory: reads and writes T*D elements. */
#ifndef NVLLM_OPS_EMBED_H
#define NVLLM_OPS_EMBED_H

#include "ops/op.h"
#include "ops/weight.h"

typedef struct {
    float *out;            /* [T, D], stride D */
    const weight *table;   /* [V, D] */
    const int32_t *tokens; /* [T], each in [0, V), or -1-i for drawn[i]: the engine's invariant */
    const int32_t *drawn;  /* tokens of the step before (draw.h), or NULL: none is asked for */
    int32_t T;
} op_embed_args;

void op_embed_ref(const op_embed_args *a);
void op_embed_cpu(const op_embed_args *a, const cpu_context *cpu);

#endif
