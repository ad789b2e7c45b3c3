/* nano-vllm bench: opens the model, measures, reports. */
#include "cli.h"
#include "bench.h"
#include "prompt_ids.h"
#include "session.h"

static int32_t or_default(option_integer option, int32_t fallback)
{
    return option.given ? (int32_t)option.value : fallback;
}

static int bench_one(const nvllm_model *model, const cli_args *args, double start, double opened)
{
    bench_result result = {0};
    bench_shape shape = {or_default(args->prompt_tokens, 128), or_default(args->gen_tokens, 64),
                         or_default(args->batch, 1), or_default(args->context, 1), or_default(args->reps, 5)};
    int rc = bench_measure(&result, model, args, &shape, start, opened, NULL);
    if (rc) return rc;
    if (args->json)
        bench_print_json(&result);
    else
        bench_print_table(&result);
    return finish_output();
}

int command_bench(const cli_args *args)
{
    double start = bench_now();
    nvllm_model *model = NULL;
    bool grid = args->contexts || args->batches;
    bench_grid_shape shape;
    int rc = check_model_options("bench", args);
    if (!rc && grid) rc = bench_grid_parse(&shape, args);
    if (!rc) rc = open_model(&model, args, device_name(args));
    if (!rc)
        rc = grid ? bench_grid(model, args, &shape, start, bench_now())
                  : bench_one(model, args, start, bench_now());
    nvllm_model_close(model);
    return rc;
}
