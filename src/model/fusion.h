/* Fusion: rewrites an op list so that neighbours run as one op where the backend has that op.
 *
 *     [gather] rmsnorm linear [silu_mul]             -> norm_linear
 *     [q norm, k norm] rope kv_write attention       -> rope_attention
 *
 * A group is fused only if nothing else reads what lies between its ops, and if the backend's can_fuse takes its
 * weights; otherwise its single ops stay, and `refused` counts it. The results differ by the order of float32 sums. */
#ifndef NVLLM_MODEL_FUSION_H
#define NVLLM_MODEL_FUSION_H

#include "backend/backend.h"
#include "model/graph.h"

typedef struct {
    int32_t fused, refused; /* groups */
    char reason[96];        /* of the first refusal; empty: none */
} fusion_report;

/* *out: a list of its own (graph_free), equal to `from` where the backend has no fused ops. */
nvllm_status graph_fuse(graph *out, const graph *from, const weights *w, const backend_type *type,
                        fusion_report *report, nvllm_error *err);

#endif
