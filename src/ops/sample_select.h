/* Choosing candidates from one row of logits; used by sample.c only.
 *
 * Every filter keeps a prefix of the same order: larger logit first, lower id first among equals. So a filter is
 * a threshold logit and a number of ties taken at it, found by radix selection (11 + 11 + 10 bits of the logit's
 * bits as an ordered integer): O(V), no sort. The largest logit of every block of 256 is found first; blocks below
 * a filter's floor are never looked at again. Candidates stay in the order of their ids. */
#ifndef NVLLM_OPS_SAMPLE_SELECT_H
#define NVLLM_OPS_SAMPLE_SELECT_H

#include "ops/sample.h"

typedef struct {
    const float *logits; /* [V] */
    int32_t V;
    float top; /* the largest logit; NaN counts as -infinity throughout */
    int32_t n; /* candidates */
    int32_t *id;
    float *x;         /* logits */
    float *w;         /* exp((x - top) / temperature) */
    float *block_max; /* [ceil(V / 256)] */
    double *mass;     /* [2048] histogram */
    int32_t *count;   /* [2048] histogram */
} candidates;

size_t select_scratch(int32_t V);

/* What min-p, top-k and top-p leave of logits[V] at p->temperature > 0: at least one candidate. The largest logit must
 * be finite. `scratch` holds select_scratch(V) bytes, 8-byte aligned; the result lives in it. */
candidates select_candidates(void *scratch, const float *logits, int32_t V, const sample_params *p);

/* The lowest id with the largest logit. 0 when none is above -infinity. */
int32_t select_argmax(const float *logits, int32_t V);

/* Sum in double, in eight lanes: the same for the same numbers, whatever machine. */
double select_sum(const float *w, int32_t n);

/* Sum of exp((logits - max) / temperature). */
double select_mass(const float *logits, int32_t V, float max, float temperature);

#endif
