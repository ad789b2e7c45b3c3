/* Measured limits and the file that keeps them, a JSON object {"GPU-...": {"name", "read_gb_per_s", "bf16_gflops"}};
 * see bench_limits.h. A file that cannot be read or written costs the measurement, nothing else. */
#define _GNU_SOURCE
#include "bench_limits.h"
#include "input.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static nvllm_limits limits_of(const json_t *file, const char *id)
{
    const json_t *entry = json_object_get(file, id);
    return (nvllm_limits){json_number_value(json_object_get(entry, "read_gb_per_s")),
                          json_number_value(json_object_get(entry, "bf16_gflops"))};
}

static bool complete(const nvllm_limits *limits)
{
    return limits->read_gb_per_s > 0 && limits->bf16_gflops > 0;
}

/* Written beside and renamed, so that nobody reads half a file. */
static void write_file(const json_t *file, const char *path)
{
    char *beside;
    if (asprintf(&beside, "%s.%ld", path, (long)getpid()) < 0) return;
    if (json_dump_file(file, beside, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) != 0 ||
        rename(beside, path) != 0)
        unlink(beside);
    free(beside);
}

static void keep(json_t **file, const char *path, const nvllm_stats *engine, const nvllm_limits *limits)
{
    if (!json_is_object(*file)) {
        json_decref(*file);
        *file = json_object();
    }
    json_object_set_new(*file, engine->device_id,
                        json_pack("{s:s?, s:f, s:f}", "name", engine->isa, "read_gb_per_s",
                                  limits->read_gb_per_s, "bf16_gflops", limits->bf16_gflops));
    write_file(*file, path);
}

nvllm_limits bench_limits(nvllm_engine *engine, bool again, bool *kept)
{
    nvllm_stats stats = nvllm_engine_stats(engine);
    char *path = stats.device_id ? cache_path("limits.json") : NULL;
    json_t *file = path ? json_load_file(path, 0, NULL) : NULL;
    nvllm_limits limits = path ? limits_of(file, stats.device_id) : (nvllm_limits){0};
    *kept = complete(&limits) && !again;
    if (!*kept) {
        limits = nvllm_measure_limits(engine);
        if (path && complete(&limits)) keep(&file, path, &stats, &limits);
    }
    json_decref(file);
    free(path);
    return limits;
}
