/* /v1/chat/completions: request JSON -> api_request.
 *
 * Messages are handed to the chat template as they came, with two changes that templates expect: a content that is a
 * list of text parts becomes one string (joined by newlines, as vLLM does), and the role "developer" is "system". */
#include "serve/openai_in_parts.h"

#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(api_request, field)

/* The text of a list of parts; NULL after an error. */
static json_t *join_parts(const json_t *parts, size_t index, api_error *err)
{
    wire text = {0};
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *content = json_object_get(part, "text");
        bool is_text = json_is_string(part) || (type && strcmp(type, "text") == 0 && json_is_string(content));
        if (!is_text) {
            wire_free(&text);
            api_error_field(err, "messages",
                            "messages[%zu].content[%zu]: only parts of type text are supported", index, i);
            return NULL;
        }
        const json_t *string = json_is_string(part) ? part : content;
        if (i) wire_text(&text, "\n");
        wire_bytes(&text, json_string_value(string), json_string_length(string));
    }
    json_t *joined = text.failed ? NULL : json_stringn(text.len ? text.data : "", text.len);
    wire_free(&text);
    if (!joined) api_error_set(err, 500, NULL, "out of memory for messages");
    return joined;
}

/* The message as the template gets it; NULL after an error. */
static json_t *adapt_message(const json_t *from, size_t index, api_error *err)
{
    const char *role = json_string_value(json_object_get(from, "role"));
    const json_t *content = json_object_get(from, "content");
    if (!role) {
        api_error_field(err, "messages", "messages[%zu] has no role", index);
        return NULL;
    }
    bool has_content = json_is_string(content) || json_is_array(content);
    if (!has_content && content && !json_is_null(content)) {
        api_error_field(err, "messages", "messages[%zu].content is neither a string nor a list of parts",
                        index);
        return NULL;
    }
    if (!has_content && strcmp(role, "assistant") != 0) {
        api_error_field(err, "messages", "messages[%zu] has no content", index);
        return NULL;
    }
    json_t *message = json_copy((json_t *)from);
    json_t *text = json_is_array(content) ? join_parts(content, index, err) : NULL;
    if (json_is_array(content) && !text) {
        json_decref(message);
        return NULL;
    }
    if (text) json_object_set_new(message, "content", text);
    if (strcmp(role, "developer") == 0) json_object_set_new(message, "role", json_string("system"));
    return message;
}

static bool read_messages(api_request *r, const char *name, const json_t *value, api_error *err)
{
    if (!json_is_array(value) || json_array_size(value) == 0)
        return api_error_field(err, name, "messages is not a list of at least one message");
    json_t *list = json_array();
    for (size_t i = 0; list && i < json_array_size(value); i++) {
        json_t *message = adapt_message(json_array_get(value, i), i, err);
        if (!message) {
            json_decref(list);
            return false;
        }
        json_array_append_new(list, message);
    }
    free(r->messages);
    r->messages = list ? json_dumps(list, JSON_COMPACT) : NULL;
    json_decref(list);
    return r->messages ? true : api_error_set(err, 500, NULL, "out of memory for messages");
}

static bool read_variables(api_request *r, const char *name, const json_t *value, api_error *err)
{
    if (!json_is_object(value)) return api_error_field(err, name, "%s is not an object", name);
    free(r->variables);
    r->variables = json_dumps(value, JSON_COMPACT);
    return r->variables ? true : api_error_set(err, 500, NULL, "out of memory for %s", name);
}

static bool read_logprobs(api_request *r, const char *name, const json_t *value, api_error *err)
{
    if (!json_is_boolean(value)) return api_error_field(err, name, "logprobs is neither true nor false");
    if (json_is_true(value) && r->top_logprobs < 0) r->top_logprobs = 0;
    return true;
}

static const api_field fields[] = {
    {"messages", FIELD_READ, 0, 0, 0, read_messages},
    {"max_completion_tokens", FIELD_INTEGER, AT(max_tokens), 1, INT32_MAX, NULL},
    {"logprobs", FIELD_READ, 0, 0, 0, read_logprobs},
    {"top_logprobs", FIELD_INTEGER, AT(top_logprobs), 0, API_MOST_LOGPROBS, NULL},
    {"chat_template_kwargs", FIELD_READ, 0, 0, 0, read_variables},
    {"add_generation_prompt", FIELD_NOT, AT(no_generation_prompt), 0, 0, NULL},
    {"chat_template", FIELD_READ, 0, 0, 0, field_refuse},
    {"continue_final_message", FIELD_READ, 0, 0, 0, field_refuse},
    {"echo", FIELD_READ, 0, 0, 0, field_refuse},
    {"audio", FIELD_READ, 0, 0, 0, field_refuse},
    {"modalities", FIELD_PASS, 0, 0, 0, NULL},
    {"prediction", FIELD_PASS, 0, 0, 0, NULL},
    {NULL, FIELD_PASS, 0, 0, 0, NULL},
};

static bool read_body(api_request *r, const json_t *body, api_error *err)
{
    if (!fields_read(r, body, fields, err)) return false;
    if (!r->messages) return api_error_field(err, "messages", "messages is missing");
    const json_t *newer = json_object_get(body, "max_completion_tokens");
    if (json_is_integer(newer)) r->max_tokens = json_integer_value(newer); /* max_tokens is its older name */
    if (r->top_logprobs >= 0 && !json_is_true(json_object_get(body, "logprobs"))) {
        if (r->top_logprobs > 0)
            return api_error_field(err, "top_logprobs", "top_logprobs needs logprobs: true");
        r->top_logprobs = -1;
    }
    return request_finish(r, err);
}

bool openai_read_chat(api_request *out, const char *body, size_t len, const nvllm_request *defaults,
                      api_error *err)
{
    request_begin(out, defaults);
    out->chat = true;
    json_t *root = fields_parse(body, len, err);
    if (!root) return false;
    bool ok = read_body(out, root, err);
    json_decref(root);
    return ok;
}
