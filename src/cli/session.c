/* Model, engine, request; see session.h. */
#define _GNU_SOURCE
#include "session.h"
#include "interrupt.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* ---- The default model ------------------------------------------------------------------------------------- */

/* `folder`/`below` when it can be read, else NULL. */
static char *existing(const char *folder, const char *below)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, below) < 0) return NULL;
    if (access(path, R_OK) == 0) return path;
    free(path);
    return NULL;
}

char *default_model(void)
{
    char folder[PATH_MAX];
    char *found = NULL;
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    folder[n > 0 ? n : 0] = 0;
    /* build/<preset>/nano-vllm is three levels below the checkout, bin/nano-vllm two below the prefix. */
    for (int level = 0; level < 3 && !found; level++) {
        char *slash = strrchr(folder, '/');
        if (!slash) break;
        *slash = 0;
        found = existing(folder, "models/demo");
        if (!found) found = existing(folder, "share/nano-vllm/models/demo");
    }
    if (!found) found = existing(".", "models/demo");
    if (!found) report_sentence("no model: give one with -m; models/demo, the default, was not found");
    return found;
}

/* ---- Opening ----------------------------------------------------------------------------------------------- */

static void report_tokenizer(const nvllm_tokenizer *tokenizer)
{
    const char *note = nvllm_tokenizer_note(tokenizer);
    if (note) report_sentence("tokenizer: %s", note);
}

int open_tokenizer(nvllm_tokenizer **out, const cli_args *args)
{
    nvllm_error err = {0};
    char *fallback = args->model ? NULL : default_model();
    if (!args->model && !fallback) return CLI_FAILED;
    nvllm_status status = nvllm_tokenizer_open(out, args->model ? args->model : fallback, &err);
    free(fallback);
    if (status) return report_failure(&err);
    report_tokenizer(*out);
    return CLI_OK;
}

int open_model(nvllm_model **out, const cli_args *args, const char *device)
{
    nvllm_error err = {0};
    nvllm_model_options options = {.source = args->model,
                                   .random_config = args->random_weights,
                                   .dtype = args->dtype,
                                   .device = device,
                                   .seed = (uint64_t)args->seed.value};
    char *fallback = NULL;
    if (!options.source && !options.random_config) {
        fallback = default_model();
        if (!fallback) return CLI_FAILED;
        options.source = fallback;
    }
    nvllm_status status = nvllm_model_open(out, &options, &err);
    free(fallback);
    return status ? report_failure(&err) : CLI_OK;
}

const char *device_name(const cli_args *args)
{
    if (args->isa && !args->device) return "cpu"; /* instructions are the CPU's */
    return args->device ? args->device : "auto";
}

void report_engine(nvllm_engine *engine)
{
    nvllm_stats stats = nvllm_engine_stats(engine);
    if (stats.passed_over) report_sentence("the CPU is used: %s", stats.passed_over);
    if (stats.unfused) report_sentence("single ops are used: %s", stats.unfused);
}

int open_engine_as(nvllm_engine **out, const nvllm_model *model, const nvllm_engine_options *options)
{
    nvllm_error err = {0};
    if (nvllm_engine_open(out, model, options, &err)) return report_failure(&err);
    report_engine(*out);
    return CLI_OK;
}

int open_engine(nvllm_engine **out, const nvllm_model *model, const cli_args *args)
{
    nvllm_engine_options options = {.device = args->device,
                                    .isa = args->isa,
                                    .threads = (int32_t)args->threads.value,
                                    .context = (int32_t)args->context.value,
                                    .max_sequences = 1,
                                    .kv_bytes = args->kv_memory.value,
                                    .fusion = (nvllm_fusion)args->fusion};
    const nvllm_tokenizer *tokenizer;
    int rc = open_engine_as(out, model, &options);
    if (!rc && !nvllm_model_tokenizer(model, &tokenizer, NULL)) report_tokenizer(tokenizer);
    return rc;
}

/* ---- Requests ---------------------------------------------------------------------------------------------- */

static void set_real(float *field, option_real option)
{
    if (option.given) *field = (float)option.value;
}

static void set_integer(int32_t *field, option_integer option)
{
    if (option.given) *field = (int32_t)option.value;
}

nvllm_request make_request(const nvllm_model *model, const cli_args *args)
{
    nvllm_request request = nvllm_request_defaults(model);
    set_real(&request.temperature, args->temperature);
    set_real(&request.top_p, args->top_p);
    set_real(&request.min_p, args->min_p);
    set_real(&request.repetition_penalty, args->repetition_penalty);
    set_real(&request.presence_penalty, args->presence_penalty);
    set_real(&request.frequency_penalty, args->frequency_penalty);
    set_integer(&request.top_k, args->top_k);
    set_integer(&request.max_tokens, args->max_tokens);
    set_integer(&request.logprobs, args->logprobs);
    if (args->seed.given)
        request.seed = (uint64_t)args->seed.value;
    else if (getrandom(&request.seed, sizeof request.seed, GRND_NONBLOCK) < 0)
        request.seed = 0;
    request.ignore_eos = args->ignore_eos;
    request.stop = args->stop.item;
    request.n_stop = args->stop.count;
    return request;
}

int generate(generation *out, nvllm_engine *engine, const nvllm_request *request, event_sink *sink,
             void *context)
{
    enum { POLL_MS = 50 }; /* how late Ctrl-C may be noticed */
    nvllm_error err = {0};
    uint64_t id;
    if (nvllm_submit(engine, request, &id, &err)) return report_failure(&err);
    interrupt_catch();
    bool asked_to_end = false;
    for (nvllm_event event;;) {
        if (interrupt_seen() && !asked_to_end) {
            nvllm_cancel(engine, id);
            asked_to_end = true;
        }
        if (nvllm_poll(engine, &event, 1, POLL_MS) == 0) continue;
        if (event.kind == NVLLM_EVENT_ERROR) {
            interrupt_release();
            return report_sentence("%s", event.error ? event.error : "the request failed");
        }
        sink(context, &event);
        if (event.kind == NVLLM_EVENT_DONE) {
            interrupt_release();
            *out = (generation){event.finish, event.usage};
            return CLI_OK;
        }
    }
}

static double per_second(double count, double ms)
{
    return ms > 0 ? count * 1000 / ms : 0;
}

void print_speed(const generation *result)
{
    const nvllm_usage *u = &result->usage;
    fprintf(stderr, "prompt %d tokens", (int)u->prompt_tokens);
    if (u->cached_tokens) fprintf(stderr, " (%d from the cache)", (int)u->cached_tokens);
    fprintf(stderr, ", %.1f tok/s; generated %d tokens, %.1f tok/s\n",
            per_second(u->prompt_tokens - u->cached_tokens, u->prompt_ms), (int)u->generated_tokens,
            per_second(u->generated_tokens - 1, u->generate_ms));
}

const char *finish_name(nvllm_finish finish)
{
    switch (finish) {
    case NVLLM_FINISH_NONE: break;
    case NVLLM_FINISH_STOP: return "stop";
    case NVLLM_FINISH_LENGTH: return "length";
    case NVLLM_FINISH_CANCELLED: return "cancelled";
    case NVLLM_FINISH_ERROR: return "error";
    }
    return "none";
}
