/* The sticky JSON field reader; see json_reader.h. */
#include "model/json_reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

nvllm_status json_read_object(json_t **root, const char *text, size_t len, const char *name, nvllm_error *err)
{
    json_error_t bad;
    *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &bad);
    if (!*root)
        return error_set(err, NVLLM_ERR_FORMAT, "%s:%d: not valid JSON: %.200s", name, bad.line, bad.text);
    if (json_is_object(*root)) return NVLLM_OK;
    json_decref(*root);
    *root = NULL;
    return error_set(err, NVLLM_ERR_FORMAT, "%s: the top level is not an object", name);
}

const json_t *json_field(const json_reader *r, const char *key)
{
    const json_t *value = json_object_get(r->object, key);
    return json_is_null(value) ? NULL : value;
}

void json_fail(json_reader *r, nvllm_status code, const char *key, const char *format, ...)
{
    if (r->status) return;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status = error_set(r->err, code, "%s: %s%s %s", r->file, r->prefix, key, text);
}

static const char *kind_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "not a whole number";
    default: return "a boolean";
    }
}

void json_int(int32_t *out, json_reader *r, const char *key, int32_t low, int32_t high)
{
    const json_t *value = json_field(r, key);
    if (!value || r->status) return;
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value))
        json_fail(r, NVLLM_ERR_FORMAT, key, "is %s, expected an integer", kind_of(value));
    else if (n < low || n > high)
        json_fail(r, NVLLM_ERR_FORMAT, key, "%lld is not in %d..%d", (long long)n, low, high);
    else
        *out = (int32_t)n;
}

void json_need_int(int32_t *out, json_reader *r, const char *key, int32_t low, int32_t high)
{
    if (!json_field(r, key)) json_fail(r, NVLLM_ERR_FORMAT, key, "is missing");
    json_int(out, r, key, low, high);
}

void json_float(float *out, json_reader *r, const char *key, double low, double high)
{
    const json_t *value = json_field(r, key);
    if (!value || r->status) return;
    double x = json_number_value(value);
    if (!json_is_number(value))
        json_fail(r, NVLLM_ERR_FORMAT, key, "is %s, expected a number", kind_of(value));
    else if (!(x >= low && x <= high) || !isfinite((float)x))
        json_fail(r, NVLLM_ERR_FORMAT, key, "%g is not in %g..%g", x, low, high);
    else
        *out = (float)x;
}

void json_need_float(float *out, json_reader *r, const char *key, double low, double high)
{
    if (!json_field(r, key)) json_fail(r, NVLLM_ERR_FORMAT, key, "is missing");
    json_float(out, r, key, low, high);
}

void json_bool(bool *out, json_reader *r, const char *key)
{
    const json_t *value = json_field(r, key);
    if (!value || r->status) return;
    if (!json_is_boolean(value))
        json_fail(r, NVLLM_ERR_FORMAT, key, "is %s, expected true or false", kind_of(value));
    else
        *out = json_is_true(value);
}

const char *json_text(json_reader *r, const char *key)
{
    const json_t *value = json_field(r, key);
    if (!value || r->status) return NULL;
    if (!json_is_string(value))
        json_fail(r, NVLLM_ERR_FORMAT, key, "is %s, expected a string", kind_of(value));
    return json_string_value(value);
}
