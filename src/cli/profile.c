/* nano-vllm profile: a prompt and some tokens with every op timed, as Chrome trace events.
 *
 * Two lanes: what the host does in a step (plan, launch, wait and finish), and the ops on the device. On the CPU ops
 * run while they are launched; a GPU begins a step's ops when all have been launched (model/profile.h). Times are
 * microseconds since the profile began. */
#define _GNU_SOURCE
#include "cli.h"
#include "op_table.h"
#include "prompt_ids.h"
#include "session.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOST = 1, DEVICE = 2, PROMPT_TOKENS = 128, GEN_TOKENS = 16 };

/* ---- The trace ----------------------------------------------------------------------------------------------- */

static double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static long long whole(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void write_lane(FILE *out, int lane, const char *name)
{
    fprintf(out, "{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"%s\"}},\n",
            lane, name);
}

/* The part of an event up to its args. Names are ours: nothing in them needs an escape. */
static void write_event(FILE *out, int lane, const char *name, double start, double took)
{
    fprintf(out,
            ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"name\":\"%s\",\"ts\":%.3f,\"dur\":%.3f,\"args\":", lane,
            name, start, took > 0 ? took : 0);
}

static void write_host(FILE *out, const json_t *step)
{
    static const struct {
        const char *name, *from, *to;
    } parts[] = {{"plan", "begin_us", "launch_us"},
                 {"launch", "launch_us", "launched_us"},
                 {"wait and finish", "launched_us", "end_us"}};
    write_event(out, HOST, "step", real(step, "begin_us"), real(step, "end_us") - real(step, "begin_us"));
    fprintf(out, "{\"tokens\":%lld,\"rows\":%lld,\"kv_tokens\":%lld}}", whole(step, "tokens"),
            whole(step, "rows"), whole(step, "kv_tokens"));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        write_event(out, HOST, parts[i].name, real(step, parts[i].from),
                    real(step, parts[i].to) - real(step, parts[i].from));
        fputs("{}}", out);
    }
}

/* time: [index, start, us, bytes, flops]. */
static void write_op(FILE *out, const json_t *ops, const json_t *time)
{
    const json_t *op = json_array_get(ops, (size_t)json_integer_value(json_array_get(time, 0)));
    const char *kind = json_string_value(json_object_get(op, "op"));
    const char *role = json_string_value(json_object_get(op, "role"));
    double took = json_number_value(json_array_get(time, 2));
    double bytes = json_number_value(json_array_get(time, 3)),
           flops = json_number_value(json_array_get(time, 4));
    char name[64];
    snprintf(name, sizeof name, "%s%s%s", kind ? kind : "op", role && *role ? " " : "", role ? role : "");
    write_event(out, DEVICE, name, json_number_value(json_array_get(time, 1)), took);
    fprintf(out, "{\"layer\":%lld,\"bytes\":%.0f,\"flops\":%.0f,\"GB/s\":%.1f}}", whole(op, "layer"), bytes,
            flops, took > 0 ? bytes / took * 1e-3 : 0);
}

static void write_trace(FILE *out, const json_t *profile, const char *device)
{
    const json_t *ops = json_object_get(profile, "ops"), *steps = json_object_get(profile, "steps");
    size_t s, i;
    json_t *step, *time;
    fputs("[\n", out);
    write_lane(out, HOST, "host");
    write_lane(out, DEVICE, device);
    fputs("{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"nano-vllm\"}}", out);
    json_array_foreach(steps, s, step)
    {
        write_host(out, step);
        json_array_foreach(json_object_get(step, "times"), i, time)
        {
            write_op(out, ops, time);
        }
    }
    fputs("\n]\n", out);
}

static int save_trace(const char *path, const json_t *profile, const char *device)
{
    bool to_stdout = strcmp(path, "-") == 0;
    FILE *out = to_stdout ? stdout : fopen(path, "w");
    if (!out) return report_sentence("%s: %s", path, strerror(errno));
    write_trace(out, profile, device);
    if (to_stdout) return CLI_OK; /* finish_output sees whether it arrived */
    bool good = !ferror(out);
    if (fclose(out) != 0 || !good) return report_sentence("%s: %s", path, strerror(errno));
    return CLI_OK;
}

/* ---- The run ------------------------------------------------------------------------------------------------- */

static void ignore_event(void *context, const nvllm_event *event)
{
    (void)context;
    (void)event;
}

/* One token, so that weights are in memory and the device is awake. */
static int warm_up(nvllm_engine *engine, nvllm_request request)
{
    static const int32_t one[1] = {0};
    generation result;
    request.text = NULL;
    request.ids = one;
    request.n_ids = 1;
    request.max_tokens = 2;
    return generate(&result, engine, &request, ignore_event, NULL);
}

static int record(json_t **profile, nvllm_engine *engine, const nvllm_request *request)
{
    nvllm_error err = {0};
    generation result;
    char *json = NULL;
    int rc = warm_up(engine, *request);
    if (!rc && nvllm_profile_start(engine, &err)) rc = report_failure(&err);
    if (rc) return rc;
    rc = generate(&result, engine, request, ignore_event, NULL);
    if (nvllm_profile_stop(engine, &json, &err) && !rc) rc = report_failure(&err);
    *profile = json ? json_loads(json, 0, NULL) : NULL;
    nvllm_free(json);
    return rc || *profile ? rc : report_sentence("the library's profile is not JSON");
}

static void print_tables(const json_t *profile, nvllm_engine *engine)
{
    op_table table;
    nvllm_limits none = {0};
    nvllm_stats stats = nvllm_engine_stats(engine);
    printf("%s %s", stats.device, stats.isa ? stats.isa : "");
    long long dropped = whole(profile, "dropped_steps");
    if (dropped) printf("; %lld steps are missing: too many ops", dropped);
    putchar('\n');
    op_table_prompt(&table, profile);
    op_table_print(&table, "prompt step", 0, &none);
    op_table_decode(&table, profile, 1);
    op_table_print(&table, "generation step", 0, &none);
}

static int profile_run(const nvllm_model *model, const cli_args *args, const nvllm_request *request)
{
    nvllm_engine *engine = NULL;
    json_t *profile = NULL;
    int rc = open_engine(&engine, model, args);
    if (!rc) rc = record(&profile, engine, request);
    if (!rc) rc = save_trace(args->output, profile, nvllm_engine_stats(engine).device);
    if (!rc && strcmp(args->output, "-") != 0) print_tables(profile, engine);
    json_decref(profile);
    nvllm_engine_close(engine);
    return rc ? rc : finish_output();
}

int command_profile(const cli_args *args)
{
    nvllm_model *model = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = check_model_options("profile", args);
    if (rc) return rc;
    if (!args->output) return report_usage("profile", "profile: -o FILE is missing");
    rc = open_model(&model, args, device_name(args));
    if (!rc) rc = prompt_ids(&ids, &n, model, args, NULL, PROMPT_TOKENS);
    if (!rc) {
        nvllm_request request = {.ids = ids,
                                 .n_ids = n,
                                 .max_tokens =
                                     args->gen_tokens.given ? (int32_t)args->gen_tokens.value : GEN_TOKENS,
                                 .top_p = 1,
                                 .repetition_penalty = 1,
                                 .logprobs = -1,
                                 .ignore_eos = true};
        rc = profile_run(model, args, &request);
        nvllm_free(ids);
    }
    nvllm_model_close(model);
    return rc;
}
