/* A family is a row of a table: only what config.json cannot say.
 *
 * Two rows never differ by a function pointer. A family that needs code adds a named block kind
 * that all families may use. To add a family, see docs/add-a-family.md. */
#ifndef NVLLM_MODEL_FAMILY_H
#define NVLLM_MODEL_FAMILY_H

#include "ops/rope.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a family uses config.json's sliding_window; the reference's configuration classes are the source. */
typedef enum {
    WINDOW_NEVER, /* the key is ignored */
    WINDOW_ALL,   /* every layer slides, unless the key is null */
    WINDOW_LAYERS /* if use_sliding_window: the layers from max_window_layers on, or as layer_types says */
} window_rule;

typedef struct {
    const char *architecture;       /* config.json architectures[0] */
    const char *architecture_alias; /* another spelling in released checkpoints, or NULL */
    const char *model_type;         /* config.json model_type */
    const char *gguf;               /* general.architecture, or NULL */
    rope_pairing pairing;           /* in HF checkpoints */
    rope_pairing gguf_pairing; /* in GGUF files: llama.cpp permutes q and k of its "llama" architecture */
    bool qk_norm;              /* RMSNorm over each head of q and k */
    bool q_bias;               /* biases on q, k and v where config.json has no key for them */
    const char *bias_key;      /* config.json key for attention biases, or NULL */
    const char *o_bias_key;    /* ... for the output projection's bias, or NULL */
    const char *mlp_bias_key;  /* ... for the feed-forward biases, or NULL */
    window_rule window;
    /* What holds where config.json omits the key. */
    int32_t default_head_dim;         /* 0: D / H */
    int32_t default_kv_heads;         /* 0: H */
    int32_t default_window;           /* tokens; 0: none */
    int32_t default_bos, default_eos; /* token ids; 0: none */
    float default_theta, default_norm_eps;
    bool default_tied;
} family;

/* By architectures[0] where there is one, else by model_type; either may be NULL. NULL: unknown. */
const family *family_by_architecture(const char *architecture, const char *model_type);
const family *family_by_gguf(const char *architecture);
const family *family_table(size_t *count);

#endif
