/* A model: its configuration, weights, frequencies and op list. Immutable once open; any thread may read it. */
#ifndef NVLLM_MODEL_MODEL_H
#define NVLLM_MODEL_MODEL_H

#include "formats/tensor_store.h"
#include "model/config.h"
#include "model/graph.h"
#include "model/weights.h"

typedef struct {
    model_config config;
    tensor_store *store; /* NULL with random weights */
    weights weights;
    float *inv_freq; /* [C/2] rotation per position, RoPE scaling included */
    graph graph;
} model;

/* `path`: a HF folder or a .gguf file. */
nvllm_status model_open(model **out, const char *path, nvllm_error *err);

/* The model of a config.json (or of the folder that holds it) with seeded random weights; type: DTYPE_COUNT for
 * the config's own. */
nvllm_status model_open_random(model **out, const char *path, dtype type, uint64_t seed, nvllm_error *err);
void model_close(model *m);

size_t model_kv_bytes_per_token(const model *m, dtype kv_type);
dtype model_default_kv_type(const model *m); /* F32 for float32 weights, F16 for f16, else BF16 */

#endif
