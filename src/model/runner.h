/* Runs a model's op list on a backend, one step at a time: tokens in, logits out.
 *
 * Owns the activation buffers and the KV pools. A step allocates nothing. Layout of the KV cache: per layer one pool
 * for K and one for V, each [pages, K heads, S slots, C] (HND), so one head's part of a page is contiguous. */
#ifndef NVLLM_MODEL_RUNNER_H
#define NVLLM_MODEL_RUNNER_H

#include "backend/backend.h"
#include "model/model.h"

/* The step, as flat arrays. Decode is a row with count 1: there are no modes. */
typedef struct {
    int32_t T, R, N, P;
    const int32_t *tokens;    /* [T] */
    const int32_t *pos;       /* [T] position in its sequence */
    const int32_t *slot;      /* [T] page*S + offset where the token's K and V go */
    const int32_t *row_start; /* [R+1] */
    const int32_t *kv_len;    /* [R] the row's tokens, this step included */
    const int32_t *pages;     /* [R, P] page table */
    const int32_t *logit_row; /* [N] tokens that want logits, ascending */
} batch;

typedef struct {
    int32_t max_tokens; /* T */
    int32_t max_logits; /* N */
    int32_t max_context;
    int32_t pages, page_slots;
    dtype kv_type;
} runner_options;

typedef struct runner runner;

/* The model and the backend are borrowed until runner_close. */
nvllm_status runner_open(runner **out, const model *m, backend *b, const runner_options *options, nvllm_error *err);
void runner_close(runner *r);

/* Returns the logits [N, V], valid (and the caller's to change) until the next step. */
float *runner_step(runner *r, const batch *step);

/* Called after every op of every step (NULL: off): profiles and layer-by-layer comparisons. */
typedef void (*runner_hook)(void *context, const runner *r, int32_t op_index, const batch *step);
void runner_set_hook(runner *r, runner_hook hook, void *context);

const float *runner_buffer(const runner *r, graph_buffer buffer, int32_t *stride);
size_t runner_kv_bytes(const runner *r);
size_t runner_workspace_bytes(const runner *r);

#endif
