/* Figures for dashboards, in Prometheus' text format under vLLM's names.
 *
 * Counted on the I/O thread from the engine's events; what only the engine knows (pages, preemptions, the prefix
 * cache) is read from its statistics when somebody asks. */
#ifndef NVLLM_SERVE_METRICS_H
#define NVLLM_SERVE_METRICS_H

#include "nanovllm.h"
#include "serve/wire.h"

enum { METRIC_BUCKETS = 24 };

typedef struct {
    const double *bounds; /* [n], ascending; above them +Inf */
    int n;
    uint64_t counts[METRIC_BUCKETS + 1];
    uint64_t total;
    double sum;
} histogram;

typedef struct {
    uint64_t finished[NVLLM_FINISH_ERROR + 1];                       /* by nvllm_finish */
    uint64_t prompt_tokens;                                          /* of requests that gave a token */
    histogram first_token, inter_token, e2e, queue, prefill, decode; /* seconds */
    histogram request_prompt, request_generation, iteration;         /* tokens */
    uint64_t steps_seen, tokens_seen; /* of the engine, at the last iteration */
    uint64_t http_requests, clients_lost;
    int32_t preparing; /* requests that the worker has */
} metrics;

void metrics_open(metrics *m);
void metrics_first_token(metrics *m, int32_t prompt_tokens, double seconds);
void metrics_next_token(metrics *m, double seconds);
void metrics_end(metrics *m, nvllm_finish finish, const nvllm_usage *usage, double seconds);
/* The engine has made steps: their tokens, on average where several passed. */
void metrics_steps(metrics *m, const nvllm_stats *stats);

/* `stats` NULL: the model is not loaded yet. */
void metrics_write(wire *w, const metrics *m, const nvllm_stats *stats, const char *model_name);

#endif
