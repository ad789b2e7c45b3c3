/* /v1/chat/completions and /v1/completions: read, submit, answer. */
#include "serve/log.h"
#include "serve/routes.h"

#include <string.h>

typedef bool request_reader(api_request *out, const char *body, size_t len, const nvllm_request *defaults,
                            api_error *err);

static bool submit(exchange *x, request_reader *read, generation **g, api_error *err)
{
    server *s = x->server;
    api_request request;
    bool ok =
        read(&request, x->body.data, x->body.len, &s->defaults, err) && check_model(s, request.model, err);
    if (ok && request.unknown[0])
        log_text("ignored request field ", request.unknown, strlen(request.unknown));
    if (ok) {
        ok = generation_submit(g, &request, &s->model, err);
        event_pump_wake(
            s->pump); /* also after a failure: some of it may have been submitted, and cancelled */
    }
    api_request_free(&request);
    return ok;
}

static enum MHD_Result generate(exchange *x, request_reader *read)
{
    api_error err;
    generation *g;
    if (x->server->options->log_prompts) log_text("request ", x->body.data, x->body.len);
    if (!submit(x, read, &g, &err)) return exchange_send_error(x, &err);
    return exchange_send_generation(x, g);
}

enum MHD_Result answer_chat(exchange *x)
{
    return generate(x, openai_read_chat);
}

enum MHD_Result answer_completion(exchange *x)
{
    return generate(x, openai_read_completion);
}
