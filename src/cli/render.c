/* nano-vllm render: the exact text that a chat template makes of a context.
 *
 * With --template the context goes to the template as it is. With a model, `messages`, `tools` and
 * `add_generation_prompt` of the context are what the library's chat interface takes (a missing
 * add_generation_prompt is false, as in the template language), and the rest are further variables. */
#define _GNU_SOURCE
#include "cli.h"
#include "input.h"
#include "session.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int render_file(char **text, const cli_args *args, const char *context)
{
    char *source;
    size_t len;
    nvllm_error err = {0};
    if (!read_text(&source, &len, args->template_file)) return CLI_FAILED;
    nvllm_status status = nvllm_template_render(source, context, args->now, text, &err);
    free(source);
    return status ? report_failure(&err) : CLI_OK;
}

/* Takes `key` out of the context: its JSON text (free), or NULL when it is missing or null. */
static char *take_json(json_t *context, const char *key)
{
    json_t *value = json_object_get(context, key);
    char *text = value && !json_is_null(value) ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    json_object_del(context, key);
    return text;
}

static int render_messages(char **text, const nvllm_model *model, const cli_args *args, json_t *context)
{
    nvllm_error err = {0};
    int rc = CLI_OK;
    bool prompt = json_is_true(json_object_get(context, "add_generation_prompt"));
    json_object_del(context, "add_generation_prompt");
    char *messages = take_json(context, "messages"), *tools = take_json(context, "tools");
    char *variables = json_dumps(context, 0);
    nvllm_chat_options options = {
        .tools = tools, .variables = variables, .now = args->now, .no_generation_prompt = !prompt};
    if (!messages)
        rc = report_sentence("%s: no messages", input_name(args->context_file));
    else if (nvllm_chat_render(model, messages, &options, text, &err))
        rc = report_failure(&err);
    free(variables);
    free(tools);
    free(messages);
    return rc;
}

static int render_model(char **text, const cli_args *args, const char *context_text, size_t len)
{
    json_error_t where;
    nvllm_model *model = NULL;
    json_t *context = json_loadb(context_text, len, JSON_REJECT_DUPLICATES, &where);
    if (!context)
        return report_sentence("%s: line %d, column %d: %s", input_name(args->context_file), where.line,
                               where.column, where.text);
    int rc = json_is_object(context)
                 ? open_model(&model, args, NULL)
                 : report_sentence("%s: not a JSON object", input_name(args->context_file));
    if (!rc) rc = render_messages(text, model, args, context);
    nvllm_model_close(model);
    json_decref(context);
    return rc;
}

int command_render(const cli_args *args)
{
    char *context, *text = NULL;
    size_t len;
    if (!args->context_file) return report_usage("render", "render: --context is missing");
    if (args->template_file && args->model)
        return report_usage("render", "render: -m and --template exclude each other");
    if (!read_text(&context, &len, args->context_file)) return CLI_FAILED;
    int rc =
        args->template_file ? render_file(&text, args, context) : render_model(&text, args, context, len);
    if (!rc) {
        fputs(text, stdout);
        rc = finish_output();
    }
    nvllm_free(text);
    free(context);
    return rc;
}
