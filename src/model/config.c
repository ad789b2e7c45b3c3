/* config.json into model_config; see config.h. RoPE scaling is in config_rope.c, GGUF in config_gguf.c. The rules and
 * defaults are those of transformers' configuration classes (version 5); where transformers would go on with a model
 * that we cannot run exactly, the field is refused by name. */
#include "model/config.h"

#include "base/buffer.h"
#include "model/config_rope.h"
#include "model/json_reader.h"

#include <stdlib.h>
#include <string.h>

/* Far above any model in existence, and low enough that products of two fit 64 bits and H * C fits 32. */
#define MAX_DIM     (1 << 20)
#define MAX_HEADS   (1 << 14)
#define MAX_VOCAB   (1 << 24)
#define MAX_CONTEXT (1 << 30)

static const char *first_architecture(json_reader *r)
{
    const json_t *list = json_field(r, "architectures");
    if (!list || r->status) return NULL;
    const json_t *first = json_array_get(list, 0);
    if (!json_is_array(list) || (first && !json_is_string(first)))
        json_fail(r, NVLLM_ERR_FORMAT, "architectures", "is not a list of strings");
    return json_string_value(first);
}

static void unknown_family(json_reader *r, const char *name)
{
    size_t count;
    const family *rows = family_table(&count);
    buffer b = {0};
    for (size_t i = 0; i < count; i++) buffer_printf(&b, "%s%s", i ? ", " : "", rows[i].architecture);
    char *known = buffer_take(&b);
    if (!r->status)
        r->status = error_set(r->err, NVLLM_ERR_UNSUPPORTED,
                              "%s: architecture %.100s is not supported; supported are %s", r->file, name,
                              known ? known : "others");
    free(known);
}

static void read_family(model_config *out, json_reader *r)
{
    const char *architecture = first_architecture(r), *model_type = json_text(r, "model_type");
    if (!architecture && !model_type) json_fail(r, NVLLM_ERR_FORMAT, "architectures", "is missing");
    out->family = r->status ? NULL : family_by_architecture(architecture, model_type);
    if (!out->family)
        unknown_family(r, architecture ? architecture : model_type);
    else if (model_type && strcmp(model_type, out->family->model_type) != 0)
        json_fail(r, NVLLM_ERR_UNSUPPORTED, "model_type",
                  "%.60s does not go with architecture %s, which is %s", model_type,
                  out->family->architecture, out->family->model_type);
}

/* A key that says null asks for the value that follows from the others, a missing one for the family's default. */
static int32_t or_default(const json_reader *r, const char *key, int32_t family_default, int32_t derived)
{
    return json_object_get(r->object, key) || family_default == 0 ? derived : family_default;
}

static void read_sizes(model_config *out, json_reader *r)
{
    json_need_int(&out->L, r, "num_hidden_layers", 1, CONFIG_MAX_LAYERS);
    json_need_int(&out->D, r, "hidden_size", 1, MAX_DIM);
    json_need_int(&out->H, r, "num_attention_heads", 1, MAX_HEADS);
    json_need_int(&out->F, r, "intermediate_size", 1, MAX_DIM);
    json_need_int(&out->V, r, "vocab_size", 1, MAX_VOCAB);
    json_need_int(&out->max_context, r, "max_position_embeddings", 1, MAX_CONTEXT);
    if (r->status) return;
    out->K = or_default(r, "num_key_value_heads", out->family->default_kv_heads, out->H);
    json_int(&out->K, r, "num_key_value_heads", 1, MAX_HEADS);
    out->C = or_default(r, "head_dim", out->family->default_head_dim, out->D % out->H ? 0 : out->D / out->H);
    json_int(&out->C, r, "head_dim", 1, CONFIG_MAX_HEAD_DIM);
    out->norm_eps = out->family->default_norm_eps;
    json_float(&out->norm_eps, r, "rms_norm_eps", 1e-20, 1);
}

static void read_bias(bool *out, json_reader *r, const char *key)
{
    if (key) json_bool(out, r, key);
}

