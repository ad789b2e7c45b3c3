/* bench's parts: what is measured (bench_measure.c), how one result is shown (bench_report.c), many of them
 * (bench_grid.c), and the limits they stand beside (bench_limits.c). */
#ifndef NVLLM_CLI_BENCH_H
#define NVLLM_CLI_BENCH_H

#include "cli.h"
#include "op_table.h"

typedef struct {
    double median, least, most;
} spread;

/* The sizes of a run; tokens. prompt 0: prompts are not timed. */
typedef struct {
    int32_t prompt, gen, batch, context, reps;
} bench_shape;

typedef struct {
    bench_shape shape;
    nvllm_model_info model;
    nvllm_stats engine;
    nvllm_limits limits;
    bool limits_kept; /* they were measured on another day */
    double open_ms, engine_ms,
        first_token_ms; /* since the program's start: model open, engine open, one token made */
    spread prompt_rate; /* prompt tokens per second, all sequences together */
    spread gen_rate;    /* generated tokens per second, all sequences together */
    double fill_rate;   /* prompt tokens per second while the cache was filled, once; 0: nothing to fill */
    int64_t peak_rss;   /* bytes, before the limits were measured */
    op_table decode, prompt; /* with --profile */
} bench_result;

/* The figures that follow from a result; times and bytes are of one step: one token of every sequence. */
typedef struct {
    double step_ms, gb_per_s, gb_share;
    double gflops, gflops_share; /* of the prompt */
} bench_derived;

bench_derived bench_derive(const bench_result *r);

/* Opens the engine, measures, closes it; an exit code. out->limits: what is known of them already, made better.
 * `start` is the time (seconds, CLOCK_MONOTONIC) at which the program began. misfit: NULL, or where a sentence goes
 * when the run does not fit the model's context or the memory; then that is no failure, and nothing is measured. */
int bench_measure(bench_result *out, const nvllm_model *model, const cli_args *args, const bench_shape *shape,
                  double start, double opened, nvllm_error *misfit);

enum { BENCH_LIST_MAX = 32 };

typedef struct {
    int32_t contexts[BENCH_LIST_MAX], batches[BENCH_LIST_MAX];
    int n_contexts, n_batches;
} bench_grid_shape;

/* --contexts and --batches; both return an exit code. */
int bench_grid_parse(bench_grid_shape *out, const cli_args *args);
/* All pairs, each row printed when it is measured. */
int bench_grid(const nvllm_model *model, const cli_args *args, const bench_grid_shape *shape, double start,
               double opened);

/* The parts of both reports. */
void bench_print_model(const bench_result *r);
void bench_print_machine(const bench_result *r);
json_t *bench_model_json(const bench_result *r);
json_t *bench_machine_json(const bench_result *r);
json_t *bench_spread_json(const spread *s);

void bench_print_table(const bench_result *r);
void bench_print_json(const bench_result *r);

double bench_now(void); /* seconds, CLOCK_MONOTONIC */

#endif
