/* Every family against transformers' float32 run, per layer and end to end: logits of every prompt position, the
 * residual stream after each layer where the fixture has it, and 64 greedy tokens; on the reference backend and on
 * the CPU backend with each instruction set that this machine runs, with fused ops and with single ones; with an
 * argument, on that device.
 *
 * Bound: 1e-5 of the largest logit for float32 weights; for bf16 and f16 the error that the reference itself makes
 * when it is run in that format; twice that for Q8_0, whose inputs are rounded to int8 in blocks of 32. */
#include "support/test.h"
#include "support/family.h"
#include "engine/step_batch.h"

#include <math.h>

#define S 16

typedef struct {
    const char *device, *isa;
    fusion_mode fusion;
} target;

/* NULL: reference and CPU; otherwise that device alone. */
static const char *only_device;

/* That device is a GPU that tests/emulator plays, and slow: prompts and answers are shorter there, and most families only
 * go with fused ops and in one size of steps; every eighth (of bf16, float32, Q8_0) goes all ways. */
static bool emulated;

static bool goes_all_ways(int number)
{
    return !emulated || number % 8 == 1;
}

/* For the family of this number. */
static int targets(target *out, int number)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512"};
    int n = 0;
    if (only_device) {
        out[n++] = (target){only_device, "chained", FUSION_FULL};
        if (!goes_all_ways(number)) return n;
        out[n++] = (target){only_device, "fused", FUSION_OPS};
        out[n++] = (target){only_device, "single", FUSION_OFF};
        return n;
    }
    out[n++] = (target){"reference", "fused", FUSION_FULL};
    out[n++] = (target){"reference", "single", FUSION_OFF};
    for (int i = 0; i <= (int)cpu_isa_detect(); i++) out[n++] = (target){"cpu", isas[i], FUSION_FULL};
    return n;
}

static backend *open_backend(const target *t)
{
    return family_backend(t->device, strcmp(t->device, "cpu") == 0 ? t->isa : NULL, 2);
}

typedef struct {
    const family_model *family;
    const char *name;
    float worst; /* relative to the layer's largest value */
    int compared;
} layer_check;

/* After a layer's last op: the residual stream against the reference's. */
static void compare_layer(void *context, const runner *r, int32_t op_index, const batch *step)
{
    layer_check *check = context;
    const graph *g = runner_graph(r);
    if (op_index < 0) return;
    const graph_op *op = &g->ops[op_index];
    if (op->kind != OP_LINEAR || op->layer < 0 || op->w[0] != W_DOWN) return;
    char name[32];
    snprintf(name, sizeof name, "layer.%d", op->layer);
    const float *want = family_tensor(check->family, name);
    if (!want) return;
    static float x[512 * 512];
    int32_t values = step->T * runner_width(r, BUF_X);
    assert_true(values <= 512 * 512);
    assert_int_equal(runner_read(r, BUF_X, step->T, x, NULL), NVLLM_OK);
    float most = 0, error = 0;
    for (int32_t i = 0; i < values; i++) {
        most = fmaxf(most, fabsf(want[i]));
        error = fmaxf(error, fabsf(want[i] - x[i]));
    }
    check->worst = fmaxf(check->worst, error / most);
    check->compared++;
}

static runner *open_runner(const family_model *f, backend *b, int32_t pages, int32_t slots,
                           fusion_mode fusion)
{
    nvllm_error err = {0};
    runner *r;
    runner_options o = {.max_tokens = f->n_prompt,
                        .max_rows = 1,
                        .max_logits = f->n_prompt,
                        .max_context = pages * slots,
                        .pages = pages,
                        .page_slots = slots,
                        .kv_type = model_default_kv_type(f->model),
                        .fusion = fusion};
    if (runner_open(&r, f->model, b, &o, &err)) fail_msg("%s", err.message);
    return r;
}

