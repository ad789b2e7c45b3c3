/* /tokenize, /detokenize and /tokenizer_info, as vLLM has them. */
#include "serve/openai_fields.h"
#include "serve/preparation.h"
#include "serve/routes.h"

#include <stdlib.h>
#include <string.h>

/* A flag of the body, or its default. */
static bool flag(const json_t *body, const char *name, bool fallback)
{
    const json_t *value = json_object_get(body, name);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

static void write_strings(wire *w, const nvllm_tokenizer *t, const int32_t *ids, size_t n)
{
    wire_text(w, "[");
    for (size_t i = 0; i < n; i++) {
        char *bytes = NULL;
        size_t len = 0;
        if (i) wire_text(w, ",");
        if (nvllm_token_bytes(t, ids[i], &bytes, &len, NULL)) len = 0;
        wire_json_string(w, bytes, len);
        nvllm_free(bytes);
    }
    wire_text(w, "]");
}

/* The text to tokenize: the prompt, or what the template makes of the messages (then *rendered is to be freed). */
static bool find_text(const server *s, const json_t *body, char **rendered, const char **text, size_t *len,
                      api_error *err)
{
    const json_t *prompt = json_object_get(body, "prompt"), *messages = json_object_get(body, "messages");
    nvllm_error why = {0};
    if (json_is_string(prompt)) {
        *text = json_string_value(prompt);
        *len = json_string_length(prompt);
        return true;
    }
    if (!json_is_array(messages))
        return api_error_field(err, "prompt", "prompt (a string) or messages is missing");
    char *list = json_dumps(messages, JSON_COMPACT);
    char *variables = json_dumps(json_object_get(body, "chat_template_kwargs"), JSON_COMPACT);
    nvllm_chat_options options = {.variables = variables,
                                  .no_generation_prompt = !flag(body, "add_generation_prompt", true)};
    nvllm_status st =
        list ? nvllm_chat_render(s->model.model, list, &options, rendered, &why) : NVLLM_ERR_MEMORY;
    free(list);
    free(variables);
    if (st) return api_error_from(err, &why, "messages");
    *text = *rendered;
    *len = strlen(*rendered);
    return true;
}

static bool tokenize(const server *s, const json_t *body, wire *w, api_error *err)
{
    char *rendered = NULL;
    const char *text = NULL;
    size_t len = 0, n;
    int32_t *ids;
    nvllm_error why = {0};
    if (!check_model(s, json_string_value(json_object_get(body, "model")), err)) return false;
    if (!find_text(s, body, &rendered, &text, &len, err)) return false;
    unsigned flags = NVLLM_PARSE_SPECIAL;
    if (flag(body, "add_special_tokens", !rendered)) flags |= NVLLM_ADD_SPECIAL;
    nvllm_status st = nvllm_tokenize(s->model.tokenizer, text, len, flags, &ids, &n, &why);
    nvllm_free(rendered);
    if (st) return api_error_from(err, &why, "prompt");
    wire_text(w, "{\"count\":");
    wire_integer(w, (int64_t)n);
    wire_text(w, ",\"max_model_len\":");
    wire_integer(w, s->model.context);
    wire_text(w, ",\"tokens\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) wire_text(w, ",");
        wire_integer(w, ids[i]);
    }
    wire_text(w, "],\"token_strs\":");
    if (flag(body, "return_token_strs", false))
        write_strings(w, s->model.tokenizer, ids, n);
    else
        wire_text(w, "null");
    wire_text(w, "}");
    nvllm_free(ids);
    return true;
}

static bool detokenize(const server *s, const json_t *body, wire *w, api_error *err)
{
    int32_t *ids = NULL;
    size_t n, len;
    char *text;
    nvllm_error why = {0};
    const json_t *tokens = json_object_get(body, "tokens");
    if (!check_model(s, json_string_value(json_object_get(body, "model")), err)) return false;
    if (!json_is_array(tokens)) return api_error_field(err, "tokens", "tokens is not a list of token ids");
    if (!field_copy_ids(&ids, &n, "tokens", tokens, err)) return false;
    nvllm_status st = nvllm_detokenize(s->model.tokenizer, ids, n, 0, &text, &len, &why);
    free(ids);
    if (st) return api_error_from(err, &why, "tokens");
    wire_text(w, "{\"prompt\":");
    wire_json_string(w, text, len);
    wire_text(w, "}");
    nvllm_free(text);
    return true;
}

static bool make(preparation *p, bool write(const server *, const json_t *, wire *, api_error *))
{
    json_t *body = fields_parse(p->body.data, p->body.len, &p->error);
    bool ok = body && write(p->server, body, &p->answer, &p->error);
    json_decref(body);
    return ok;
}

static bool make_tokens(preparation *p)
{
    return make(p, tokenize);
}

static bool make_text(preparation *p)
{
    return make(p, detokenize);
}

enum MHD_Result answer_tokenize(exchange *x)
{
    return exchange_prepare(x, make_tokens);
}

enum MHD_Result answer_detokenize(exchange *x)
{
    return exchange_prepare(x, make_text);
}

enum MHD_Result answer_tokenizer_info(exchange *x)
{
    const server *s = x->server;
    nvllm_model_info info = nvllm_model_describe(s->model.model);
    wire w = {0};
    wire_text(&w, "{\"model\":");
    wire_json_string(&w, s->model_name, strlen(s->model_name));
    wire_text(&w, ",\"architecture\":");
    wire_json_string(&w, info.architecture, strlen(info.architecture));
    wire_text(&w, ",\"vocab_size\":");
    wire_integer(&w, info.vocab_size);
    wire_text(&w, ",\"max_model_len\":");
    wire_integer(&w, s->model.context);
    wire_text(&w, ",\"has_chat_template\":");
    wire_bool(&w, info.has_chat_template);
    wire_text(&w, "}");
    return exchange_send_json(x, &w);
}
