/* /v1/completions: request JSON -> api_request. The prompt is a string, a list of strings, a list of token ids or a
 * list of such lists. */
#include "serve/openai_in_parts.h"

#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(api_request, field)

static bool take_prompt(api_prompt *out, const json_t *value, api_error *err)
{
    if (json_is_string(value)) {
        out->len = json_string_length(value);
        return field_copy_text(&out->text, "prompt", value, err);
    }
    if (!json_is_array(value))
        return api_error_field(err, "prompt", "prompt: neither a string nor a list of token ids");
    if (json_array_size(value) == 0)
        return api_error_field(err, "prompt", "prompt: an empty list of token ids");
    return field_copy_ids(&out->ids, &out->n_ids, "prompt", value, err);
}

static bool read_prompt(api_request *r, const char *name, const json_t *value, api_error *err)
{
    const json_t *first = json_array_get(value, 0);
    bool is_list = json_is_array(value) && (json_is_string(first) || json_is_array(first));
    size_t n = is_list ? json_array_size(value) : 1;
    if (n > API_MOST_PROMPTS)
        return api_error_field(err, name, "prompt has %zu prompts, at most %d are accepted", n,
                               API_MOST_PROMPTS);
    r->prompts = calloc(n, sizeof *r->prompts);
    if (!r->prompts) return api_error_set(err, 500, NULL, "out of memory for prompt");
    r->n_prompts = n;
    for (size_t i = 0; i < n; i++)
        if (!take_prompt(&r->prompts[i], is_list ? json_array_get(value, i) : value, err)) return false;
    return true;
}

static const api_field fields[] = {
    {"prompt", FIELD_READ, 0, 0, 0, read_prompt},
    {"echo", FIELD_FLAG, AT(echo), 0, 0, NULL},
    {"logprobs", FIELD_INTEGER, AT(top_logprobs), 0, API_MOST_LOGPROBS, NULL},
    {"add_special_tokens", FIELD_NOT, AT(no_special), 0, 0, NULL},
    {"suffix", FIELD_READ, 0, 0, 0, field_refuse},
    {NULL, FIELD_PASS, 0, 0, 0, NULL},
};

static bool read_body(api_request *r, const json_t *body, api_error *err)
{
    if (!fields_read(r, body, fields, err)) return false;
    if (r->n_prompts == 0) return api_error_field(err, "prompt", "prompt is missing");
    if (r->max_tokens < 0) r->max_tokens = 16; /* the endpoint's documented default */
    return request_finish(r, err);
}

bool openai_read_completion(api_request *out, const char *body, size_t len, const nvllm_request *defaults,
                            api_error *err)
{
    request_begin(out, defaults);
    json_t *root = fields_parse(body, len, err);
    if (!root) return false;
    bool ok = read_body(out, root, err);
    json_decref(root);
    return ok;
}
