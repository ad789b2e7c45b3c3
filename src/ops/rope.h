/* Rotary position embedding: arXiv:2104.09864
 *     table:  angle[t, i] = (float)pos[t] * inv_freq[i];  cos[t, i] = scale*cos(angle), sin likewise
 *     halves: (x[i], x[i + C/2]) rotated by angle[i]      (Llama, Qwen, Mistral in HF layout)
 *     pairs:  (x[2i], x[2i + 1]) rotated by angle[i]      (ERNIE 4.5; GGUF files of llama)
 * The product pos*inv_freq is rounded to float32 as in the reference implementation; cos and sin of that value
 * are correctly rounded (computed in double). In place. */
#ifndef NVLLM_OPS_ROPE_H
#define NVLLM_OPS_ROPE_H

#include "ops/op.h"

typedef enum { ROPE_HALVES, ROPE_PAIRS } rope_pairing;

typedef struct {
    float *cos, *sin;      /* [T, C/2] */
    const float *inv_freq; /* [C/2] */
    const int32_t *pos;    /* [T] */
    int32_t T, C;
    float scale; /* YaRN's attention factor; 1 otherwise */
} op_rope_table_args;

typedef struct {
    float *x;       /* token t, head h at x + t*stride + h*C; changed in place */
    int32_t stride; /* elements between tokens */
    int32_t T, heads, C;
    const float *cos, *sin; /* [T, C/2] */
    rope_pairing pairing;
} op_rope_args;

void op_rope_table_ref(const op_rope_table_args *a);
void op_rope_table_cpu(const op_rope_table_args *a, const cpu_context *cpu);
void op_rope_ref(const op_rope_args *a);
void op_rope_cpu(const op_rope_args *a, const cpu_context *cpu);

#endif
