/* Chat templates behind the public interface: JSON text in, prompt text out. */
#include "api/handles.h"
#include "text/jinja.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nvllm_status parse(json_t **out, const char *text, const char *what, nvllm_error *err)
{
    json_error_t where;
    *out = NULL;
    if (!text) return NVLLM_OK;
    *out = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
    if (*out) return NVLLM_OK;
    return error_set(err, NVLLM_ERR_FORMAT, "%s: line %d, column %d: %s", what, where.line, where.column,
                     where.text);
}

static nvllm_status parse_now(jinja_options *out, const char *now, nvllm_error *err)
{
    struct tm t = {.tm_isdst = -1};
    char extra;
    if (!now) return NVLLM_OK;
    int n = sscanf(now, "%4d-%2d-%2d %2d:%2d:%2d%c", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour, &t.tm_min,
                   &t.tm_sec, &extra);
    if (n != 6 || t.tm_mon < 1 || t.tm_mon > 12 || t.tm_mday < 1 || t.tm_mday > 31 || t.tm_hour > 23 ||
        t.tm_min > 59 || t.tm_sec > 60)
        return error_set(err, NVLLM_ERR_USAGE, "\"%s\" is not a time like 2024-07-26 12:00:00", now);
    t.tm_year -= 1900;
    t.tm_mon--;
    mktime(&t); /* fills in the day of the week and of the year */
    out->now = t;
    out->has_now = true;
    return NVLLM_OK;
}

nvllm_status nvllm_template_render(const char *source, const char *context, const char *now, char **text,
                                   nvllm_error *err)
{
    jinja_options options = {0};
    jinja_template *t = NULL;
    json_t *variables = NULL;
    size_t len;
    nvllm_status st = parse_now(&options, now, err);
    if (!st) st = parse(&variables, context, "context", err);
    if (!st && variables && !json_is_object(variables))
        st = error_set(err, NVLLM_ERR_FORMAT, "context: not a JSON object");
    if (!st) st = jinja_compile(&t, source, strlen(source), err);
    if (!st) st = jinja_render(t, variables, &options, text, &len, err);
    jinja_free(t);
    json_decref(variables);
    return st;
}

nvllm_status nvllm_chat_render(const nvllm_model *m, const char *messages, const nvllm_chat_options *options,
                               char **text, nvllm_error *err)
{
    static const nvllm_chat_options defaults = {0};
    const model_text *side = model_text_of(m);
    if (!options) options = &defaults;
    if (!side->chat) {
        if (err) *err = side->chat_error;
        return side->chat_error.code;
    }
    chat_template_input in = {.no_generation_prompt = options->no_generation_prompt};
    json_t *list = NULL, *tools = NULL, *variables = NULL;
    size_t len;
    nvllm_status st = parse_now(&in.jinja, options->now, err);
    if (!st) st = parse(&list, messages, "messages", err);
    if (!st && !json_is_array(list)) st = error_set(err, NVLLM_ERR_FORMAT, "messages: not a JSON list");
    if (!st) st = parse(&tools, options->tools, "tools", err);
    if (!st) st = parse(&variables, options->variables, "variables", err);
    in.messages = list;
    in.tools = tools;
    in.variables = variables;
    if (!st) st = chat_template_render(side->chat, &in, text, &len, err);
    json_decref(list);
    json_decref(tools);
    json_decref(variables);
    return st;
}
