/* Prometheus text; see metrics.h. Format: https://prometheus.io/docs/instrumenting/exposition_formats/
 * Buckets are vLLM's, so that its dashboards read ours. */
#include "serve/metrics.h"

#include <string.h>

static const double first_token_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                            1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
static const double inter_token_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                            0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5,
                                            5,     7.5,    10,    20,   40,    80};
static const double request_bounds[] = {0.01, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,
                                        15,   20,  30,  40,  50,  60, 120, 240, 480, 960, 1920};
static const double token_bounds[] = {1,    2,    5,    10,    20,    50,    100,    200,    500,
                                      1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000};
static const double step_bounds[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static histogram over(const double *bounds, int n)
{
    return (histogram){.bounds = bounds, .n = n};
}

void metrics_open(metrics *m)
{
    *m = (metrics){.first_token = over(first_token_bounds, COUNT(first_token_bounds)),
                   .inter_token = over(inter_token_bounds, COUNT(inter_token_bounds)),
                   .e2e = over(request_bounds, COUNT(request_bounds)),
                   .queue = over(request_bounds, COUNT(request_bounds)),
                   .prefill = over(request_bounds, COUNT(request_bounds)),
                   .decode = over(request_bounds, COUNT(request_bounds)),
                   .request_prompt = over(token_bounds, COUNT(token_bounds)),
                   .request_generation = over(token_bounds, COUNT(token_bounds)),
                   .iteration = over(step_bounds, COUNT(step_bounds))};
}

static void observe(histogram *h, double value, uint64_t times)
{
    int i = 0;
    while (i < h->n && value > h->bounds[i]) i++;
    h->counts[i] += times;
    h->total += times;
    h->sum += value * (double)times;
}

void metrics_first_token(metrics *m, int32_t prompt_tokens, double seconds)
{
    m->prompt_tokens += (uint64_t)prompt_tokens;
    observe(&m->first_token, seconds, 1);
}

void metrics_next_token(metrics *m, double seconds)
{
    observe(&m->inter_token, seconds, 1);
}

void metrics_end(metrics *m, nvllm_finish finish, const nvllm_usage *usage, double seconds)
{
    m->finished[finish]++;
    observe(&m->e2e, seconds, 1);
    observe(&m->queue, usage->queue_ms * 1e-3, 1);
    observe(&m->prefill, usage->prompt_ms * 1e-3, 1);
    observe(&m->decode, usage->generate_ms * 1e-3, 1);
    observe(&m->request_prompt, usage->prompt_tokens, 1);
    observe(&m->request_generation, usage->generated_tokens, 1);
}

void metrics_steps(metrics *m, const nvllm_stats *stats)
{
    uint64_t tokens = stats->prompt_tokens + stats->generated_tokens, steps = stats->steps - m->steps_seen;
    if (steps == 0) return;
    observe(&m->iteration, (double)(tokens - m->tokens_seen) / (double)steps, steps);
    m->steps_seen = stats->steps;
    m->tokens_seen = tokens;
}

/* ---- Text -------------------------------------------------------------------------------------------------- */

/* What every line needs. */
typedef struct {
    wire *w;
    wire label; /* model_name="..." */
} page;

static void help(const page *p, const char *name, const char *type, const char *text)
{
    const char *const parts[] = {"# HELP ", name, " ", text, "\n# TYPE ", name, " ", type, "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) wire_text(p->w, parts[i]);
}

/* `extra`: further labels with a comma before them, or "". */
static void line(const page *p, const char *name, const char *suffix, const char *extra, double value)
{
    wire_text(p->w, name);
    wire_text(p->w, suffix);
    wire_text(p->w, "{");
    wire_append(p->w, &p->label);
    wire_text(p->w, extra);
    wire_text(p->w, "} ");
    if (value == (double)(int64_t)value)
        wire_integer(p->w, (int64_t)value);
    else
        wire_real(p->w, value);
    wire_text(p->w, "\n");
}

static void single(const page *p, const char *type, const char *name, double value, const char *text)
{
    help(p, name, type, text);
    line(p, name, "", "", value);
}

static void write_histogram(const page *p, const char *name, const histogram *h, const char *text)
{
    uint64_t below = 0;
    help(p, name, "histogram", text);
    for (int i = 0; i <= h->n; i++) {
        wire extra = {0};
        below += h->counts[i];
        wire_text(&extra, ",le=\"");
        if (i < h->n)
            wire_real(&extra, h->bounds[i]);
        else
            wire_text(&extra, "+Inf");
        wire_bytes(&extra, "\"", 2);
        line(p, name, "_bucket", extra.failed ? "" : extra.data, (double)below);
        wire_free(&extra);
    }
    line(p, name, "_sum", "", h->sum);
    line(p, name, "_count", "", (double)h->total);
}

static void write_engine(const page *p, const nvllm_stats *s)
{
    double usage = s->kv_tokens > 0 ? (double)s->kv_tokens_used / (double)s->kv_tokens : 0;
    single(p, "gauge", "vllm:num_requests_running", s->running, "Requests in the running batch.");
    single(p, "gauge", "vllm:num_requests_waiting", s->waiting, "Requests waiting to be run.");
    single(p, "gauge", "vllm:kv_cache_usage_perc", usage, "Share of the KV cache in use; 1 is all.");
    single(p, "counter", "vllm:generation_tokens_total", (double)s->generated_tokens, "Tokens generated.");
    single(p, "counter", "vllm:num_preemptions_total", (double)s->preemptions, "Preemptions by the engine.");
    single(p, "counter", "vllm:prefix_cache_queries_total", (double)s->prefix_queries,
           "Prompt tokens looked up in the prefix cache.");
    single(p, "counter", "vllm:prefix_cache_hits_total", (double)s->prefix_hits,
           "Prompt tokens found in the prefix cache.");
    single(p, "counter", "nanovllm:steps_total", (double)s->steps, "Steps of the engine.");
    single(p, "counter", "nanovllm:computed_prompt_tokens_total", (double)s->prompt_tokens,
           "Prompt tokens that were computed, not found in the prefix cache.");
    single(p, "gauge", "nanovllm:kv_cache_tokens", (double)s->kv_tokens,
           "Tokens that the KV cache holds in all.");
}

static void write_finished(const page *p, const metrics *m)
{
    static const struct {
        nvllm_finish finish;
        const char *label;
    } reasons[] = {{NVLLM_FINISH_STOP, ",finished_reason=\"stop\""},
                   {NVLLM_FINISH_LENGTH, ",finished_reason=\"length\""},
                   {NVLLM_FINISH_CANCELLED, ",finished_reason=\"abort\""},
                   {NVLLM_FINISH_ERROR, ",finished_reason=\"error\""}};
    help(p, "vllm:request_success_total", "counter", "Requests that have ended.");
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        line(p, "vllm:request_success_total", "", reasons[i].label, (double)m->finished[reasons[i].finish]);
}

void metrics_write(wire *w, const metrics *m, const nvllm_stats *stats, const char *model_name)
{
    static const nvllm_stats none = {0};
    page p = {.w = w};
    wire_text(&p.label, "model_name=");
    wire_json_string(&p.label, model_name, strlen(model_name));
    write_engine(&p, stats ? stats : &none);
    single(&p, "counter", "vllm:prompt_tokens_total", (double)m->prompt_tokens, "Prompt tokens processed.");
    write_finished(&p, m);
    write_histogram(&p, "vllm:time_to_first_token_seconds", &m->first_token, "Time to the first token.");
    write_histogram(&p, "vllm:inter_token_latency_seconds", &m->inter_token, "Time from token to token.");
    write_histogram(&p, "vllm:e2e_request_latency_seconds", &m->e2e, "Time from request to end.");
    write_histogram(&p, "vllm:request_queue_time_seconds", &m->queue, "Time a request waited.");
    write_histogram(&p, "vllm:request_prefill_time_seconds", &m->prefill, "Time of a request's prompt.");
    write_histogram(&p, "vllm:request_decode_time_seconds", &m->decode, "Time of a request's answer.");
    write_histogram(&p, "vllm:request_prompt_tokens", &m->request_prompt, "Prompt tokens of a request.");
    write_histogram(&p, "vllm:request_generation_tokens", &m->request_generation,
                    "Generated tokens of a request.");
    write_histogram(&p, "vllm:iteration_tokens_total", &m->iteration, "Tokens of a step.");
    single(&p, "counter", "nanovllm:http_requests_total", (double)m->http_requests,
           "HTTP requests answered.");
    single(&p, "gauge", "nanovllm:num_requests_preparing", m->preparing,
           "Requests with a long body that is being tokenized, or waits for that.");
    single(&p, "counter", "nanovllm:clients_lost_total", (double)m->clients_lost,
           "Clients that left, or read too slowly, before their answer was complete.");
    wire_free(&p.label);
}
