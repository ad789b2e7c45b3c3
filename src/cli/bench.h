/* bench's parts: what is measured (bench_measure.c) and how it is shown (bench_report.c). */
#ifndef NVLLM_CLI_BENCH_H
#define NVLLM_CLI_BENCH_H

#include "cli.h"

typedef struct {
    double median, least, most;
} spread;

/* The sizes of a run; tokens. */
typedef struct {
    int32_t prompt, gen, batch, context, reps;
} bench_shape;

typedef struct {
    bench_shape shape;
    nvllm_model_info model;
    nvllm_stats engine;
    nvllm_limits limits;
    double open_ms, engine_ms,
        first_token_ms; /* since the program's start: model open, engine open, one token made */
    spread prompt_rate; /* prompt tokens per second, all sequences together */
    spread gen_rate;    /* generated tokens per second, all sequences together */
    int64_t peak_rss;   /* bytes, before the limits were measured */
} bench_result;

/* Opens the engine, measures, closes it; an exit code. `start` is the time (seconds, CLOCK_MONOTONIC) at which the
 * program began. */
int bench_measure(bench_result *out, const nvllm_model *model, const cli_args *args, double start,
                  double opened);

void bench_print_table(const bench_result *r);
void bench_print_json(const bench_result *r);

double bench_now(void); /* seconds, CLOCK_MONOTONIC */

#endif
