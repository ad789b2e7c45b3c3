/* bench --contexts --batches: the speed of generation over all pairs, an engine of its own for each.
 *
 * A pair that the model's context or the memory does not allow is a row that says so. Rows are printed as they are
 * measured, so a run that is cut short has not been for nothing. */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* "1,8,32" into out, [BENCH_LIST_MAX]; an exit code. */
static int parse_list(int32_t *out, int *count, const char *option, const char *text, long most)
{
    for (const char *at = text;; at++) {
        char *end;
        errno = 0;
        long value = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || errno || value < 1 || value > most)
            return report_usage("bench", "bench: list of --%s: '%s' is not made of numbers from 1 to %ld",
                                option, text, most);
        if (*count == BENCH_LIST_MAX)
            return report_usage("bench", "bench: list of --%s: more than %d numbers", option, BENCH_LIST_MAX);
        out[(*count)++] = (int32_t)value;
        at = end;
        if (!*at) return CLI_OK;
    }
}

/* The list, or else the one value, or else 1. */
static int take_list(int32_t *out, int *count, const char *option, const char *list, option_integer one,
                     long most)
{
    *count = 0;
    if (list && one.given)
        return report_usage("bench", "bench: --%s and its list exclude each other", option);
    if (list) return parse_list(out, count, option, list, most);
    out[(*count)++] = one.given ? (int32_t)one.value : 1;
    return CLI_OK;
}

int bench_grid_parse(bench_grid_shape *out, const cli_args *args)
{
    if (args->op_times || args->prompt_tokens.given)
        return report_usage("bench", "bench: --%s is for one --context and one --batch",
                            args->op_times ? "profile" : "prompt-tokens");
    int rc = take_list(out->contexts, &out->n_contexts, "context", args->contexts, args->context, 1 << 24);
    return rc ? rc : take_list(out->batches, &out->n_batches, "batch", args->batches, args->batch, 4096);
}

static void print_head(const bench_result *r)
{
    bench_print_model(r);
    printf("runs      %d tokens of each sequence, median of %d; fill: tok/s of the prompts, once\n\n",
           (int)r->shape.gen, (int)r->shape.reps);
    printf("%8s %6s  %10s  %10s  %10s  %10s  %9s  %8s  %7s  %10s\n", "context", "batch", "tok/s", "least",
           "most", "ms/step", "GB/s", "limit", "kernels", "fill");
}

static void print_row(const bench_result *r, const nvllm_error *misfit)
{
    bench_derived d = bench_derive(r);
    printf("%8d %6d  ", (int)r->shape.context, (int)r->shape.batch);
    if (misfit->code)
        printf("%s\n", misfit->message);
    else
        printf("%10.1f  %10.1f  %10.1f  %10.3f  %9.1f  %6.1f %%  %7d  %10.1f\n", r->gen_rate.median,
               r->gen_rate.least, r->gen_rate.most, d.step_ms, d.gb_per_s, d.gb_share * 100,
               (int)r->engine.kernels_per_step, r->fill_rate);
    fflush(stdout);
}

static json_t *row_json(const bench_result *r, const nvllm_error *misfit)
{
    bench_derived d = bench_derive(r);
    json_t *o = json_pack("{s:i, s:i}", "context", (int)r->shape.context, "batch", (int)r->shape.batch);
    if (misfit->code) {
        json_object_set_new(o, "misfit", json_string(misfit->message));
        return o;
    }
    json_object_set_new(o, "generated_tokens_per_second", bench_spread_json(&r->gen_rate));
    json_object_set_new(o, "ms_per_step", json_real(d.step_ms));
    json_object_set_new(o, "gb_per_s", json_real(d.gb_per_s));
    json_object_set_new(o, "share_of_bandwidth", json_real(d.gb_share));
    json_object_set_new(o, "kernels_per_step", json_integer(r->engine.kernels_per_step));
    json_object_set_new(o, "fill_tokens_per_second", json_real(r->fill_rate));
    json_object_set_new(o, "kv_bytes", json_integer(r->engine.kv_bytes));
    return o;
}

static void print_json(const bench_result *last, json_t *rows)
{
    json_t *document = json_pack("{s:s, s:o, s:o, s:i, s:i, s:O}", "version", nvllm_version(), "model",
                                 bench_model_json(last), "machine", bench_machine_json(last), "gen_tokens",
                                 (int)last->shape.gen, "reps", (int)last->shape.reps, "rows", rows);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(document);
}

int bench_grid(const nvllm_model *model, const cli_args *args, const bench_grid_shape *grid, double start,
               double opened)
{
    bench_result r = {0};
    bench_shape shape = {.gen = args->gen_tokens.given ? (int32_t)args->gen_tokens.value : 64,
                         .reps = args->reps.given ? (int32_t)args->reps.value : 5};
    json_t *rows = json_array();
    nvllm_error misfit = {0};
    int rc = CLI_OK, measured = 0;
    for (int i = 0; i < grid->n_contexts * grid->n_batches; i++) {
        misfit = (nvllm_error){0};
        shape.context = grid->contexts[i / grid->n_batches];
        shape.batch = grid->batches[i % grid->n_batches];
        rc = bench_measure(&r, model, args, &shape, start, opened, &misfit);
        if (rc) break;
        if (!args->json && i == 0) print_head(&r);
        if (!args->json) print_row(&r, &misfit);
        json_array_append_new(rows, row_json(&r, &misfit));
        measured += misfit.code == NVLLM_OK;
    }
    if (!rc && measured == 0) rc = report_sentence("nothing could be measured: %s", misfit.message);
    if (!rc && !args->json) bench_print_machine(&r);
    if (!rc && args->json) print_json(&r, rows);
    json_decref(rows);
    return rc ? rc : finish_output();
}
