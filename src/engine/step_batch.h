/* The step's flat arrays, built from the planned rows. Memory is taken once, for the largest step. */
#ifndef NVLLM_ENGINE_STEP_BATCH_H
#define NVLLM_ENGINE_STEP_BATCH_H

#include "base/arena.h"
#include "engine/sequence.h"
#include "model/runner.h"

/* A row of the step: `count` tokens of a sequence from its n_computed on, `logits` of them (the last ones) wanted. */
typedef struct {
    sequence *sequence;
    int32_t count, logits;
    /* Set by step_batch_build: */
    int32_t start;       /* tokens computed before */
    int32_t first_logit; /* index of its first row of logits */
    int32_t draw;        /* index of its draw, -1: none */
} step_row;

/* A list that grows; its memory is kept from step to step. */
typedef struct {
    void *data;
    int32_t n, capacity; /* elements */
} step_list;

typedef struct {
    batch batch; /* points into the arrays below */
    int32_t *tokens, *pos, *slot, *row_start, *kv_len, *pages, *logit_row;
    draw_order *draws;
    step_list counts, bias,
        banned; /* sample_count, sample_bias, int32_t: of all draws, one after the other */
    int32_t page_slots;
    arena memory;
} step_batch;

nvllm_status step_batch_open(step_batch *out, int32_t max_tokens, int32_t max_rows, int32_t max_logits,
                             int32_t pages_per_row, int32_t page_slots, nvllm_error *err);
void step_batch_close(step_batch *b);
/* NULL: out of memory for penalties and biases, which are the only lists without a bound. */
const batch *step_batch_build(step_batch *b, step_row *rows, int32_t n_rows, nvllm_error *err);

#endif
