/* bench: the measurements.
 *
 * Everything is timed from outside, as a user of the library sees it: from nvllm_submit to events, by the events' own
 * time, since a busy machine may let this thread read them late. Prompts are random
 * token ids, so that no tokenizer is needed; EOS is ignored, so that every answer has its full length.
 * - prompt: `batch` prompts of `prompt` tokens, from the first submission to the last one's first token.
 * - generation: `batch` sequences that hold `context` tokens; the clock starts one step after the last of them got its
 *   first token and stops after gen * batch more tokens, so that every timed step carries the full batch.
 * The prompts of all repetitions of generation are the same, and the first computes them: the others find them in the
 * prefix cache. Timed prompts are always new ones. */
#define _GNU_SOURCE
#include "bench.h"
#include "bench_limits.h"
#include "input.h"
#include "prompt_ids.h"
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One bench in progress. */
typedef struct {
    nvllm_engine *engine;
    bench_shape shape;
    int32_t vocab, head_start;
    uint64_t random, contexts; /* seeds: of the next prompt, of those that fill the cache */
    int32_t *ids;              /* scratch for one prompt */
    uint64_t *open;            /* [batch] requests that run */
    double fill_rate;
} bench;

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Submits `batch` requests of n_prompt random tokens that would generate n_gen; an exit code. */
static int submit_batch(bench *b, int32_t n_prompt, int32_t n_gen)
{
    nvllm_error err = {0};
    for (int32_t r = 0; r < b->shape.batch; r++) {
        random_ids(b->ids, (size_t)n_prompt, b->vocab, &b->random);
        nvllm_request request = {.ids = b->ids,
                                 .n_ids = (size_t)n_prompt,
                                 .max_tokens = n_gen,
                                 .top_p = 1,
                                 .repetition_penalty = 1,
                                 .ignore_eos = true,
                                 .logprobs = -1};
        if (nvllm_submit(b->engine, &request, &b->open[r], &err)) return report_failure(&err);
    }
    return CLI_OK;
}

static void cancel_batch(bench *b)
{
    for (int32_t r = 0; r < b->shape.batch; r++) nvllm_cancel(b->engine, b->open[r]);
}

/* What follow_batch saw; seconds, CLOCK_MONOTONIC. */
typedef struct {
    double all_started; /* every sequence has its first token */
    double steady;      /* `batch` tokens later */
    double counted;     /* `enough` tokens later still */
} batch_times;

/* A token that came, at `time`, after every sequence's first. */
static void count_token(batch_times *times, bench *b, int64_t counted, int64_t enough, double time)
{
    if (counted == b->shape.batch) times->steady = time;
    if (counted != b->shape.batch + enough || enough == 0) return;
    times->counted = time;
    cancel_batch(b);
}

/* Follows the batch to its end. With enough > 0, the rest is cancelled once that many tokens were timed. */
static int follow_batch(batch_times *times, bench *b, int64_t enough)
{
    int32_t started = 0, running = b->shape.batch;
    int64_t counted = 0;
    bool *has_token = calloc((size_t)b->shape.batch, sizeof *has_token);
    int rc = has_token ? CLI_OK : report_sentence("out of memory");
    while (!rc && running) {
        nvllm_event event;
        if (!nvllm_poll(b->engine, &event, 1, -1)) {
            rc = report_sentence("the engine ended %d of %d requests without an event", (int)running,
                                 (int)b->shape.batch);
            break;
        }
        if (event.kind == NVLLM_EVENT_ERROR) rc = report_sentence("%s", event.error);
        if (event.kind == NVLLM_EVENT_DONE) running--;
        if (event.kind != NVLLM_EVENT_TOKEN) continue;
        if (started == b->shape.batch) {
            count_token(times, b, ++counted, enough, event.seconds);
            continue;
        }
        for (int32_t r = 0; r < b->shape.batch; r++) {
            if (b->open[r] != event.request || has_token[r]) continue;
            has_token[r] = true;
            if (++started == b->shape.batch) times->all_started = event.seconds;
        }
    }
    free(has_token);
    return rc;
}

/* The most tokens that a sequence may generate before the clock starts: others of the batch are still being submitted
 * (a tiny model makes a token in 20 us) or read the last page of their prompts, a few in every step. As far as the
 * model's context allows. */
static int32_t head_start(const bench_shape *s, int32_t max_context)
{
    enum { SUBMISSION = 256, STEPS_PER_PROMPT = 4 };
    if (s->batch == 1) return 2;
    int64_t wanted = (int64_t)STEPS_PER_PROMPT * s->batch + SUBMISSION;
    int64_t room = (int64_t)max_context - s->context - s->gen;
    int64_t most = wanted < room ? wanted : room;
    return most < 2 ? 2 : (int32_t)most;
}

