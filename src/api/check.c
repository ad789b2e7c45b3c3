/* One prompt on two devices, compared after every layer.
 *
 * The two run in turns, one step each: the first keeps its residual streams, the second is compared with them as it
 * goes. So memory holds one step's streams ([L+1, T, D] float32) and both sides' own. */
#include "api/handles.h"
#include "backend/backend.h"
#include "model/runner.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_TOKENS = 128, LOGITS = 16, PAGE_SLOTS = 64 };

/* Sums over everything compared so far. */
typedef struct {
    double gap, size; /* squares of a - b, of b */
    double max_diff, max;
} comparison;

typedef struct {
    const model *model;
    backend *backend[2]; /* 0: against, 1: the device */
    runner *runner[2];
    const int32_t *ids;
    int32_t n_ids, step_tokens;
    int32_t *pos, *pages;      /* [n_ids], [pages] */
    float *kept, *kept_logits; /* of 0: [L+1, T, D], [LOGITS, V] */
    float *read;               /* of 1: [T, D] or [LOGITS, V] */
    comparison *layers;        /* [L+1], the embedding first */
    comparison logits;
    nvllm_error failure; /* of a hook */
} check;

/* ---- Comparing ----------------------------------------------------------------------------------------------- */

static double error_of(const comparison *c)
{
    return c->gap == 0 ? 0 : sqrt(c->gap / c->size);
}

/* NaN stays: fmax would drop it. */
static double larger(double a, double b)
{
    return a > b || isnan(a) ? a : b;
}

static void compare(comparison *c, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double diff = (double)a[i] - (double)b[i];
        c->gap += diff * diff;
        c->size += (double)b[i] * (double)b[i];
        c->max_diff = larger(c->max_diff, fabs(diff));
        c->max = larger(c->max, fabs((double)b[i]));
    }
}

/* The layer (0: the embedding) that has ended with this op, or -1. */
static int32_t ended_layer(const graph *g, int32_t op)
{
    int32_t layer = g->ops[op].layer, next = op + 1 < g->count ? g->ops[op + 1].layer : -1;
    if (layer == next || (layer < 0 && next != 0)) return -1;
    return layer + 1;
}

static void keep_layer(void *context, const runner *r, int32_t op, const batch *s)
{
    check *c = context;
    int32_t layer = op < 0 ? -1 : ended_layer(runner_graph(r), op);
    if (layer < 0 || c->failure.code) return;
    size_t values = (size_t)c->step_tokens * (size_t)c->model->config.D;
    runner_read(r, BUF_X, s->T, c->kept + (size_t)layer * values, &c->failure);
}

static void compare_layer(void *context, const runner *r, int32_t op, const batch *s)
{
    check *c = context;
    int32_t layer = op < 0 ? -1 : ended_layer(runner_graph(r), op);
    if (layer < 0 || c->failure.code) return;
    size_t D = (size_t)c->model->config.D, values = (size_t)c->step_tokens * D;
    if (runner_read(r, BUF_X, s->T, c->read, &c->failure)) return;
    compare(&c->layers[layer], c->read, c->kept + (size_t)layer * values, (size_t)s->T * D);
}

/* ---- Running ------------------------------------------------------------------------------------------------- */

static nvllm_status run_step(check *c, int side, const batch *s, nvllm_error *err)
{
    float *logits;
    size_t n = (size_t)s->N * (size_t)c->model->config.V;
    runner_set_hook(c->runner[side], side ? compare_layer : keep_layer, c);
    nvllm_status st = runner_step(c->runner[side], s, &logits, err);
    if (!st && c->failure.code) st = error_set(err, c->failure.code, "%s", c->failure.message);
    if (!st) st = runner_read(c->runner[side], BUF_LOGITS, s->N, side ? c->read : c->kept_logits, err);
    if (!st && side) compare(&c->logits, c->read, c->kept_logits, n);
    return st;
}

static nvllm_status run_steps(check *c, nvllm_error *err)
{
    int32_t rows[LOGITS], pages = (c->n_ids + PAGE_SLOTS - 1) / PAGE_SLOTS;
    nvllm_status st = NVLLM_OK;
    for (int32_t at = 0; !st && at < c->n_ids; at += c->step_tokens) {
        int32_t T = c->n_ids - at < c->step_tokens ? c->n_ids - at : c->step_tokens;
        int32_t N = T < LOGITS ? T : LOGITS, row_start[2] = {0, T}, kv_len = at + T;
        for (int32_t i = 0; i < N; i++) rows[i] = T - N + i;
        batch s = {.T = T,
                   .R = 1,
                   .N = N,
                   .P = pages,
                   .tokens = c->ids + at,
                   .pos = c->pos + at,
                   .slot = c->pos + at, /* page p is the p-th of the cache */
                   .row_start = row_start,
                   .kv_len = &kv_len,
                   .pages = c->pages,
                   .logit_row = rows};
        for (int side = 0; !st && side < 2; side++) st = run_step(c, side, &s, err);
    }
    return st;
}

static nvllm_status take_memory(check *c, nvllm_error *err)
{
    const model_config *m = &c->model->config;
    size_t values = (size_t)c->step_tokens * (size_t)m->D, logits = (size_t)LOGITS * (size_t)m->V;
    size_t layers = (size_t)m->L + 1, pages = ((size_t)c->n_ids + PAGE_SLOTS - 1) / PAGE_SLOTS;
    c->kept = malloc(layers * values * sizeof *c->kept);
    c->kept_logits = malloc(logits * sizeof *c->kept_logits);
    c->read = malloc((values > logits ? values : logits) * sizeof *c->read);
    c->layers = calloc(layers, sizeof *c->layers);
    c->pos = malloc((size_t)c->n_ids * sizeof *c->pos);
    c->pages = malloc(pages * sizeof *c->pages);
    if (!c->kept || !c->kept_logits || !c->read || !c->layers || !c->pos || !c->pages)
        return error_memory(err, layers * values * sizeof *c->kept, "the residual streams");
    for (int32_t i = 0; i < c->n_ids; i++) c->pos[i] = i;
    for (size_t i = 0; i < pages; i++) c->pages[i] = (int32_t)i;
    return NVLLM_OK;
}

