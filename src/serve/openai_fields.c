/* Fields that chat and completions share: sampling, stop, stream, and what is refused; see openai_fields.h. */
#define _GNU_SOURCE
#include "serve/openai_fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(api_request, field)

json_t *fields_parse(const char *body, size_t len, api_error *err)
{
    json_error_t where;
    json_t *root = json_loadb(body ? body : "", len, JSON_REJECT_DUPLICATES, &where);
    if (!root) {
        api_error_set(err, 400, "invalid_json", "the body is not valid JSON: line %d, column %d: %s",
                      where.line, where.column, where.text);
        return NULL;
    }
    if (json_is_object(root)) return root;
    json_decref(root);
    api_error_set(err, 400, "invalid_json", "the body is not a JSON object");
    return NULL;
}

bool field_copy_text(char **out, const char *name, const json_t *value, api_error *err)
{
    const char *text = json_string_value(value);
    if (!text) return api_error_field(err, name, "%s is not a string", name);
    free(*out);
    *out = strdup(text);
    return *out ? true : api_error_set(err, 500, NULL, "out of memory for %s", name);
}

bool field_copy_ids(int32_t **out, size_t *n, const char *name, const json_t *list, api_error *err)
{
    size_t count = json_array_size(list);
    int32_t *ids = malloc((count + 1) * sizeof *ids);
    if (!ids) return api_error_set(err, 500, NULL, "out of memory for %s", name);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id > INT32_MAX) {
            free(ids);
            return api_error_field(err, name, "%s: item %zu is not a token id", name, i);
        }
        ids[i] = (int32_t)id;
    }
    free(*out);
    *out = ids;
    *n = count;
    return true;
}

/* ---- Readers ----------------------------------------------------------------------------------------------- */

static bool is_empty(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
    case JSON_FALSE: return true;
    case JSON_STRING: return json_string_length(value) == 0;
    case JSON_ARRAY: return json_array_size(value) == 0;
    case JSON_OBJECT: return json_object_size(value) == 0;
    default: return false;
    }
}

bool field_refuse(api_request *r, const char *name, const json_t *value, api_error *err)
{
    (void)r;
    return is_empty(value) || api_error_field(err, name, "%s is not supported by this server", name);
}

static bool read_response_format(api_request *r, const char *name, const json_t *value, api_error *err)
{
    (void)r;
    const char *type = json_string_value(json_object_get(value, "type"));
    if (type && strcmp(type, "text") == 0) return true;
    return api_error_field(err, name, "%s: only {\"type\": \"text\"} is supported by this server", name);
}

static bool read_tool_choice(api_request *r, const char *name, const json_t *value, api_error *err)
{
    const char *choice = json_string_value(value);
    if (choice && (strcmp(choice, "none") == 0 || strcmp(choice, "auto") == 0)) return true;
    return field_refuse(r, name, value, err);
}

static bool read_model(api_request *r, const char *name, const json_t *value, api_error *err)
{
    return field_copy_text(&r->model, name, value, err);
}

static bool read_seed(api_request *r, const char *name, const json_t *value, api_error *err)
{
    if (!json_is_integer(value)) return api_error_field(err, name, "seed is not a whole number");
    r->seed = json_integer_value(value);
    r->has_seed = true;
    return true;
}

static bool add_stop(api_request *r, const json_t *value, api_error *err)
{
    if (!json_is_string(value) || json_string_length(value) == 0)
        return api_error_field(err, "stop", "stop: item %zu is not a string with at least one letter",
                               r->sampling.n_stop);
    char *copy = strdup(json_string_value(value));
    if (!copy) return api_error_set(err, 500, NULL, "out of memory for stop");
    r->stop[r->sampling.n_stop++] = copy;
    return true;
}

static bool read_stop(api_request *r, const char *name, const json_t *value, api_error *err)
{
    if (!json_is_string(value) && !json_is_array(value))
        return api_error_field(err, name, "stop is neither a string nor a list of strings");
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > API_MOST_STOPS)
        return api_error_field(err, name, "stop has %zu strings, at most %d are accepted", n, API_MOST_STOPS);
    r->stop = calloc(n + 1, sizeof *r->stop);
    if (!r->stop) return api_error_set(err, 500, NULL, "out of memory for stop");
    r->sampling.stop = (const char *const *)r->stop;
    if (json_is_string(value)) return json_string_length(value) == 0 || add_stop(r, value, err);
    for (size_t i = 0; i < n; i++)
        if (!add_stop(r, json_array_get(value, i), err)) return false;
    return true;
}

