/* Choosing candidates from one row of logits; used by sample.c only.
 *
 * Every filter keeps a prefix of the same order: larger logit first, lower id first among equals. So a filter is
 * a threshold logit and a number of ties taken at it, found by radix selection (11 + 11 + 10 bits of the logit's
 * bits as an ordered integer): O(V), no sort. Candidates stay in the order of their ids. */
#ifndef NVLLM_OPS_SAMPLE_SELECT_H
#define NVLLM_OPS_SAMPLE_SELECT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t *id;
    float *x; /* logits */
    float *w; /* exp((x - largest) / temperature) */
    int32_t n;
    double *mass;   /* [2048] histogram */
    int32_t *count; /* [2048] histogram */
} candidates;

candidates select_open(void *scratch, int32_t V);
size_t select_scratch(int32_t V);

/* The lowest id with the largest logit; NaN counts as -infinity. 0 when there is no larger logit than that. */
int32_t select_argmax(const float *logits, int32_t V);

/* Sum in double, in eight lanes: the same for the same numbers, whatever machine. */
double select_sum(const float *w, int32_t n);

/* sum of exp(logits - max); NaN counts as -infinity. */
double select_mass(const float *logits, int32_t V, float max);

/* All ids with logit >= floor and > -infinity. */
void select_above(candidates *c, const float *logits, int32_t V, float floor);
void select_top_k(candidates *c, int32_t k);                      /* 0 < k < n */
void select_weights(candidates *c, float max, float temperature); /* fills w */
void select_top_p(candidates *c,
                  double p); /* the smallest prefix whose w reach p * (sum of w); never empty */

#endif