/* All prompt positions in one step, with pages in reverse order. */
static float *run_prompt(runner *r, const family_model *f, int32_t pages)
{
    static int32_t pos[512], slot[512], row[512], table[64];
    int32_t row_start[2] = {0, f->n_prompt}, kv_len[1] = {f->n_prompt};
    for (int32_t p = 0; p < pages; p++) table[p] = pages - 1 - p;
    for (int32_t t = 0; t < f->n_prompt; t++) {
        pos[t] = row[t] = t;
        slot[t] = table[t / S] * S + t % S;
    }
    float *logits;
    nvllm_error err = {0};
    if (runner_step(r,
                    &(batch){.T = f->n_prompt,
                             .R = 1,
                             .N = f->n_prompt,
                             .P = pages,
                             .tokens = f->prompt,
                             .pos = pos,
                             .slot = slot,
                             .row_start = row_start,
                             .kv_len = kv_len,
                             .pages = table,
                             .logit_row = row},
                    &logits, &err))
        fail_msg("%s", err.message);
    return logits;
}

static float allowed_error(const family_model *f)
{
    if (f->wide) return 1e-5f;
    return weights_get(&f->model->weights, W_Q, 0)->format == DTYPE_Q8_0 ? 2 * f->low_error : f->low_error;
}

static void check_logits(const family_case *c, const target *t)
{
    family_model f;
    family_open(&f, c);
    if (emulated && f.n_prompt > 33) f.n_prompt = 33; /* still longer than the windows */
    backend *b = open_backend(t);
    int32_t pages = (f.n_prompt + S - 1) / S;
    runner *r = open_runner(&f, b, pages, S, t->fusion);
    layer_check layers = {.family = &f, .name = c->name};
    runner_set_hook(r, compare_layer, &layers);
    float *logits = run_prompt(r, &f, pages), error = 0;
    for (int64_t i = 0; i < (int64_t)f.n_prompt * f.model->config.V; i++)
        error = fmaxf(error, fabsf(logits[i] - f.logits[i]));
    error /= f.max_logit;
    float bound = allowed_error(&f);
    if (!(error < bound) || !(layers.worst < bound))
        fail_msg("%s on %s %s: logits off by %g, layers by %g, allowed %g", c->name, t->device,
                 t->isa ? t->isa : "", (double)error, (double)layers.worst, (double)bound);
    print_message("%-34s %-9s %-6s error %.2e of %.2e, %d layers %.2e\n", c->name, t->device,
                  t->isa ? t->isa : "", (double)error, (double)bound, layers.compared, (double)layers.worst);
    runner_close(r);
    backend_close(b);
    family_close(&f);
}

static void families_logits_of_every_position_equal_the_reference(void **state)
{
    (void)state;
    static family_case cases[FAMILY_MAX];
    target t[8];
    int n = family_cases(cases);
    assert_true(n >= 29);
    for (int i = 0; i < n; i++)
        for (int j = 0, n_targets = targets(t, i); j < n_targets; j++) check_logits(&cases[i], &t[j]);
}

/* The prompt token by token, with pages as the engine has them. A GPU runs all ops of such a step as one kernel where it
 * takes the model: bf16 matrices and cache. */
static void check_single_tokens(const family_case *c, const target *t)
{
    enum { SLOTS = 64 };
    family_model f;
    nvllm_error err = {0};
    family_open(&f, c);
    backend *b = open_backend(t);
    int32_t n = emulated ? 5 : f.n_prompt, pages = (n + SLOTS - 1) / SLOTS, V = f.model->config.V;
    int32_t table[8], row_start[2] = {0, 1}, row = 0;
    for (int32_t p = 0; p < pages; p++) table[p] = pages - 1 - p;
    runner *r = open_runner(&f, b, pages, SLOTS, t->fusion);
    const fusion_report *fusion = runner_fusion(r);
    bool bf16 = weights_get(&f.model->weights, W_Q, 0)->format == DTYPE_BF16 && b->type->chain_open,
         takes = bf16 && t->fusion == FUSION_FULL && !family_gpu_refuses(fusion->no_chain);
    if ((fusion->chained > 0) != takes)
        fail_msg("%s on %s: chained %d ops, %s", c->name, t->device, fusion->chained, fusion->no_chain);
    float error = 0, bound = allowed_error(&f);
    for (int32_t i = 0; i < n; i++) {
        int32_t slot = table[i / SLOTS] * SLOTS + i % SLOTS, length = i + 1;
        batch step = {.T = 1,
                      .R = 1,
                      .N = 1,
                      .P = pages,
                      .tokens = f.prompt + i,
                      .pos = &i,
                      .slot = &slot,
                      .row_start = row_start,
                      .kv_len = &length,
                      .pages = table,
                      .logit_row = &row};
        float *logits;
        if (runner_step(r, &step, &logits, &err)) fail_msg("%s", err.message);
        for (int32_t v = 0; v < V; v++)
            error = fmaxf(error, fabsf(logits[v] - f.logits[(int64_t)i * V + v]) / f.max_logit);
    }
    if (!(error < bound))
        fail_msg("%s on %s token by token: logits off by %g, allowed %g", c->name, t->device, (double)error,
                 (double)bound);
    print_message("%-34s %-9s token by token error %.2e of %.2e, %d ops chained\n", c->name, t->device,
                  (double)error, (double)bound, runner_fusion(r)->chained);
    runner_close(r);
    backend_close(b);
    family_close(&f);
}

