/* bench: the measurements.
 *
 * Everything is timed from outside, as a user of the library sees it: from nvllm_submit to events. Prompts are random
 * token ids, so that no tokenizer is needed; EOS is ignored, so that every answer has its full length.
 * - prompt: `batch` prompts of `prompt` tokens, from the first submission to the last one's first token.
 * - generation: `batch` sequences that hold `context` tokens; the clock starts one step after the last of them got its
 *   first token and stops after gen * batch more tokens, so that every timed step carries the full batch. */
#define _GNU_SOURCE
#include "bench.h"
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEP_TOKENS = 128 };

/* One bench in progress. */
typedef struct {
    nvllm_engine *engine;
    bench_shape shape;
    int32_t vocab, head_start;
    uint64_t random;
    int32_t *ids;   /* scratch for one prompt */
    uint64_t *open; /* [batch] requests that run */
} bench;

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Steele, Lea, Flood: SplitMix64. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Submits `batch` requests of n_prompt random tokens that would generate n_gen; an exit code. */
static int submit_batch(bench *b, int32_t n_prompt, int32_t n_gen)
{
    nvllm_error err = {0};
    for (int32_t r = 0; r < b->shape.batch; r++) {
        for (int32_t i = 0; i < n_prompt; i++)
            b->ids[i] = (int32_t)(next_random(&b->random) % (uint64_t)b->vocab);
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

/* A token that came after every sequence's first. */
static void count_token(batch_times *times, bench *b, int64_t counted, int64_t enough)
{
    if (counted == b->shape.batch) times->steady = bench_now();
    if (counted != b->shape.batch + enough || enough == 0) return;
    times->counted = bench_now();
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
            count_token(times, b, ++counted, enough);
            continue;
        }
        for (int32_t r = 0; r < b->shape.batch; r++) {
            if (b->open[r] != event.request || has_token[r]) continue;
            has_token[r] = true;
            if (++started == b->shape.batch) times->all_started = bench_now();
        }
    }
    free(has_token);
    return rc;
}

/* The most tokens that a sequence may generate before the clock starts: others of the batch are still being submitted
 * (a tiny model makes a token in 20 us) or read their prompts. As far as the model's context allows. */
static int32_t head_start(const bench_shape *s, int32_t max_context)
{
    enum { SUBMISSION = 256 };
    if (s->batch == 1) return 2;
    int64_t wanted = (int64_t)s->batch * s->context / STEP_TOKENS + 2 * s->batch + SUBMISSION;
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

static int measure_generation(double *rate, bench *b)
{
    batch_times times = {0};
    int64_t enough = (int64_t)b->shape.gen * b->shape.batch;
    int rc = submit_batch(b, b->shape.context, b->shape.gen + b->head_start);
    if (!rc) rc = follow_batch(&times, b, enough);
    if (!rc && times.counted == 0)
        rc = report_sentence("generation ended before %lld tokens", (long long)enough);
    if (!rc) *rate = (double)enough / (times.counted - times.steady);
    return rc;
}

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

static int32_t or_default(option_integer option, int32_t fallback)
{
    return option.given ? (int32_t)option.value : fallback;
}

static int open_bench_engine(bench *b, const nvllm_model *model, const cli_args *args)
{
    nvllm_error err = {0};
    const bench_shape *s = &b->shape;
    int64_t longest = (int64_t)s->context + s->gen + b->head_start;
    if (longest < s->prompt + 1) longest = s->prompt + 1;
    nvllm_engine_options options = {.device = args->device,
                                    .isa = args->isa,
                                    .threads = (int32_t)args->threads.value,
                                    .context = longest > INT32_MAX ? INT32_MAX : (int32_t)longest,
                                    .max_sequences = s->batch,
                                    .step_tokens = STEP_TOKENS + s->batch,
                                    .queue = s->batch,
                                    .no_prefix_cache = true};
    return nvllm_engine_open(&b->engine, model, &options, &err) ? report_failure(&err) : CLI_OK;
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

int bench_measure(bench_result *out, const nvllm_model *model, const cli_args *args, double start,
                  double opened)
{
    bench_shape shape = {or_default(args->prompt_tokens, 128), or_default(args->gen_tokens, 64),
                         or_default(args->batch, 1), or_default(args->context, 1), or_default(args->reps, 5)};
    int32_t longest = shape.prompt > shape.context ? shape.prompt : shape.context;
    *out = (bench_result){
        .shape = shape, .model = nvllm_model_describe(model), .open_ms = (opened - start) * 1e3};
    bench b = {.shape = shape,
               .vocab = out->model.vocab_size,
               .head_start = head_start(&shape, out->model.max_context),
               .random = (uint64_t)args->seed.value,
               .ids = calloc((size_t)longest, sizeof *b.ids),
               .open = calloc((size_t)shape.batch, sizeof *b.open)};
    int rc = b.ids && b.open ? CLI_OK : report_sentence("out of memory");
    if (!rc) rc = open_bench_engine(&b, model, args);
    out->engine_ms = (bench_now() - start) * 1e3;
    if (!rc) rc = first_token(&b);
    out->first_token_ms = (bench_now() - start) * 1e3;
    if (!rc) out->limits = nvllm_measure_limits(b.engine);
    forget_peak();
    if (!rc) rc = repeat(&out->prompt_rate, &b, "prompt", measure_prompt);
    if (!rc) rc = repeat(&out->gen_rate, &b, "generate", measure_generation);
    if (!rc) {
        out->peak_rss = peak_rss();
        out->engine = nvllm_engine_stats(b.engine);
        take_better(&out->limits, nvllm_measure_limits(b.engine));
    }
    nvllm_engine_close(b.engine);
    free(b.open);
    free(b.ids);
    return rc;
}
