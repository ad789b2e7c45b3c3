/* nano-vllm bench: opens the model, measures, reports. */
#include "cli.h"
#include "bench.h"
#include "session.h"

int command_bench(const cli_args *args)
{
    double start = bench_now();
    nvllm_model *model = NULL;
    bench_result result = {0};
    if (args->model && args->random_weights)
        return report_usage("bench", "bench: -m and --random-weights exclude each other");
    if (args->dtype && !args->random_weights)
        return report_usage("bench", "bench: --dtype is for --random-weights; a model has its own");
    int rc = open_model(&model, args, device_name(args));
    if (!rc) rc = bench_measure(&result, model, args, start, bench_now());
    if (!rc) {
        if (args->json)
            bench_print_json(&result);
        else
            bench_print_table(&result);
        rc = finish_output();
    }
    nvllm_model_close(model);
    return rc;
}
