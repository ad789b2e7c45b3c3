/* /v1/chat/completions and /v1/completions: read, render, tokenize; the rest is the exchange's. */
#include "serve/log.h"
#include "serve/preparation.h"
#include "serve/routes.h"

#include <string.h>

typedef bool request_reader(api_request *out, const char *body, size_t len, const nvllm_request *defaults,
                            api_error *err);

static bool make(preparation *p, request_reader *read)
{
    const server *s = p->server;
    const wire *body = &p->body;
    api_request request;
    if (s->options->log_prompts) log_text("request ", body->data, body->len);
    bool ok = read(&request, body->data, body->len, &s->defaults, &p->error) &&
              check_model(s, request.model, &p->error);
    if (ok && request.unknown[0])
        log_text("ignored request field ", request.unknown, strlen(request.unknown));
    if (ok) ok = generation_prepare(&p->generation, &request, &s->model, &p->error);
    api_request_free(&request);
    return ok;
}

static bool make_chat(preparation *p)
{
    return make(p, openai_read_chat);
}

static bool make_completion(preparation *p)
{
    return make(p, openai_read_completion);
}

enum MHD_Result answer_chat(exchange *x)
{
    return exchange_prepare(x, make_chat);
}

enum MHD_Result answer_completion(exchange *x)
{
    return exchange_prepare(x, make_completion);
}
