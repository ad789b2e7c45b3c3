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

typedef enum {
    FUSION_FULL, /* whatever the backend has */
    FUSION_OPS,  /* fused ops, but a kernel for each */
    FUSION_OFF   /* single ops, also where the backend has fused ones */
} fusion_mode;

typedef struct {
    int32_t fused, refused; /* groups */
    char reason[96];        /* of the first refusal; empty: none */
    int32_t chained;        /* ops of a step of one token that run as one kernel; set by the runner, as is: */
    char no_chain[BACKEND_CLAUSE]; /* why none do, a clause; empty: the backend has no chains */
} fusion_report;

/* *out: a list of its own (graph_free), equal to `from` where the backend has no fused ops. */
nvllm_status graph_fuse(graph *out, const graph *from, const weights *w, const backend_type *type,
                        fusion_report *report, nvllm_error *err);

#endif
