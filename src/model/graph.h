/* The forward pass as data: a flat list of ops, made once from the config.
 *
 * The same list is run by every backend, printed by `inspect graph`, measured op by op and compared layer by layer.
 * An op names activation buffers and columns in them, and weights by role; nothing in it is a pointer, so the list
 * says nothing about where things live. Blocks of all families so far are one block kind, the pre-norm
 * attention + gated feed-forward block; a new kind is a new builder function beside it. */
#ifndef NVLLM_MODEL_GRAPH_H
#define NVLLM_MODEL_GRAPH_H

#include "model/config.h"
#include "model/weights.h"
#include "ops/op.h"

/* Activation buffers, float32, one row per token (the last two: per token that wants logits). */
typedef enum {
    BUF_NONE = -1,
    BUF_X,       /* [T, D] residual stream */
    BUF_NORM,    /* [T, D] */
    BUF_QKV,     /* [T, (H+2K)*C] */
    BUF_ATTN,    /* [T, H*C] */
    BUF_GATE_UP, /* [T, 2F] */
    BUF_COS,     /* [T, C/2] */
    BUF_SIN,     /* [T, C/2] */
    BUF_LAST,    /* [N, D] residual stream of the tokens that want logits */
    BUF_LOGITS,  /* [N, V] */
    BUF_COUNT
} graph_buffer;

typedef struct {
    graph_buffer buffer;
    int32_t col, cols; /* columns [col, col + cols) */
} graph_view;

typedef struct {
    op_kind kind;
    int32_t layer; /* -1: before or after the layers */
    graph_view out, in;
    int32_t groups;  /* rmsnorm, rope: heads; 1 for a whole row */
    int32_t n_parts; /* linear */
    weight_role w[3], bias[3];
    weight_role
        norm[2];     /* fused ops: of the input (norm_linear), of q and of k (rope_attention); W_NONE: none */
    bool accumulate; /* linear: add to the output */
    bool gated;      /* norm_linear: silu of the first part times the second */
    bool per_logit;  /* runs over the N tokens that want logits, not over all T */
} graph_op;

typedef struct {
    graph_op *ops;
    int32_t count, capacity;
    int32_t width[BUF_COUNT]; /* columns of each buffer */
} graph;

nvllm_status graph_build(graph *out, const model_config *config, nvllm_error *err);
void graph_free(graph *g);

/* Bytes of weights that the op reads once per step, and multiply-adds * 2 per token, from the shapes. */
size_t graph_op_weight_bytes(const graph_op *op, const weights *w);
int64_t graph_op_flops(const graph_op *op, const weights *w);

const char *graph_buffer_name(graph_buffer buffer);

#endif