static void families_logits_token_by_token_equal_the_reference(void **state)
{
    (void)state;
    static family_case cases[FAMILY_MAX];
    target t[8];
    int n = family_cases(cases);
    for (int i = 0; i < n; i++)
        for (int j = 0, n_targets = targets(t, i); j < n_targets; j++) check_single_tokens(&cases[i], &t[j]);
}

/* Identical tokens, or a first difference where the reference itself was nearly undecided. */
static void check_greedy(const family_case *c, const target *t, int32_t step_tokens)
{
    family_model f;
    nvllm_error err = {0};
    family_open(&f, c);
    backend *b = open_backend(t);
    int32_t n_greedy = emulated ? 3 : f.n_greedy;
    engine *e;
    engine_options o = {.context = 96,
                        .max_sequences = 2,
                        .step_tokens = step_tokens,
                        .kv_tokens = 192,
                        .kv_type = model_default_kv_type(f.model),
                        .fusion = t->fusion};
    if (engine_open(&e, f.model, b, &o, &err)) fail_msg("%s: %s", c->name, err.message);
    sequence_request q = {.prompt = f.prompt,
                          .n_prompt = 16,
                          .max_tokens = n_greedy,
                          .top_logprobs = -1,
                          .sampling = {.top_p = 1, .repetition_penalty = 1}};
    assert_int_equal(engine_add(e, &q, 1, &err), NVLLM_OK);
    float near_tie = allowed_error(&f) * f.max_logit;
    int32_t made = 0;
    bool differs = false;
    while (!engine_idle(e)) {
        const engine_event *events;
        int32_t n = engine_step(e, &events, NULL);
        for (int32_t i = 0; i < n && !differs; i++) {
            if (events[i].token < 0) continue;
            differs = events[i].token != f.greedy[made];
            if (differs && !(f.greedy_gap[made] < near_tie))
                fail_msg("%s on %s %s, prompt by %d: token %d is %d, expected %d with a gap of %g", c->name,
                         t->device, t->isa ? t->isa : "", step_tokens, made, events[i].token, f.greedy[made],
                         (double)f.greedy_gap[made]);
            made++;
        }
    }
    assert_true(differs || made == n_greedy);
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

static void families_greedy_tokens_equal_the_reference(void **state)
{
    (void)state;
    static family_case cases[FAMILY_MAX];
    target t[8];
    int n = family_cases(cases);
    for (int i = 0; i < n; i++)
        for (int j = 0, n_targets = targets(t, i); j < n_targets; j++) {
            check_greedy(&cases[i], &t[j], 32); /* the prompt whole, in chunks, token by token */
            if (!goes_all_ways(i)) continue;
            check_greedy(&cases[i], &t[j], 7);
            check_greedy(&cases[i], &t[j], 1);
        }
}

/* `test_families cuda`: the same on the GPU; skipped (77) where there is none. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_logits_of_every_position_equal_the_reference),
        cmocka_unit_test(families_logits_token_by_token_equal_the_reference),
        cmocka_unit_test(families_greedy_tokens_equal_the_reference),
    };
    if (argc > 1) {
        backend *b;
        nvllm_error err = {0};
        only_device = argv[1];
        if (backend_open(&b, only_device, &(backend_options){0}, &err)) {
            printf("skipped: %s\n", err.message);
            return 77;
        }
        emulated = strncmp(b->isa, "emulated", 8) == 0;
        backend_close(b);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
