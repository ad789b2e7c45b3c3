/* One token through the whole model as one kernel (persistent.cu): what it is given.
 *
 * The backend makes a persistent_model of an op list once (backend/cuda_chain.cu), and a persistent_step of each step. */
#ifndef NVLLM_OPS_PERSISTENT_CUH
#define NVLLM_OPS_PERSISTENT_CUH

#include "ops/attention.cuh"

/* The products of a layer, in their order, and the one behind the layers. */
enum { PRODUCT_QKV, PRODUCT_OUT, PRODUCT_GATE_UP, PRODUCT_DOWN, PRODUCT_HEAD, PRODUCTS };

/* One product's matrices, bf16, 16-byte aligned: parts one below the other, or gate and up. */
typedef struct {
    const __nv_bfloat16 *w[LINEAR_MAX_PARTS];
    const float *bias[LINEAR_MAX_PARTS]; /* NULL: none */
    const float *norm;                   /* of the input; NULL: none */
} persistent_product;

typedef struct {
    persistent_product product[PRODUCT_HEAD];
    const float *q_norm, *k_norm; /* NULL: none */
    void *k_pool, *v_pool;
    int32_t window; /* 0: all positions */
} persistent_layer;

typedef struct {
    const persistent_layer *layers; /* [L], on the device */
    persistent_product head;
    int32_t L, D, F, V, H, K, C;
    float eps;
    const void *embedding; /* [V, D] */
    dtype embedding_format;
    size_t embedding_row;  /* bytes */
    const float *inv_freq; /* [C/2] */
    float rope_scale;
    rope_pairing pairing;
    int32_t page_slots; /* S, a power of two */
    uint64_t *words;    /* persistent_words() of them, zero before the first step */
} persistent_model;

typedef struct {
    const int32_t *tokens, *drawn, *pos, *slot, *kv_len, *pages; /* as in model/step.h, of one token */
    int32_t P;
    int32_t max_len; /* as in op_attention_args */
    float *logits;   /* [V] */
} persistent_step;

/* Words that the blocks exchange. */
size_t persistent_words(const persistent_model *m, const cuda_context *cuda);
/* Why this card cannot run this model so, a clause; NULL: it can. The weights' formats are the caller's to check. */
const char *persistent_refuses(const persistent_model *m, const cuda_context *cuda);
/* Launches the step; m and s are copied. */
void persistent_run(const persistent_model *m, const persistent_step *s, const cuda_context *cuda);

#endif
