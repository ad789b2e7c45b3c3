/* Plans the rows of a step under a token budget. Decode is a row with count 1: there are no modes.
 *
 * Sequences that only wait for their next token come first, one token each, so that a long prompt never holds
 * them up by more than one step; what is left of the budget goes to prompts, in the order of `running`: by
 * priority, then by admission. */
#ifndef NVLLM_ENGINE_SCHEDULER_H
#define NVLLM_ENGINE_SCHEDULER_H

#include "engine/step_batch.h"

typedef struct {
    int32_t step_tokens, row_tokens, max_logits;
} step_budget;

/* rows: [n_running]; returns how many rows the step has. */
int32_t scheduler_plan(step_row *rows, sequence *const *running, int32_t n_running,
                       const step_budget *budget);

#endif
