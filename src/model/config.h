/* What the model is: sizes and switches, read from config.json (HF) or from a GGUF's keys.
 *
 * Sizes come from the file; the family row (family.h) states only what the file cannot. After config_read_*
 * every field is checked: positive sizes, heads divisible, known RoPE scaling. An unknown architecture is
 * refused by name, with the list of known ones. Letters as everywhere: D model dim, H query heads, K kv heads,
 * C head dim, F feed-forward dim, V vocabulary, L layers. */
#ifndef NVLLM_MODEL_CONFIG_H
#define NVLLM_MODEL_CONFIG_H

#include "base/dtype.h"
#include "base/error.h"
#include "model/family.h"

#include <stdbool.h>
#include <stdint.h>

#define CONFIG_MAX_EOS      16
#define CONFIG_MAX_LAYERS   512
#define CONFIG_MAX_HEAD_DIM 256 /* what the attention kernels take */

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN } rope_scaling;

typedef struct {
    rope_scaling scaling;
    rope_pairing pairing; /* halves (Llama) or adjacent pairs (ERNIE 4.5, GGUF llama) */
    float theta;
    float factor;                            /* linear, llama3, yarn */
    float low_freq_factor, high_freq_factor; /* llama3 */
    float beta_fast, beta_slow;              /* yarn */
    float attention_factor;                  /* yarn: cos and sin are multiplied by it; 1 otherwise */
    int32_t original_context;                /* llama3, yarn */
    bool truncate;                           /* yarn: correction range rounded to whole dimensions */
    const float *divisors; /* [C/2] each frequency is divided by its own, or NULL; GGUF's form
                                                of llama3 scaling, borrowed from the open file */
} rope_config;

typedef struct {
    const family *family;
    int32_t L, D, H, K, C, F, V;
    int32_t max_context; /* max_position_embeddings */
    float norm_eps;
    rope_config rope;
    bool tied;                      /* lm_head is the embedding table */
    bool q_bias, o_bias, mlp_bias;  /* q_bias: biases on q, k and v */
    bool qk_norm;                   /* RMSNorm over each head of q and k */
    int32_t window;                 /* sliding window in tokens, this one included; 0: none */
    bool slides[CONFIG_MAX_LAYERS]; /* layer l uses the window */
    dtype type;  /* torch_dtype / dtype; the stored tensors decide, this is for random weights */
    int32_t bos; /* -1: none */
    int32_t eos[CONFIG_MAX_EOS],
        n_eos; /* distinct ids below V; others can never be sampled and are left out */
} model_config;

/* From config.json's text; `name` is used in error sentences. Both spellings are read: rope_theta + rope_scaling
 * + torch_dtype, and transformers 5's rope_parameters + dtype. */
nvllm_status config_read_json(model_config *out, const char *text, size_t len, const char *name,
                              nvllm_error *err);

/* From a GGUF's keys (general.architecture, <arch>.context_length, ...). */
struct gguf;
nvllm_status config_read_gguf(model_config *out, const struct gguf *file, nvllm_error *err);

/* The checks that both readers end with; `name` is the file, `keys` how it spells the fields. */
typedef struct {
    const char *heads, *kv_heads, *hidden, *head_dim;
} config_keys;
nvllm_status config_check(const model_config *config, const char *name, const config_keys *keys,
                          nvllm_error *err);

/* Adds an end-of-sequence id unless it is there already or not below V; ids past CONFIG_MAX_EOS are an error. */
nvllm_status config_add_eos(model_config *config, int64_t id, const char *name, nvllm_error *err);

/* inv_freq[C/2]: the rotation per position of each pair, scaling included (float32, as the reference computes it). */
void config_rope_frequencies(const model_config *config, float *inv_freq);

#endif
