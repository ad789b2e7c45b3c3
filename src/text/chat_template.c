/* See chat_template.h. */
#define _POSIX_C_SOURCE 200809L
#include "text/chat_template.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FILE ((size_t)64 << 20)

struct chat_template {
    char *source;
    jinja_template *usual, *with_tools; /* with_tools may be NULL */
    json_t *special_tokens;
};

/* --- reading the folder -------------------------------------------------------------------------------------------- */
typedef struct {
    char *usual, *tools;  /* sources; NULL: not found */
    json_t *config, *map; /* tokenizer_config.json, special_tokens_map.json; NULL: not there */
} folder_parts;

/* The text of folder/name, or NULL where there is no such file. */
static nvllm_status read_if_there(char **text, size_t *len, const char *folder, const char *name,
                                  nvllm_error *err)
{
    char *path = file_join(folder, name);
    *text = NULL;
    if (!path) return error_memory(err, strlen(folder) + strlen(name) + 2, "a path");
    nvllm_status status = file_exists(path) ? file_read(text, len, path, MAX_FILE, err) : NVLLM_OK;
    free(path);
    return status;
}

static nvllm_status read_json(json_t **out, const char *folder, const char *name, nvllm_error *err)
{
    char *text;
    size_t len = 0;
    json_error_t error;
    nvllm_status status = read_if_there(&text, &len, folder, name, err);
    if (status != NVLLM_OK || !text) return status;
    *out = json_loadb(text, len, JSON_ALLOW_NUL, &error);
    free(text);
    if (!*out) return error_set(err, NVLLM_ERR_FORMAT, "%s: line %d: %s", name, error.line, error.text);
    if (!json_is_object(*out)) return error_set(err, NVLLM_ERR_FORMAT, "%s: not a JSON object", name);
    return NVLLM_OK;
}

static nvllm_status take_source(char **slot, const json_t *source, nvllm_error *err)
{
    size_t len = json_string_length(source);
    if (*slot) return NVLLM_OK;
    if (memchr(json_string_value(source), 0, len)) {
        return error_set(err, NVLLM_ERR_FORMAT, "tokenizer_config.json: chat_template holds a NUL byte");
    }
    *slot = strdup(json_string_value(source));
    return *slot ? NVLLM_OK : error_memory(err, len, "the chat template");
}

/* `chat_template` of tokenizer_config.json into the slots that are still empty. */
static nvllm_status take_config(folder_parts *p, nvllm_error *err)
{
    const json_t *field = json_object_get(p->config, "chat_template"), *entry;
    nvllm_status status = NVLLM_OK;
    size_t i;
    if (!field || json_is_null(field)) return NVLLM_OK;
    if (json_is_string(field)) return take_source(&p->usual, field, err);
    if (!json_is_array(field)) {
        return error_set(err, NVLLM_ERR_FORMAT,
                         "tokenizer_config.json: chat_template is neither text nor a list");
    }
    json_array_foreach(field, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const json_t *source = json_object_get(entry, "template");
        if (!name || !json_is_string(source)) {
            return error_set(err, NVLLM_ERR_FORMAT,
                             "tokenizer_config.json: chat_template[%zu] lacks name or template", i);
        }
        if (strcmp(name, "default") == 0) status = take_source(&p->usual, source, err);
        if (strcmp(name, "tool_use") == 0) status = take_source(&p->tools, source, err);
        if (status != NVLLM_OK) return status;
    }
    return NVLLM_OK;
}

static nvllm_status take_additional(char **slot, const char *folder, const char *name, nvllm_error *err)
{
    size_t len = 0;
    return *slot ? NVLLM_OK : read_if_there(slot, &len, folder, name, err);
}

static nvllm_status read_folder(folder_parts *p, const char *folder, nvllm_error *err)
{
    size_t len = 0;
    nvllm_status status = read_if_there(&p->usual, &len, folder, "chat_template.jinja", err);
    if (status == NVLLM_OK) status = read_json(&p->config, folder, "tokenizer_config.json", err);
    if (status == NVLLM_OK) status = read_json(&p->map, folder, "special_tokens_map.json", err);
    if (status == NVLLM_OK) status = take_config(p, err);
    if (status == NVLLM_OK)
        status = take_additional(&p->usual, folder, "additional_chat_templates/default.jinja", err);
    if (status == NVLLM_OK)
        status = take_additional(&p->tools, folder, "additional_chat_templates/tool_use.jinja", err);
    if (status == NVLLM_OK && !p->usual) {
        status = error_set(err, NVLLM_ERR_UNSUPPORTED,
                           "%s: no chat template (chat_template.jinja, tokenizer_config.json or "
                           "additional_chat_templates/default.jinja)",
                           folder);
    }
    return status;
}

/* A special token is text, or an object with its text in "content". */
static void take_token(json_t *tokens, const char *name, const json_t *value)
{
    if (json_is_object(value)) value = json_object_get(value, "content");
    if (json_is_string(value)) json_object_set(tokens, name, (json_t *)value);
}

