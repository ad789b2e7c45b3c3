/* Runs a model's op list on a backend, step by step: tokens in; drawn tokens, or logits, out.
 *
 * Owns the activation buffers and the KV pools. A step allocates nothing. Layout of the KV cache: per layer one pool
 * for K and one for V, each [pages, K heads, S slots, C] (HND), so one head's part of a page is contiguous. */
#ifndef NVLLM_MODEL_RUNNER_H
#define NVLLM_MODEL_RUNNER_H

#include "backend/backend.h"
#include "model/fusion.h"
#include "model/model.h"
#include "model/step.h"

typedef struct {
    int32_t max_tokens; /* T */
    int32_t max_rows;   /* R */
    int32_t max_logits; /* N */
    int32_t max_context;
    int32_t pages, page_slots;
    dtype kv_type;
    fusion_mode fusion;
} runner_options;

typedef struct runner runner;

/* The model and the backend are borrowed until runner_close. */
nvllm_status runner_open(runner **out, const model *m, backend *b, const runner_options *options,
                         nvllm_error *err);
void runner_close(runner *r);

/* Starts a step. On a device of its own it runs while the caller goes on; one more step may be started before the draws
 * of the first are asked for, and its tokens may name them (-1-i). Fails only where the device does, as do the next two. */
nvllm_status runner_launch(runner *r, const batch *step, nvllm_error *err);
bool runner_is_async(const runner *r); /* is it worth starting a step ahead? */

/* The draws of the oldest step whose draws have not been asked for; waits for them. [n_draws], valid until the step after
 * the next is started. */
nvllm_status runner_draws(runner *r, const draw_result **out, nvllm_error *err);

/* The logits of the step started last: [N, V], after the draws' penalties; valid (and the caller's to change) until the
 * next step. Waits for it. */
nvllm_status runner_logits(runner *r, float **logits, nvllm_error *err);

/* runner_launch and runner_logits of a step without draws. */
nvllm_status runner_step(runner *r, const batch *step, float **logits, nvllm_error *err);

/* Called before the first op of every step with op_index -1, and after every op (NULL: off): profiles and
 * layer-by-layer comparisons. T, R and N of `step` are the host's; its arrays are the backend's. */
typedef void (*runner_hook)(void *context, const runner *r, int32_t op_index, const batch *step);
void runner_set_hook(runner *r, runner_hook hook, void *context);

const graph *runner_graph(const runner *r); /* the op list that runs: fused where the backend has fused ops */
const fusion_report *runner_fusion(const runner *r);
int32_t runner_width(const runner *r, graph_buffer buffer); /* columns */
/* The first `rows` rows of an activation buffer, as they are now, on any backend. */
nvllm_status runner_read(const runner *r, graph_buffer buffer, int32_t rows, float *out, nvllm_error *err);
size_t runner_kv_bytes(const runner *r);
size_t runner_workspace_bytes(const runner *r);

#endif
