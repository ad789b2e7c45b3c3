/* The model's weights: one table of roles says each tensor's name in a HF folder and in a GGUF, its shape
 * in letters, and when it exists. Binding walks the table, finds every tensor and checks its shape.
 *
 * Matrices stay in the mapped file as stored; vectors become float32 arrays of ours. */
#ifndef NVLLM_MODEL_WEIGHTS_H
#define NVLLM_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "formats/tensor_store.h"
#include "model/config.h"
#include "ops/weight.h"

typedef enum {
    W_NONE = -1,
    W_EMBED,
    W_FINAL_NORM,
    W_LM_HEAD, /* the embedding table when tied */
    W_ATTN_NORM,
    W_Q,
    W_K,
    W_V,
    W_Q_BIAS,
    W_K_BIAS,
    W_V_BIAS,
    W_Q_NORM,
    W_K_NORM,
    W_O,
    W_O_BIAS,
    W_MLP_NORM,
    W_GATE,
    W_UP,
    W_GATE_BIAS,
    W_UP_BIAS,
    W_DOWN,
    W_DOWN_BIAS,
    W_COUNT
} weight_role;

typedef struct {
    weight *table; /* [L, W_COUNT]; model-wide roles in layer 0's row; data NULL: the model has none */
    arena memory;
    void *random; /* the block that random weights live in, or NULL */
    size_t random_bytes;
} weights;

const char *weight_role_name(weight_role role); /* "q", "mlp_norm", ... */
bool weight_role_is_vector(weight_role role);   /* held as float32 */

/* The weight of a role; layer is ignored for model-wide roles. NULL: the model has none. */
const weight *weights_get(const weights *w, weight_role role, int32_t layer);

nvllm_status weights_bind(weights *out, const model_config *config, const tensor_store *store,
                          nvllm_error *err);

/* Seeded random weights of the config's shapes in `format` (vectors: norms around 1, small biases). */
nvllm_status weights_random(weights *out, const model_config *config, dtype format, uint64_t seed,
                            nvllm_error *err);
void weights_free(weights *w);

int64_t weights_parameters(const weights *w, const model_config *config); /* stored elements */
size_t weights_bytes(const weights *w, const model_config *config);       /* as stored; a tied head once */

#endif
