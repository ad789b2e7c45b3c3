/* The runner's state, shared by its two parts: memory and steps (runner.c), and the args of each op (runner_args.c). */
#ifndef NVLLM_MODEL_RUNNER_STATE_H
#define NVLLM_MODEL_RUNNER_STATE_H

#include "model/placement.h"
#include "model/runner.h"

struct runner {
    const model *model;
    backend *backend;
    runner_options options;
    placement place;
    graph graph;
    fusion_report fusion;
    op_chain *chain;              /* NULL: none */
    op_args *chain_args;          /* [chain->ops] of the step that is being started */
    draw_result *results;         /* [2, max_rows]: of the steps with even and odd numbers */
    int32_t *drawn;               /* [max_rows] */
    void *draw_scratch;           /* of a backend in the host's memory */
    uint32_t launched, collected; /* steps */
    int32_t n_draws[2], n_logits; /* of the even and odd steps; of the last step */
    float *buffer[BUF_COUNT];
    size_t buffer_bytes[BUF_COUNT];
    uint8_t *k_pool, *v_pool; /* [L][pages, K, S, C] */
    size_t layer_bytes;       /* of one layer's K (or V) pool */
    runner_hook hook;
    void *hook_context;
};

/* The op's args for this step, whose arrays are the backend's. */
op_args runner_args(const runner *r, const graph_op *op, const batch *step);

#endif
