/* Reading tokenizer.json; see json.h. */
#include "text/tokenizer/json.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

nvllm_status tok_json_type(const json_t *json, const char *where, int depth, const char **type,
                           nvllm_error *err)
{
    if (!json_is_object(json)) return error_set(err, NVLLM_ERR_FORMAT, "%s is not an object", where);
    if (depth > TOK_MAX_DEPTH)
        return error_set(err, NVLLM_ERR_LIMIT, "%s: more than %d Sequences inside each other", where,
                         TOK_MAX_DEPTH);
    *type = json_string_value(json_object_get(json, "type"));
    if (!*type) return error_set(err, NVLLM_ERR_FORMAT, "%s: \"type\" is not a string", where);
    return NVLLM_OK;
}

nvllm_status tok_json_bool(const json_t *json, const char *key, const char *where, tok_default missing,
                           bool *out, nvllm_error *err)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_boolean(value) && (missing == TOK_REQUIRED || (value && !json_is_null(value))))
        return error_set(err, NVLLM_ERR_FORMAT, "%s: \"%s\" is not true or false", where, key);
    *out = json_is_boolean(value) ? json_is_true(value) : missing == TOK_DEFAULT_TRUE;
    return NVLLM_OK;
}

nvllm_status tok_json_text(const json_t *json, const char *key, const char *where, char **text, size_t *len,
                           nvllm_error *err)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_string(value))
        return error_set(err, NVLLM_ERR_FORMAT, "%s: \"%s\" is not a string", where, key);
    *len = json_string_length(value);
    *text = malloc(*len + 1);
    if (!*text) return error_memory(err, *len + 1, where);
    memcpy(*text, json_string_value(value), *len + 1);
    return NVLLM_OK;
}

nvllm_status tok_json_char(const json_t *json, const char *key, const char *where, char out[4], size_t *len,
                           nvllm_error *err)
{
    const json_t *value = json_object_get(json, key);
    uint32_t code;
    *len = json_string_length(value);
    if (!json_is_string(value) || *len == 0 || utf8_decode(json_string_value(value), *len, &code) != *len)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: \"%s\" is not one character", where, key);
    memcpy(out, json_string_value(value), *len);
    return NVLLM_OK;
}

nvllm_status tok_slice_json(tok_slice slice, const char *where, json_t **out, nvllm_error *err)
{
    json_error_t why;
    if (slice.len == 0) slice = (tok_slice){"null", 4};
    *out = json_loadb(slice.text, slice.len, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    if (*out) return NVLLM_OK;
    return error_set(err, NVLLM_ERR_FORMAT, "%s: line %d: %s", where, why.line, why.text);
}