static bool read_stop_ids(api_request *r, const char *name, const json_t *value, api_error *err)
{
    if (!json_is_array(value)) return api_error_field(err, name, "%s is not a list of token ids", name);
    if (!field_copy_ids(&r->stop_ids, &r->sampling.n_stop_ids, name, value, err)) return false;
    r->sampling.stop_ids = r->stop_ids;
    return true;
}

static bool read_bias(api_request *r, const char *name, const json_t *value, api_error *err)
{
    const char *key;
    json_t *item;
    if (!json_is_object(value)) return api_error_field(err, name, "logit_bias is not an object");
    r->bias = malloc((json_object_size(value) + 1) * sizeof *r->bias);
    if (!r->bias) return api_error_set(err, 500, NULL, "out of memory for logit_bias");
    json_object_foreach((json_t *)value, key, item)
    {
        char *end;
        long id = strtol(key, &end, 10);
        double bias = json_number_value(item);
        if (end == key || *end || id < 0 || id > INT32_MAX)
            return api_error_field(err, name, "logit_bias: \"%.32s\" is not a token id", key);
        if (!json_is_number(item) || !(bias >= -100 && bias <= 100))
            return api_error_field(err, name, "logit_bias: the bias of token %ld is not between -100 and 100",
                                   id);
        r->bias[r->sampling.n_logit_bias++] = (nvllm_logit_bias){(int32_t)id, (float)bias};
    }
    r->sampling.logit_bias = r->bias;
    return true;
}

static bool read_option(bool *out, const json_t *options, const char *name, api_error *err)
{
    const json_t *value = json_object_get(options, name);
    if (!value || json_is_null(value)) return true;
    if (!json_is_boolean(value))
        return api_error_field(err, "stream_options", "stream_options.%s is neither true nor false", name);
    *out = json_is_true(value);
    return true;
}

static bool read_stream_options(api_request *r, const char *name, const json_t *value, api_error *err)
{
    if (!json_is_object(value)) return api_error_field(err, name, "stream_options is not an object");
    return read_option(&r->include_usage, value, "include_usage", err) &&
           read_option(&r->continuous_usage, value, "continuous_usage_stats", err);
}

static bool read_best_of(api_request *r, const char *name, const json_t *value, api_error *err)
{
    (void)r;
    if (json_is_integer(value) && json_integer_value(value) == 1) return true;
    return api_error_field(err, name, "best_of is not supported by this server; use n");
}

/* ---- The table --------------------------------------------------------------------------------------------- */