static int measure_prompt(double *rate, bench *b)
{
    batch_times times = {0};
    double start = bench_now();
    int rc = submit_batch(b, b->shape.prompt, 1);
    if (!rc) rc = follow_batch(&times, b, 0);
    if (!rc) *rate = (double)b->shape.prompt * b->shape.batch / (times.all_started - start);
    return rc;
}

/* The prompts of generation, computed once; afterwards all but their last tokens are in the prefix cache. */
static int fill_contexts(bench *b)
{
    batch_times times = {0};
    double start = bench_now();
    b->contexts = b->random;
    int rc = submit_batch(b, b->shape.context, 1);
    if (!rc) rc = follow_batch(&times, b, 0);
    if (!rc && b->shape.context > 1)
        b->fill_rate = (double)b->shape.context * b->shape.batch / (times.all_started - start);
    return rc;
}

static int generate_steps(batch_times *times, bench *b, int64_t enough)
{
    uint64_t next = b->random;
    b->random = b->contexts;
    int rc = submit_batch(b, b->shape.context, b->shape.gen + b->head_start);
    b->random = next;
    return rc ? rc : follow_batch(times, b, enough);
}

static int measure_generation(double *rate, bench *b)
{
    batch_times times = {0};
    int64_t enough = (int64_t)b->shape.gen * b->shape.batch;
    int rc = generate_steps(&times, b, enough);
    if (!rc && times.counted == 0)
        rc = report_sentence("generation ended before %lld tokens", (long long)enough);
    if (!rc) *rate = (double)enough / (times.counted - times.steady);
    return rc;
}

/* ---- Repetitions --------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One untimed repetition, then `reps` timed ones. */
static int repeat(spread *out, bench *b, const char *what, int (*measure)(double *, bench *))
{
    double *values = calloc((size_t)b->shape.reps + 1, sizeof *values);
    int rc = values ? CLI_OK : report_sentence("out of memory");
    for (int32_t i = 0; !rc && i <= b->shape.reps; i++) {
        if (stderr_is_terminal()) fprintf(stderr, "\r%s %d/%d ", what, (int)i, (int)b->shape.reps);
        rc = measure(i ? &values[i - 1] : &values[b->shape.reps], b);
    }
    if (stderr_is_terminal()) fputs("\r\033[K", stderr);
    if (!rc) {
        size_t n = (size_t)b->shape.reps;
        qsort(values, n, sizeof *values, by_size);
        *out = (spread){(values[(n - 1) / 2] + values[n / 2]) / 2, values[0], values[n - 1]};
    }
    free(values);
    return rc;
}

/* ---- The engine ---------------------------------------------------------------------------------------------- */

static nvllm_status open_bench_engine(bench *b, const nvllm_model *model, const cli_args *args,
                                      nvllm_error *err)
{
    enum { SLACK = 256 }; /* the KV cache comes in pages, and every sequence begins its own */
    const bench_shape *s = &b->shape;
    int64_t longest = (int64_t)s->context + s->gen + b->head_start;
    if (longest < s->prompt + 1) longest = s->prompt + 1;
    nvllm_engine_options options = {.device = args->device,
                                    .isa = args->isa,
                                    .threads = (int32_t)args->threads.value,
                                    .context = longest > INT32_MAX ? INT32_MAX : (int32_t)longest,
                                    .max_sequences = s->batch,
                                    .kv_tokens = args->kv_memory.given ? 0 : (longest + SLACK) * s->batch,
                                    .kv_bytes = args->kv_memory.value,
                                    .step_tokens = (int32_t)args->step_tokens.value,
                                    .queue = s->batch,
                                    .fusion = (nvllm_fusion)args->fusion};
    nvllm_status st = nvllm_engine_open(&b->engine, model, &options, err);
    if (!st) report_engine(b->engine);
    return st;
}

/* The first token that the engine makes, from a prompt of one. */
static int first_token(bench *b)
{
    batch_times times = {0};
    bench one = *b;
    one.shape.batch = 1;
    int rc = submit_batch(&one, 1, 1);
    if (!rc) rc = follow_batch(&times, &one, 0);
    b->random = one.random;
    return rc;
}

/* Measured before and after the run: neighbours on the machine only ever make a limit look smaller. */
static void take_better(nvllm_limits *limits, nvllm_limits again)
{
    if (again.read_gb_per_s > limits->read_gb_per_s) limits->read_gb_per_s = again.read_gb_per_s;
    if (again.bf16_gflops > limits->bf16_gflops) limits->bf16_gflops = again.bf16_gflops;
}