/* special_tokens_map.json goes first only where tokenizer_config.json is of the old kind, without added tokens. */
static json_t *special_tokens_of(const folder_parts *p)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    json_t *tokens = json_object();
    bool map_wins = !json_object_get(p->config, "added_tokens_decoder");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *from_config = json_object_get(p->config, names[i]);
        const json_t *from_map = json_object_get(p->map, names[i]);
        take_token(tokens, names[i], map_wins ? from_config : from_map);
        take_token(tokens, names[i], map_wins ? from_map : from_config);
    }
    return tokens;
}

/* --- opening ------------------------------------------------------------------------------------------------------- */
nvllm_status chat_template_open(chat_template **out, const char *folder, nvllm_error *err)
{
    folder_parts p = {0};
    json_t *tokens = NULL;
    *out = NULL;
    nvllm_status status = read_folder(&p, folder, err);
    if (status == NVLLM_OK) tokens = special_tokens_of(&p);
    if (status == NVLLM_OK) status = chat_template_from_source(out, p.usual, p.tools, tokens, err);
    json_decref(tokens);
    json_decref(p.config);
    json_decref(p.map);
    free(p.usual);
    free(p.tools);
    return status;
}

nvllm_status chat_template_from_source(chat_template **out, const char *source, const char *tool_source,
                                       const json_t *special_tokens, nvllm_error *err)
{
    *out = NULL;
    chat_template *ct = calloc(1, sizeof *ct);
    if (!ct) return error_memory(err, sizeof *ct, "the chat template");
    nvllm_status status = NVLLM_OK;
    ct->source = strdup(source);
    ct->special_tokens = special_tokens ? json_deep_copy(special_tokens) : json_object();
    if (!ct->source || !ct->special_tokens) status = error_memory(err, strlen(source), "the chat template");
    if (status == NVLLM_OK) status = jinja_compile(&ct->usual, source, strlen(source), err);
    if (status == NVLLM_OK && tool_source) {
        status = jinja_compile(&ct->with_tools, tool_source, strlen(tool_source), err);
    }
    if (status != NVLLM_OK) {
        chat_template_close(ct);
        return status;
    }
    *out = ct;
    return NVLLM_OK;
}

void chat_template_close(chat_template *ct)
{
    if (!ct) return;
    jinja_free(ct->usual);
    jinja_free(ct->with_tools);
    json_decref(ct->special_tokens);
    free(ct->source);
    free(ct);
}

const char *chat_template_source(const chat_template *ct)
{
    return ct->source;
}

/* --- rendering ----------------------------------------------------------------------------------------------------- */
/* The reasoning of a message is known by several names: templates get it as reasoning_content and as thinking,
 * as the reference gives it to them. Returns a new reference. */
static json_t *with_reasoning(json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *reasoning = NULL;
    for (size_t i = 0; i < 3 && !reasoning; i++) {
        json_t *value = json_object_get(message, names[i]);
        if (value && !json_is_null(value)) reasoning = value;
    }
    if (!reasoning) return json_incref(message);
    json_t *copy = json_object();
    json_object_set(copy, "thinking", reasoning);
    json_object_update(copy, message);
    json_object_set(copy, "reasoning_content", reasoning);
    return copy;
}

static nvllm_status check_input(const chat_template_input *in, nvllm_error *err)
{
    size_t i;
    const json_t *message;
    if (!json_is_array(in->messages)) return error_set(err, NVLLM_ERR_FORMAT, "messages: not a JSON list");
    json_array_foreach(in->messages, i, message)
    {
        if (!json_is_object(message))
            return error_set(err, NVLLM_ERR_FORMAT, "messages[%zu]: not a JSON object", i);
    }
    if (in->tools && !json_is_null(in->tools) && !json_is_array(in->tools)) {
        return error_set(err, NVLLM_ERR_FORMAT, "tools: not a JSON list");
    }
    if (in->variables && !json_is_null(in->variables) && !json_is_object(in->variables)) {
        return error_set(err, NVLLM_ERR_FORMAT, "variables: not a JSON object");
    }
    return NVLLM_OK;
}

static json_t *context_of(const chat_template *ct, const chat_template_input *in, bool has_tools)
{
    json_t *context = json_copy(ct->special_tokens), *messages = json_array(), *message;
    size_t i;
    json_array_foreach((json_t *)in->messages, i, message)
        json_array_append_new(messages, with_reasoning(message));
    json_object_set_new(context, "documents", json_null());
    json_object_set_new(context, "add_generation_prompt", json_boolean(!in->no_generation_prompt));
    if (json_is_object(in->variables)) json_object_update(context, (json_t *)in->variables);
    json_object_set_new(context, "messages", messages);
    if (has_tools) json_object_set(context, "tools", (json_t *)in->tools);
    if (!has_tools) json_object_set_new(context, "tools", json_null());
    return context;
}

nvllm_status chat_template_render(const chat_template *ct, const chat_template_input *in, char **text,
                                  size_t *len, nvllm_error *err)
{
    *text = NULL;
    *len = 0;
    nvllm_status status = check_input(in, err);
    if (status != NVLLM_OK) return status;
    bool has_tools = json_array_size(in->tools) > 0;
    json_t *context = context_of(ct, in, has_tools);
    if (!context) return error_memory(err, sizeof *in, "the template's context");
    const jinja_template *t = has_tools && ct->with_tools ? ct->with_tools : ct->usual;
    status = jinja_render(t, context, &in->jinja, text, len, err);
    json_decref(context);
    return status;
}