static const api_field shared[] = {
    {"model", FIELD_READ, 0, 0, 0, read_model},
    {"temperature", FIELD_REAL, AT(sampling.temperature), 0, 100, NULL},
    {"top_p", FIELD_REAL, AT(sampling.top_p), 1e-9, 1, NULL},
    {"min_p", FIELD_REAL, AT(sampling.min_p), 0, 1, NULL},
    {"top_k", FIELD_COUNT, AT(sampling.top_k), -1, INT32_MAX, NULL},
    {"repetition_penalty", FIELD_REAL, AT(sampling.repetition_penalty), 1e-3, 1000, NULL},
    {"presence_penalty", FIELD_REAL, AT(sampling.presence_penalty), -100, 100, NULL},
    {"frequency_penalty", FIELD_REAL, AT(sampling.frequency_penalty), -100, 100, NULL},
    {"max_tokens", FIELD_INTEGER, AT(max_tokens), 0, INT32_MAX, NULL},
    {"min_tokens", FIELD_COUNT, AT(sampling.min_tokens), 0, INT32_MAX, NULL},
    {"n", FIELD_INTEGER, AT(n), 1, API_MOST_CHOICES, NULL},
    {"priority", FIELD_INTEGER, AT(priority), -1000000, 1000000, NULL},
    {"stream", FIELD_FLAG, AT(stream), 0, 0, NULL},
    {"ignore_eos", FIELD_FLAG, AT(sampling.ignore_eos), 0, 0, NULL},
    {"include_stop_str_in_output", FIELD_FLAG, AT(sampling.include_stop), 0, 0, NULL},
    {"skip_special_tokens", FIELD_NOT, AT(sampling.keep_special), 0, 0, NULL},
    {"seed", FIELD_READ, 0, 0, 0, read_seed},
    {"stop", FIELD_READ, 0, 0, 0, read_stop},
    {"stop_token_ids", FIELD_READ, 0, 0, 0, read_stop_ids},
    {"logit_bias", FIELD_READ, 0, 0, 0, read_bias},
    {"stream_options", FIELD_READ, 0, 0, 0, read_stream_options},
    {"response_format", FIELD_READ, 0, 0, 0, read_response_format},
    {"tool_choice", FIELD_READ, 0, 0, 0, read_tool_choice},
    {"best_of", FIELD_READ, 0, 0, 0, read_best_of},
    {"tools", FIELD_READ, 0, 0, 0, field_refuse},
    {"functions", FIELD_READ, 0, 0, 0, field_refuse},
    {"function_call", FIELD_READ, 0, 0, 0, field_refuse},
    {"structured_outputs", FIELD_READ, 0, 0, 0, field_refuse},
    {"guided_json", FIELD_READ, 0, 0, 0, field_refuse},
    {"guided_regex", FIELD_READ, 0, 0, 0, field_refuse},
    {"guided_choice", FIELD_READ, 0, 0, 0, field_refuse},
    {"guided_grammar", FIELD_READ, 0, 0, 0, field_refuse},
    {"use_beam_search", FIELD_READ, 0, 0, 0, field_refuse},
    {"prompt_logprobs", FIELD_READ, 0, 0, 0, field_refuse},
    {"user", FIELD_PASS, 0, 0, 0, NULL},
    {"metadata", FIELD_PASS, 0, 0, 0, NULL},
    {"store", FIELD_PASS, 0, 0, 0, NULL},
    {"service_tier", FIELD_PASS, 0, 0, 0, NULL},
    {"parallel_tool_calls", FIELD_PASS, 0, 0, 0, NULL},
    {"spaces_between_special_tokens", FIELD_PASS, 0, 0, 0, NULL},
    {NULL, FIELD_PASS, 0, 0, 0, NULL},
};

static const api_field *find(const api_field *table, const char *name)
{
    while (table->name && strcmp(table->name, name) != 0) table++;
    return table->name ? table : NULL;
}

static bool in_range(const api_field *f, double value, api_error *err)
{
    if (value >= f->least && value <= f->most) return true;
    return api_error_field(err, f->name, "%s is %.9g, must be between %.9g and %.9g", f->name, value,
                           f->least, f->most);
}

static bool read_flag(bool *out, const api_field *f, const json_t *value, api_error *err)
{
    if (!json_is_boolean(value))
        return api_error_field(err, f->name, "%s is neither true nor false", f->name);
    *out = json_is_true(value) == (f->kind == FIELD_FLAG);
    return true;
}

static bool read_number(void *at, const api_field *f, const json_t *value, api_error *err)
{
    if (f->kind != FIELD_REAL && !json_is_integer(value))
        return api_error_field(err, f->name, "%s is not a whole number", f->name);
    if (!json_is_number(value)) return api_error_field(err, f->name, "%s is not a number", f->name);
    if (!in_range(f, json_number_value(value), err)) return false;
    if (f->kind == FIELD_REAL)
        *(float *)at = (float)json_number_value(value);
    else if (f->kind == FIELD_COUNT)
        *(int32_t *)at = (int32_t)json_integer_value(value);
    else
        *(int64_t *)at = json_integer_value(value);
    return true;
}

static bool read_field(api_request *r, const api_field *f, const json_t *value, api_error *err)
{
    void *at = (char *)r + f->offset;
    switch (f->kind) {
    case FIELD_REAL:
    case FIELD_INTEGER:
    case FIELD_COUNT: return read_number(at, f, value, err);
    case FIELD_FLAG:
    case FIELD_NOT: return read_flag(at, f, value, err);
    case FIELD_READ: return f->read(r, f->name, value, err);
    case FIELD_PASS: break;
    }
    return true;
}

bool fields_read(api_request *r, const json_t *body, const api_field *own, api_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    {
        const api_field *f = find(own, name);
        if (!f) f = find(shared, name);
        if (!f && !r->unknown[0]) snprintf(r->unknown, sizeof r->unknown, "%s", name);
        if (!f || json_is_null(value)) continue;
        if (!read_field(r, f, value, err)) return false;
    }
    return true;
}