static void read_switches(model_config *out, json_reader *r)
{
    const family *f = out->family;
    out->tied = f->default_tied;
    json_bool(&out->tied, r, "tie_word_embeddings");
    out->qk_norm = f->qk_norm;
    out->q_bias = f->q_bias;
    read_bias(&out->q_bias, r, f->bias_key);
    read_bias(&out->o_bias, r, f->o_bias_key);
    read_bias(&out->mlp_bias, r, f->mlp_bias_key);
    const char *act = json_text(r, "hidden_act");
    if (act && strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        json_fail(r, NVLLM_ERR_UNSUPPORTED, "hidden_act", "%.60s is not supported; silu is", act);
    const json_t *quantized = json_field(r, "quantization_config");
    const char *method = json_string_value(json_object_get(quantized, "quant_method"));
    if (quantized)
        json_fail(r, NVLLM_ERR_UNSUPPORTED, "quantization_config", "(%.60s) is not supported",
                  method ? method : "without quant_method");
}

static void read_layer_types(model_config *out, json_reader *r, const json_t *types)
{
    if (!json_is_array(types) || json_array_size(types) != (size_t)out->L) {
        json_fail(r, NVLLM_ERR_FORMAT, "layer_types", "is not a list of num_hidden_layers %d entries",
                  out->L);
        return;
    }
    for (int32_t l = 0; l < out->L; l++) {
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        bool sliding = type && !strcmp(type, "sliding_attention");
        if (!sliding && (!type || strcmp(type, "full_attention") != 0))
            json_fail(r, NVLLM_ERR_UNSUPPORTED, "layer_types",
                      "entry %d is %.60s; supported are full_attention, sliding_attention", l,
                      type ? type : "no string");
        if (sliding && !out->window)
            json_fail(r, NVLLM_ERR_FORMAT, "layer_types",
                      "entry %d slides, but there is no sliding_window in use", l);
        out->slides[l] = sliding;
    }
}

/* Which layers see only the last `window` tokens, by the family's rule. */
static void read_window(model_config *out, json_reader *r)
{
    const window_rule rule = out->family->window;
    bool use = rule == WINDOW_ALL;
    int32_t window = or_default(r, "sliding_window", out->family->default_window, 0), first = 28;
    if (rule == WINDOW_NEVER) return;
    json_int(&window, r, "sliding_window", 1, INT32_MAX);
    if (rule == WINDOW_LAYERS) {
        json_bool(&use, r, "use_sliding_window");
        json_int(&first, r, "max_window_layers", 0, INT32_MAX);
    }
    out->window = use ? window : 0;
    const json_t *types = rule == WINDOW_LAYERS ? json_field(r, "layer_types") : NULL;
    if (types) {
        read_layer_types(out, r, types);
    } else {
        for (int32_t l = 0; l < out->L; l++)
            out->slides[l] = out->window && (rule == WINDOW_ALL || l >= first);
    }
    bool any = false;
    for (int32_t l = 0; l < out->L; l++) any = any || out->slides[l];
    if (!any) out->window = 0;
}

static void read_dtype(model_config *out, json_reader *r)
{
    static const struct {
        const char *name;
        dtype type;
    } names[] = {{"float32", DTYPE_F32}, {"float16", DTYPE_F16}, {"bfloat16", DTYPE_BF16}};
    const char *key = json_field(r, "dtype") ? "dtype" : "torch_dtype", *name = json_text(r, key);
    out->type = DTYPE_F32;
    if (!name) return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name) != 0) continue;
        out->type = names[i].type;
        return;
    }
    json_fail(r, NVLLM_ERR_UNSUPPORTED, key, "%.60s is not supported; float32, float16, bfloat16 are", name);
}

nvllm_status config_add_eos(model_config *config, int64_t id, const char *name, nvllm_error *err)
{
    if (id >= config->V) return NVLLM_OK;
    for (int32_t i = 0; i < config->n_eos; i++)
        if (config->eos[i] == id) return NVLLM_OK;
    if (config->n_eos == CONFIG_MAX_EOS)
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "%s: more than %d end-of-sequence ids", name,
                         CONFIG_MAX_EOS);
    config->eos[config->n_eos++] = (int32_t)id;
    return NVLLM_OK;
}

static void add_eos(model_config *out, json_reader *r, const json_t *id)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0)
        json_fail(r, NVLLM_ERR_FORMAT, "eos_token_id", "is not a non-negative integer or a list of them");
    if (!r->status) r->status = config_add_eos(out, json_integer_value(id), r->file, r->err);
}

static void read_special_ids(model_config *out, json_reader *r)
{
    const json_t *eos = json_field(r, "eos_token_id");
    int32_t end = or_default(r, "eos_token_id", out->family->default_eos, 0);
    int32_t bos = or_default(r, "bos_token_id", out->family->default_bos, -1);
    json_int(&bos, r, "bos_token_id", 0, INT32_MAX);
    out->bos = bos < out->V ? bos : -1;
    if (end && !r->status) r->status = config_add_eos(out, end, r->file, r->err);
    if (eos && !json_is_array(eos)) add_eos(out, r, eos);
    for (size_t i = 0; i < json_array_size(eos); i++) add_eos(out, r, json_array_get(eos, i));
}

nvllm_status config_check(const model_config *c, const char *name, const config_keys *keys, nvllm_error *err)
{
    if (c->H % c->K != 0)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s %d is not a multiple of %s %d", name, keys->heads,
                         c->H, keys->kv_heads, c->K);
    if (c->C == 0)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s %d is not a multiple of %s %d, and there is no %s",
                         name, keys->hidden, c->D, keys->heads, c->H, keys->head_dim);
    if (c->C > CONFIG_MAX_HEAD_DIM)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s %d is more than %d", name, keys->head_dim, c->C,
                         CONFIG_MAX_HEAD_DIM);
    if (c->C % 2 != 0)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s %d is odd, but rotary embedding needs pairs", name,
                         keys->head_dim, c->C);
    if ((int64_t)c->H * c->C > MAX_DIM)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s %d times %s %d is more than %d", name, keys->heads,
                         c->H, keys->head_dim, c->C, MAX_DIM);
    return NVLLM_OK;
}

nvllm_status config_read_json(model_config *out, const char *text, size_t len, const char *name,
                              nvllm_error *err)
{
    static const config_keys keys = {"num_attention_heads", "num_key_value_heads", "hidden_size", "head_dim"};
    json_t *root;
    *out = (model_config){0};
    nvllm_status st = json_read_object(&root, text, len, name, err);
    if (st) return st;
    json_reader r = {.object = root, .file = name, .prefix = "", .err = err};
    read_family(out, &r);
    if (!r.status) read_sizes(out, &r);
    if (!r.status) read_switches(out, &r);
    if (!r.status) read_window(out, &r);
    if (!r.status) read_dtype(out, &r);
    if (!r.status) read_special_ids(out, &r);
    if (!r.status) config_read_rope(out, &r);
    if (!r.status) r.status = config_check(out, name, &keys, err);
    json_decref(root);
    return r.status;
}
