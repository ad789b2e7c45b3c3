/* The next token from one row of logits: penalties, temperature, top-k, top-p, min-p, then a seeded draw.
 *
 * Order as in vLLM: logit_bias, then repetition penalty (prompt and output; > 0: divided when positive, multiplied when
 * negative), presence and frequency penalties (output only), then greedy if temperature == 0; else temperature,
 * min-p, top-k, top-p (smallest set whose mass reaches p; ties by lower token id first), and one draw.
 * The random number is a pure function of (seed, step): a sequence's text does not depend on its neighbours.
 * Log-probabilities are log-softmax of the raw logits, before penalties and temperature.
 * NaN logits count as -infinity; token ids outside [0, V) in counts, bias and banned are passed over. Parameters are
 * finite and in the ranges below: the caller has checked them. */
#ifndef NVLLM_OPS_SAMPLE_H
#define NVLLM_OPS_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t token;
    float bias;
} sample_bias;

typedef struct {
    float temperature;                         /* 0: greedy */
    float top_p;                               /* (0, 1]; 1: off */
    float min_p;                               /* [0, 1]; 0: off */
    int32_t top_k;                             /* 0: off */
    float repetition_penalty;                  /* 1: off */
    float presence_penalty, frequency_penalty; /* 0: off */
    uint64_t seed;
} sample_params;

/* Tokens seen by a sequence, for the penalties: one entry per distinct token, kept by the caller. */
typedef struct {
    int32_t token;
    int32_t in_prompt; /* occurrences in the prompt */
    int32_t in_output; /* occurrences in the output */
} sample_count;

typedef struct {
    int32_t token;
    float logprob;
} sample_logprob;

typedef struct {
    float *logits; /* [V]; changed in place by penalties */
    int32_t V;
    const sample_params *params;
    uint64_t step; /* tokens generated so far by this sequence */
    const sample_count *counts;
    int32_t n_counts;
    const sample_bias *bias;
    int32_t n_bias;
    const int32_t *banned; /* tokens that may not be drawn now (min_tokens: the EOS ids) */
    int32_t n_banned;
    void *scratch; /* sample_scratch(V) bytes, 8-byte aligned */
} sample_args;

int32_t sample_token(const sample_args *a);
size_t sample_scratch(int32_t V);

/* log-softmax(logits)[token], and the `n_top` largest in order (ties: lower id first) into top[]. */
float sample_logprobs(const float *logits, int32_t V, int32_t token, sample_logprob *top, int32_t n_top);

#endif
