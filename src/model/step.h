/* One step of the engine, as flat arrays. Decode is a row with count 1: there are no modes. */
#ifndef NVLLM_MODEL_STEP_H
#define NVLLM_MODEL_STEP_H

#include "ops/draw.h"

#include <stdint.h>

typedef struct {
    int32_t T, R, N, P;
    int32_t max_len;       /* set by the runner: a bound of kv_len, of which there are few different ones */
    bool greedy;           /* set by the runner: draws_are_greedy */
    const int32_t *tokens; /* [T]; -1-i: the token that draw i of the step before gave */
    const int32_t *pos;    /* [T] position in its sequence */
    const int32_t *slot;   /* [T] page*S + offset where the token's K and V go */
    const int32_t *row_start; /* [R+1] */
    const int32_t *kv_len;    /* [R] the row's tokens, this step included */
    const int32_t *pages;     /* [R, P] page table */
    const int32_t *logit_row; /* [N] tokens that want logits, ascending */
    int32_t n_draws;
    draw_order *draws; /* [n_draws]; the runner sets result and epoch. They name ranges of: */
    const sample_count *counts;
    const sample_bias *bias;
    const int32_t *banned;
    int32_t n_counts, n_bias, n_banned;
} batch;

#endif
