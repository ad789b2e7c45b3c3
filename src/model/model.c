/* Opening a model: configuration, weights, frequencies, op list; see model.h. */
#include "model/model.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

#define CONFIG_LIMIT ((size_t)16 << 20) /* bytes of a config.json */

/* `path` may be the folder or the file itself. */
static nvllm_status read_config_json(model_config *out, const char *path, nvllm_error *err)
{
    char *text = NULL, *joined = NULL;
    size_t len;
    if (file_is_directory(path)) {
        joined = file_join(path, "config.json");
        if (!joined) return error_memory(err, strlen(path) + 16, "a path");
        path = joined;
    }
    nvllm_status st = file_read(&text, &len, path, CONFIG_LIMIT, err);
    if (!st) st = config_read_json(out, text, len, path, err);
    free(text);
    free(joined);
    return st;
}

/* What follows the weights, whatever their source. */
static nvllm_status finish(model *m, nvllm_error *err)
{
    size_t bytes = (size_t)(m->config.C / 2) * sizeof *m->inv_freq;
    m->inv_freq = malloc(bytes);
    if (!m->inv_freq) return error_memory(err, bytes, "RoPE frequencies");
    config_rope_frequencies(&m->config, m->inv_freq);
    return graph_build(&m->graph, &m->config, err);
}

static nvllm_status model_new(model **out, nvllm_error *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? NVLLM_OK : error_memory(err, sizeof **out, "a model");
}

nvllm_status model_open(model **out, const char *path, nvllm_error *err)
{
    model *m;
    nvllm_status st = model_new(&m, err);
    if (st) return st;
    bool folder = file_is_directory(path);
    if (folder) st = read_config_json(&m->config, path, err); /* first: it tells most about a wrong folder */
    if (!st) st = tensor_store_open(&m->store, path, err);
    if (!st && !folder) st = config_read_gguf(&m->config, tensor_store_gguf(m->store), err);
    if (!st) st = weights_bind(&m->weights, &m->config, m->store, err);
    if (!st) st = finish(m, err);
    if (st) {
        model_close(m);
        return st;
    }
    *out = m;
    return NVLLM_OK;
}

nvllm_status model_open_random(model **out, const char *path, dtype type, uint64_t seed, nvllm_error *err)
{
    model *m;
    nvllm_status st = model_new(&m, err);
    if (st) return st;
    st = read_config_json(&m->config, path, err);
    if (!st)
        st = weights_random(&m->weights, &m->config, type == DTYPE_COUNT ? m->config.type : type, seed, err);
    if (!st) st = finish(m, err);
    if (st) {
        model_close(m);
        return st;
    }
    *out = m;
    return NVLLM_OK;
}

void model_close(model *m)
{
    if (!m) return;
    graph_free(&m->graph);
    free(m->inv_freq);
    weights_free(&m->weights);
    tensor_store_close(m->store);
    free(m);
}

size_t model_kv_bytes_per_token(const model *m, dtype kv_type)
{
    return 2 * (size_t)m->config.L * (size_t)m->config.K * dtype_row_bytes(kv_type, m->config.C);
}

dtype model_default_kv_type(const model *m)
{
    dtype stored = weights_get(&m->weights, W_K, 0)->format;
    return stored == DTYPE_F32 || stored == DTYPE_F16 ? stored : DTYPE_BF16;
}
