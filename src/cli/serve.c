/* nano-vllm serve: the options of the HTTP server; the server itself is src/serve. */
#define _GNU_SOURCE
#include "cli.h"
#include "session.h"
#include "serve/serve.h"

#include <stdlib.h>
#include <string.h>

#define KIB ((int64_t)1024)

static int64_t or_default(option_integer option, int64_t fallback)
{
    return option.given ? option.value : fallback;
}

/* The keys given, with the one of the environment; in `keys`, which has room for one more. */
static size_t collect_keys(const char **keys, const cli_args *args)
{
    size_t n = 0;
    const char *environment = getenv("NANO_VLLM_API_KEY");
    for (; n < args->api_keys.count; n++) keys[n] = args->api_keys.item[n];
    if (environment && *environment) keys[n++] = environment;
    return n;
}

static serve_options make_options(const cli_args *args)
{
    return (serve_options){.model = {.source = args->model, .device = device_name(args)},
                           .engine = {.device = args->device,
                                      .isa = args->isa,
                                      .threads = (int32_t)args->threads.value,
                                      .context = (int32_t)args->context.value,
                                      .max_sequences = (int32_t)or_default(args->max_sequences, 32),
                                      .kv_bytes = args->kv_memory.value,
                                      .step_tokens = (int32_t)args->step_tokens.value,
                                      .queue = (int32_t)args->max_queue.value,
                                      .no_prefix_cache = args->no_prefix_cache,
                                      .fusion = (nvllm_fusion)args->fusion},
                           .served_name = args->served_model_name,
                           .host = args->host ? args->host : "127.0.0.1",
                           .port = (int)or_default(args->port, 8000),
                           .api_key_file = args->api_key_file,
                           .cors = args->cors.item,
                           .n_cors = args->cors.count,
                           .max_body = (size_t)(or_default(args->max_body, 16 * KIB) * KIB),
                           .max_header = (size_t)(or_default(args->max_header, 16) * KIB),
                           .max_buffer = (size_t)(or_default(args->max_buffer, 4 * KIB) * KIB),
                           .max_answer = (size_t)(or_default(args->max_answer, 64 * KIB) * KIB),
                           .max_connections = (int)or_default(args->max_connections, 4096),
                           .idle_s = (int)or_default(args->idle_timeout, 120),
                           .drain_s = (int)or_default(args->drain_timeout, 30),
                           .keepalive_s = (int)or_default(args->keepalive, 15),
                           .log_requests = args->log_requests,
                           .log_prompts = args->log_prompts,
                           .notify_socket = getenv("NOTIFY_SOCKET")};
}

int command_serve(const cli_args *args)
{
    const char *keys[OPTION_LIST_MAX + 1];
    serve_options options = make_options(args);
    options.api_keys = keys;
    options.n_api_keys = collect_keys(keys, args);
    char *fallback = args->model ? NULL : default_model();
    if (!args->model && !fallback) return CLI_FAILED;
    if (fallback) options.model.source = fallback;
    int rc = serve_run(&options) ? CLI_FAILED : CLI_OK;
    free(fallback);
    return rc;
}
