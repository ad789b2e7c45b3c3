/* The reader of generation_config.json; see generation_config.h. */
#include "model/generation_config.h"

#include "model/json_reader.h"

static void read_float(generation_float *out, json_reader *r, const char *key, double low, double high)
{
    out->set = json_field(r, key) != NULL;
    json_float(&out->value, r, key, low, high);
}

static void read_int(generation_int *out, json_reader *r, const char *key, int32_t low)
{
    out->set = json_field(r, key) != NULL;
    json_int(&out->value, r, key, low, INT32_MAX);
}

static void add_eos(generation_config *out, json_reader *r, const json_t *id)
{
    json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
        json_fail(r, NVLLM_ERR_FORMAT, "eos_token_id", "is not a non-negative integer or a list of them");
    else if (out->n_eos == GENERATION_MAX_EOS)
        json_fail(r, NVLLM_ERR_UNSUPPORTED, "eos_token_id", "has more than %d ids", GENERATION_MAX_EOS);
    else
        out->eos[out->n_eos++] = (int32_t)value;
}

nvllm_status generation_config_read(generation_config *out, const char *text, size_t len, const char *name,
                                    nvllm_error *err)
{
    json_t *root;
    *out = (generation_config){0};
    nvllm_status st = json_read_object(&root, text, len, name, err);
    if (st) return st;
    json_reader r = {.object = root, .file = name, .prefix = "", .err = err};
    out->do_sample.set = json_field(&r, "do_sample") != NULL;
    json_bool(&out->do_sample.value, &r, "do_sample");
    read_float(&out->temperature, &r, "temperature", 0, 1000);
    read_float(&out->top_p, &r, "top_p", 0, 1);
    read_float(&out->min_p, &r, "min_p", 0, 1);
    read_float(&out->repetition_penalty, &r, "repetition_penalty", 1e-3, 1000);
    read_float(&out->presence_penalty, &r, "presence_penalty", -1000, 1000);
    read_float(&out->frequency_penalty, &r, "frequency_penalty", -1000, 1000);
    read_int(&out->top_k, &r, "top_k", 0);
    read_int(&out->max_new_tokens, &r, "max_new_tokens", 1);
    const json_t *eos = json_field(&r, "eos_token_id");
    if (eos && !json_is_array(eos)) add_eos(out, &r, eos);
    for (size_t i = 0; i < json_array_size(eos); i++) add_eos(out, &r, json_array_get(eos, i));
    json_decref(root);
    return r.status;
}