/* The measurement's own block of memory is not the model's: Linux forgets the peak on request (proc(5), clear_refs). */
static void forget_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

static int64_t peak_rss(void)
{
    char line[256];
    long long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lld kB", &kb) == 1) break;
    if (f) fclose(f);
    return (int64_t)kb * 1024;
}

/* ---- Profile ------------------------------------------------------------------------------------------------- */

static int run_prompts(bench *b)
{
    batch_times times = {0};
    int rc = submit_batch(b, b->shape.prompt, 1);
    return rc ? rc : follow_batch(&times, b, 0);
}

static int run_generation(bench *b)
{
    enum { STEPS = 8 };
    batch_times times = {0};
    return generate_steps(&times, b, (int64_t)STEPS * b->shape.batch);
}

/* *out: the profile of what `run` does; NULL when it fails. */
static int take_profile(json_t **out, bench *b, int (*run)(bench *))
{
    nvllm_error err = {0};
    char *json = NULL;
    *out = NULL;
    if (nvllm_profile_start(b->engine, &err)) return report_failure(&err);
    int rc = run(b);
    nvllm_status st = nvllm_profile_stop(b->engine, &json, &err);
    if (st && !rc) rc = report_failure(&err);
    if (!rc) *out = json_loads(json, 0, NULL);
    nvllm_free(json);
    return rc;
}

static int take_profiles(bench_result *out, bench *b)
{
    json_t *prompt, *decode = NULL;
    int rc = take_profile(&prompt, b, run_prompts);
    if (!rc) rc = take_profile(&decode, b, run_generation);
    if (!rc) op_table_prompt(&out->prompt, prompt);
    if (!rc) op_table_decode(&out->decode, decode, b->shape.batch);
    json_decref(prompt);
    json_decref(decode);
    return rc;
}

/* ---- All of it ----------------------------------------------------------------------------------------------- */

/* Before the runs: everybody needs the device for himself. */
static void take_limits(bench_result *out, bench *b, bool again)
{
    bool known = out->limits.read_gb_per_s > 0;
    if (!known || !out->limits_kept) {
        nvllm_limits limits = bench_limits(b->engine, again && !known, &out->limits_kept);
        take_better(&out->limits, limits);
    }
    forget_peak();
}

static int run_all(bench_result *out, bench *b, const cli_args *args, double start)
{
    int rc = first_token(b);
    out->first_token_ms = (bench_now() - start) * 1e3;
    if (rc) return rc;
    take_limits(out, b, args->measure_again);
    if (b->shape.prompt) rc = repeat(&out->prompt_rate, b, "prompt", measure_prompt);
    if (!rc) rc = fill_contexts(b);
    if (!rc) rc = repeat(&out->gen_rate, b, "generate", measure_generation);
    if (rc) return rc;
    out->fill_rate = b->fill_rate;
    out->peak_rss = peak_rss();
    out->engine = nvllm_engine_stats(b->engine);
    if (args->op_times) rc = take_profiles(out, b);
    if (!out->limits_kept) take_better(&out->limits, nvllm_measure_limits(b->engine));
    return rc;
}

int bench_measure(bench_result *out, const nvllm_model *model, const cli_args *args, const bench_shape *shape,
                  double start, double opened, nvllm_error *misfit)
{
    nvllm_error err = {0};
    int32_t longest = shape->prompt > shape->context ? shape->prompt : shape->context;
    out->shape = *shape;
    out->model = nvllm_model_describe(model);
    out->open_ms = (opened - start) * 1e3;
    bench b = {.shape = *shape,
               .vocab = out->model.vocab_size,
               .head_start = head_start(shape, out->model.max_context),
               .random = (uint64_t)args->seed.value,
               .ids = calloc((size_t)longest, sizeof *b.ids),
               .open = calloc((size_t)shape->batch, sizeof *b.open)};
    int rc = b.ids && b.open ? CLI_OK : report_sentence("out of memory");
    nvllm_status st = rc ? NVLLM_OK : open_bench_engine(&b, model, args, &err);
    if (st && misfit && (st == NVLLM_ERR_LIMIT || st == NVLLM_ERR_MEMORY))
        *misfit = err;
    else if (st)
        rc = report_failure(&err);
    out->engine_ms = (bench_now() - start) * 1e3;
    if (!rc && !st) rc = run_all(out, &b, args, start);
    nvllm_engine_close(b.engine);
    free(b.open);
    free(b.ids);
    return rc;
}
