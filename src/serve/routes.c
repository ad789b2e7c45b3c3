/* The table of routes, and the short ones; see routes.h. */
#include "serve/routes.h"

#include <string.h>

static enum MHD_Result answer_health(exchange *x)
{
    const server *s = x->server;
    const char *failure = s->ready ? nvllm_engine_stats(s->model.engine).failure : NULL;
    if (s->ready && !s->draining && !failure) return exchange_send(x, 200, "application/json", "{}", 2);
    api_error err;
    api_error_set(&err, 503, NULL, "%s",
                  !s->ready ? "the model is being loaded"
                  : failure ? failure
                            : "the server is shutting down");
    return exchange_send_error(x, &err);
}

static enum MHD_Result answer_version(exchange *x)
{
    wire w = {0};
    wire_text(&w, "{\"version\":\"");
    wire_text(&w, nvllm_version());
    wire_text(&w, "\"}");
    return exchange_send_json(x, &w);
}

static enum MHD_Result answer_metrics(exchange *x)
{
    server *s = x->server;
    wire w = {0};
    nvllm_stats stats = {0};
    if (s->ready) stats = nvllm_engine_stats(s->model.engine);
    metrics_write(&w, &s->metrics, s->ready ? &stats : NULL, s->model_name);
    enum MHD_Result rc = exchange_send(x, 200, "text/plain; version=0.0.4; charset=utf-8", w.data, w.len);
    wire_free(&w);
    return rc;
}

/* ---- Models ------------------------------------------------------------------------------------------------ */

bool check_model(const server *s, const char *model, api_error *err)
{
    if (!model || strcmp(model, s->model_name) == 0) return true;
    api_error_set(err, 404, "model_not_found",
                  "the model `%.200s` does not exist here; this server has `%.200s`", model, s->model_name);
    memcpy(err->param, "model", sizeof "model");
    return false;
}

static void write_model(wire *w, const server *s)
{
    wire_text(w, "{\"id\":");
    wire_json_string(w, s->model_name, strlen(s->model_name));
    wire_text(w, ",\"object\":\"model\",\"created\":");
    wire_integer(w, s->started);
    wire_text(w, ",\"owned_by\":\"nano-vllm\",\"root\":");
    wire_json_string(w, s->model_name, strlen(s->model_name));
    wire_text(w, ",\"parent\":null,\"max_model_len\":");
    wire_integer(w, s->model.context);
    wire_text(w, "}");
}

static enum MHD_Result answer_models(exchange *x)
{
    wire w = {0};
    wire_text(&w, "{\"object\":\"list\",\"data\":[");
    write_model(&w, x->server);
    wire_text(&w, "]}");
    return exchange_send_json(x, &w);
}

static enum MHD_Result answer_model(exchange *x)
{
    api_error err;
    wire w = {0};
    if (!check_model(x->server, x->url + strlen("/v1/models/"), &err)) return exchange_send_error(x, &err);
    write_model(&w, x->server);
    return exchange_send_json(x, &w);
}

/* ---- The table --------------------------------------------------------------------------------------------- */

static const route routes[] = {
    {"/", "GET", false, false, answer_page},
    {"/health", "GET", false, false, answer_health},
    {"/metrics", "GET", false, false, answer_metrics},
    {"/version", "GET", false, false, answer_version},
    {"/v1/models", "GET", true, true, answer_models},
    {"/v1/models/", "GET", true, true, answer_model},
    {"/v1/chat/completions", "POST", true, true, answer_chat},
    {"/v1/completions", "POST", true, true, answer_completion},
    {"/tokenize", "POST", true, true, answer_tokenize},
    {"/detokenize", "POST", true, true, answer_detokenize},
    {"/tokenizer_info", "GET", true, true, answer_tokenizer_info},
    {NULL, NULL, false, false, NULL},
};

static bool path_matches(const char *pattern, const char *path)
{
    size_t len = strlen(pattern);
    if (len > 1 && pattern[len - 1] == '/') return strncmp(path, pattern, len) == 0 && path[len];
    return strcmp(path, pattern) == 0;
}

static bool method_matches(const char *wanted, const char *method)
{
    return strcmp(wanted, method) == 0 || (strcmp(wanted, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

const route *route_find(const char *path, const char *method, const char **allowed)
{
    *allowed = NULL;
    for (const route *r = routes; r->path; r++) {
        if (!path_matches(r->path, path)) continue;
        if (method_matches(r->method, method)) return r;
        *allowed = r->method;
    }
    return NULL;
}
