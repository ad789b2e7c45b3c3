/* nano-vllm perplexity: exp of the mean negative log-probability of a text's tokens, in windows.
 *
 * The definition is llama.cpp's, so that figures can be compared. The text is tokenized once, with its BOS. Window w
 * holds ids[w*N .. w*N+N), its first id replaced by BOS (where the tokenizer has one), and its tokens after position
 * N/2 are scored, each given what stands before it in the window. A last window that is not full is dropped. */
#define _GNU_SOURCE
#include "cli.h"
#include "input.h"
#include "session.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT_DEFAULT = 512 };

typedef struct {
    double sum, sum_squares; /* of negative log-probabilities */
    size_t count, windows;
} score;

static double score_mean(const score *s)
{
    return s->count ? s->sum / (double)s->count : 0;
}

/* Standard error of exp(mean), to first order. */
static double score_error(const score *s)
{
    if (s->count < 2) return 0;
    double mean = score_mean(s), variance = s->sum_squares / (double)s->count - mean * mean;
    return exp(mean) * sqrt(fmax(variance, 0) / (double)(s->count - 1));
}

static void show_progress(const score *s, size_t of)
{
    if (stderr_is_terminal())
        fprintf(stderr, "\rwindow %zu of %zu: %.4f ", s->windows, of, exp(score_mean(s)));
}

/* ids: [n_ids], changed: the first of each window becomes bos (when >= 0). logprobs: [N] scratch. */
static int score_windows(score *s, nvllm_engine *engine, int32_t *ids, size_t n_ids, size_t N, int32_t bos,
                         float *logprobs)
{
    nvllm_error err = {0};
    for (size_t start = 0; start + N <= n_ids; start += N) {
        if (bos >= 0) ids[start] = bos;
        if (nvllm_score(engine, ids + start, N, logprobs, &err)) return report_failure(&err);
        for (size_t i = N / 2 + 1; i < N; i++) {
            double loss = -(double)logprobs[i];
            s->sum += loss;
            s->sum_squares += loss * loss;
        }
        s->count += N - N / 2 - 1;
        s->windows++;
        show_progress(s, n_ids / N);
    }
    if (stderr_is_terminal()) fputc('\n', stderr);
    return CLI_OK;
}

static void print_result(const score *s, size_t N, double seconds, bool json)
{
    double value = exp(score_mean(s)), error = score_error(s), rate = (double)(s->windows * N) / seconds;
    if (json) {
        json_t *document = json_pack("{s:f, s:f, s:i, s:i, s:i, s:f}", "perplexity", value, "standard_error",
                                     error, "windows", (int)s->windows, "context", (int)N, "scored_tokens",
                                     (int)s->count, "tokens_per_second", rate);
        json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(document);
        return;
    }
    printf("perplexity %.4f +- %.4f\n", value, error);
    fprintf(stderr, "%zu windows of %zu tokens, %zu tokens scored, %.1f tok/s\n", s->windows, N, s->count,
            rate);
}

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What the tokenizer puts before a text: its BOS, or -1. */
static int32_t find_bos(const nvllm_tokenizer *tokenizer)
{
    int32_t *ids = NULL, bos = -1;
    size_t n = 0;
    if (nvllm_tokenize(tokenizer, "", 0, NVLLM_ADD_SPECIAL, &ids, &n, NULL)) return -1;
    if (n) bos = ids[0];
    nvllm_free(ids);
    return bos;
}

static int score_text(const nvllm_model *model, const cli_args *args, size_t N, const char *text, size_t len)
{
    nvllm_error err = {0};
    const nvllm_tokenizer *tokenizer;
    nvllm_engine *engine = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    float *logprobs = malloc(N * sizeof *logprobs);
    int rc = logprobs ? CLI_OK : report_sentence("out of memory");
    if (!rc && (nvllm_model_tokenizer(model, &tokenizer, &err) ||
                nvllm_tokenize(tokenizer, text, len, NVLLM_ADD_SPECIAL, &ids, &n_ids, &err)))
        rc = report_failure(&err);
    if (!rc && n_ids < N)
        rc = report_sentence("%s: %zu tokens do not fill one window of %zu: use a smaller --context",
                             input_name(args->file), n_ids, N);
    if (!rc) {
        cli_args engine_args = *args;
        engine_args.context = (option_integer){true, (int64_t)N};
        rc = open_engine(&engine, model, &engine_args);
    }
    if (!rc) {
        score s = {0};
        double start = now_seconds();
        rc = score_windows(&s, engine, ids, n_ids, N, find_bos(tokenizer), logprobs);
        if (!rc) print_result(&s, N, now_seconds() - start, args->json);
        if (!rc) rc = finish_output();
    }
    nvllm_engine_close(engine);
    nvllm_free(ids);
    free(logprobs);
    return rc;
}

int command_perplexity(const cli_args *args)
{
    char *text;
    size_t len;
    nvllm_model *model = NULL;
    if (!args->file) return report_usage("perplexity", "perplexity: -f FILE is missing");
    if (!read_text(&text, &len, args->file)) return CLI_FAILED;
    int rc = open_model(&model, args, device_name(args));
    if (!rc) {
        int64_t most = nvllm_model_describe(model).max_context;
        int64_t fallback = most < CONTEXT_DEFAULT ? most : CONTEXT_DEFAULT;
        rc = score_text(model, args, (size_t)(args->context.given ? args->context.value : fallback), text,
                        len);
    }
    nvllm_model_close(model);
    free(text);
    return rc;
}