static nvllm_status open_sides(check *c, const nvllm_check_options *options, nvllm_error *err)
{
    runner_options ro = {.max_tokens = c->step_tokens,
                         .max_rows = 1,
                         .max_logits = LOGITS,
                         .max_context = c->n_ids,
                         .pages = (c->n_ids + PAGE_SLOTS - 1) / PAGE_SLOTS,
                         .page_slots = PAGE_SLOTS,
                         .kv_type = model_default_kv_type(c->model)};
    backend_options bo = {.threads = options->threads, .isa = options->isa};
    nvllm_status st = backend_open(&c->backend[1], options->device, &bo, err);
    if (st) return st;
    const char *other = strcmp(c->backend[1]->type->name, "cpu") == 0 ? "reference" : "cpu";
    st = backend_open(&c->backend[0], options->against ? options->against : other, &bo, err);
    if (!st) st = runner_open(&c->runner[0], c->model, c->backend[0], &ro, err);
    ro.fusion = (fusion_mode)options->fusion; /* the same numbers */
    return st ? st : runner_open(&c->runner[1], c->model, c->backend[1], &ro, err);
}

static void close_all(check *c)
{
    for (int side = 0; side < 2; side++) {
        runner_close(c->runner[side]);
        backend_close(c->backend[side]);
    }
    free(c->kept);
    free(c->kept_logits);
    free(c->read);
    free(c->layers);
    free(c->pos);
    free(c->pages);
}

/* ---- The result ---------------------------------------------------------------------------------------------- */

static double default_bound(dtype format)
{
    switch (format) {
    case DTYPE_F32: return 1e-4;
    case DTYPE_F16: return 5e-3;
    case DTYPE_BF16: return 3e-2;
    case DTYPE_Q8_0: return 5e-2;
    case DTYPE_COUNT: break;
    }
    return 0;
}

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *comparison_json(const comparison *c)
{
    return json_pack("{s:o, s:o, s:o}", "error", number(error_of(c)), "max_diff", number(c->max_diff), "max",
                     number(c->max));
}

static char *result_json(const check *c, double bound)
{
    json_t *layers = json_array(), *first_bad = json_null();
    bool passed = error_of(&c->logits) <= bound;
    for (int32_t i = 0; i <= c->model->config.L; i++) {
        json_t *o = comparison_json(&c->layers[i]);
        json_object_set_new(o, "layer", json_integer(i - 1));
        json_array_append_new(layers, o);
        bool good = error_of(&c->layers[i]) <= bound; /* NaN is not */
        if (!good && json_is_null(first_bad)) first_bad = json_integer(i - 1);
        passed = passed && good;
    }
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:f, s:b, s:o, s:o, s:o}", "device", c->backend[1]->type->name, "against",
        c->backend[0]->type->name, "dtype", dtype_name(weights_get(&c->model->weights, W_Q, 0)->format),
        "tokens", (int)c->n_ids, "step_tokens", (int)c->step_tokens, "bound", bound, "passed", (int)passed,
        "first_bad", first_bad, "layers", layers, "logits", comparison_json(&c->logits));
    char *text = document ? json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(document);
    return text;
}

static nvllm_status check_arguments(const model *m, const int32_t *ids, size_t n_ids,
                                    const nvllm_check_options *o, nvllm_error *err)
{
    if (n_ids < 1) return error_set(err, NVLLM_ERR_USAGE, "nothing to check: no tokens");
    if (n_ids > (size_t)m->config.max_context)
        return error_set(err, NVLLM_ERR_LIMIT, "%zu tokens, and the model was made for at most %d", n_ids,
                         m->config.max_context);
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= m->config.V)
            return error_set(err, NVLLM_ERR_USAGE, "token %d is not in the vocabulary of %d", ids[i],
                             m->config.V);
    if (o->step_tokens < 0)
        return error_set(err, NVLLM_ERR_USAGE, "step_tokens is %d, must not be negative", o->step_tokens);
    if (!(o->bound >= 0))
        return error_set(err, NVLLM_ERR_USAGE, "bound is %g, must not be negative", o->bound);
    return NVLLM_OK;
}

nvllm_status nvllm_check_layers(const nvllm_model *m, const int32_t *ids, size_t n_ids,
                                const nvllm_check_options *options, char **json, nvllm_error *err)
{
    static const nvllm_check_options defaults = {0};
    if (!options) options = &defaults;
    nvllm_status st = check_arguments(m->model, ids, n_ids, options, err);
    if (st) return st;
    int32_t step = options->step_tokens ? options->step_tokens : STEP_TOKENS;
    check c = {.model = m->model,
               .ids = ids,
               .n_ids = (int32_t)n_ids,
               .step_tokens = step < (int32_t)n_ids ? step : (int32_t)n_ids};
    dtype format = weights_get(&m->model->weights, W_Q, 0)->format;
    st = open_sides(&c, options, err);
    if (!st) st = take_memory(&c, err);
    if (!st) st = run_steps(&c, err);
    if (!st) {
        char *text = result_json(&c, options->bound > 0 ? options->bound : default_bound(format));
        if (text)
            *json = text;
        else
            st = error_memory(err, 0, "the result's document");
    }
    close_all(&c);
    return st;
}
