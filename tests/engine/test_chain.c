/* `test_chain cuda`: one token through the whole model as one kernel against the same ops a kernel each, at contexts around
 * the borders of tiles, splits and pages, and long ones (beyond 16,384 tokens both run single kernels). Both continue the same tokens, so that only the last step differs.
 * Without an argument there is nothing to compare, and it is skipped (77), as where there is no GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/runner.h"
#include "support/family.h"

enum { SLOTS = 64, CHUNK = 512 };

static bool emulated; /* a GPU that tests/emulator plays: short contexts, few families */

typedef struct {
    runner *of;
    int32_t *tokens, *pos, *slot, *pages;
    int32_t done; /* tokens in the cache */
} sequence_run;

static runner *open_runner(const family_model *f, backend *b, int32_t context, fusion_mode fusion)
{
    nvllm_error err = {0};
    runner *r;
    runner_options o = {.max_tokens = CHUNK,
                        .max_rows = 1,
                        .max_logits = 1,
                        .max_context = context,
                        .pages = (context + SLOTS - 1) / SLOTS,
                        .page_slots = SLOTS,
                        .kv_type = model_default_kv_type(f->model),
                        .fusion = fusion};
    if (runner_open(&r, f->model, b, &o, &err)) fail_msg("%s", err.message);
    return r;
}

/* Runs n tokens of the sequence; the last one's logits. */
static const float *run(sequence_run *s, int32_t n, int32_t P)
{
    int32_t row_start[2] = {0, n}, length = s->done + n, last = n - 1;
    float *logits;
    nvllm_error err = {0};
    batch step = {.T = n,
                  .R = 1,
                  .N = 1,
                  .P = P,
                  .tokens = s->tokens + s->done,
                  .pos = s->pos + s->done,
                  .slot = s->slot + s->done,
                  .row_start = row_start,
                  .kv_len = &length,
                  .pages = s->pages,
                  .logit_row = &last};
    if (runner_step(s->of, &step, &logits, &err)) fail_msg("%s", err.message);
    s->done = length;
    return logits;
}

/* Random tokens, and pages in the reverse order. */
static void fill(sequence_run *s, int32_t context, int32_t V)
{
    int32_t P = (context + SLOTS - 1) / SLOTS;
    uint32_t x = 12345;
    s->tokens = calloc(3 * (size_t)context + (size_t)P, sizeof *s->tokens);
    assert_non_null(s->tokens);
    s->pos = s->tokens + context;
    s->slot = s->pos + context;
    s->pages = s->slot + context;
    for (int32_t p = 0; p < P; p++) s->pages[p] = P - 1 - p;
    for (int32_t i = 0; i < context; i++) {
        x = x * 1664525u + 1013904223u;
        s->tokens[i] = (int32_t)(x >> 8) % V;
        s->pos[i] = i;
        s->slot[i] = s->pages[i / SLOTS] * SLOTS + i % SLOTS;
    }
}

/* In chunks to the last token, which is a step of its own. */
static const float *run_to(sequence_run *s, int32_t context)
{
    int32_t P = (context + SLOTS - 1) / SLOTS;
    while (context - 1 - s->done > 0) {
        int32_t left = context - 1 - s->done;
        run(s, left < CHUNK ? left : CHUNK, P);
    }
    return run(s, 1, P);
}

static float largest_difference(const float *a, const float *b, int32_t n, float *most)
{
    float off = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!isfinite(a[i])) return INFINITY;
        off = fmaxf(off, fabsf(a[i] - b[i]));
        *most = fmaxf(*most, fabsf(b[i]));
    }
    return off;
}

static void check_family(const family_case *c, const int32_t *contexts, int n)
{
    family_model f;
    family_open(&f, c);
    backend *b = family_backend("cuda", NULL, 1);
    int32_t V = f.model->config.V;
    float bound = f.low_error / 10; /* the same arithmetic, but for the order in which splits are added up */
    for (int i = 0; i < n; i++) {
        sequence_run chained = {open_runner(&f, b, contexts[i], FUSION_FULL)},
                     single = {open_runner(&f, b, contexts[i], FUSION_OPS)};
        const fusion_report *fusion = runner_fusion(chained.of);
        assert_int_equal(runner_fusion(single.of)->chained, 0);
        if (fusion->chained == 0 && !family_gpu_refuses(fusion->no_chain))
            fail_msg("%s: %s", c->name, fusion->no_chain);
        if (fusion->chained == 0) print_message("nothing to compare: %s\n", fusion->no_chain);
        fill(&chained, contexts[i], V);
        fill(&single, contexts[i], V);
        float *want = malloc((size_t)V * sizeof *want), most = 0;
        assert_non_null(want);
        memcpy(want, run_to(&single, contexts[i]), (size_t)V * sizeof *want);
        float off = largest_difference(run_to(&chained, contexts[i]), want, V, &most) / most;
        print_message("%-34s context %5d: %.2e of %.2e\n", c->name, contexts[i], (double)off, (double)bound);
        if (!(off < bound)) fail_msg("%s at context %d: off by %g", c->name, contexts[i], (double)off);
        runner_close(chained.of);
        runner_close(single.of);
        free(chained.tokens);
        free(single.tokens);
        free(want);
    }
    backend_close(b);
    family_close(&f);
}

static void chained_ops_give_what_single_kernels_give_at_all_contexts(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen3-gqa8-bf16",     "llama-gqa8-llama3-bf16", "ernie-gqa8-bf16",
                                        "mistral-window-bf16", "qwen2-tied-bf16",        "qwen3-tied-bf16"};
    static const int32_t all[] = {1, 2, 63, 64, 65, 128, 129, 255, 256, 257, 1000, 4096, 16384, 32000};
    static const int32_t few[] = {1, 65, 130};
    static family_case cases[FAMILY_MAX];
    int n = family_cases(cases), found = 0;
    for (int i = 0; i < n; i++)
        for (size_t j = 0; j < sizeof names / sizeof *names; j++) {
            if (!strstr(cases[i].name, names[j]) || (emulated && j > 0)) continue;
            found++;
            check_family(&cases[i], emulated ? few : all, emulated ? 3 : (int)(sizeof all / sizeof *all));
        }
    assert_int_equal(found, emulated ? 1 : 6);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chained_ops_give_what_single_kernels_give_at_all_contexts),
    };
    backend *b;
    nvllm_error err = {0};
    if (argc < 2) {
        printf("skipped: no device was named (test_chain cuda)\n");
        return 77;
    }
    if (backend_open(&b, argv[1], &(backend_options){0}, &err)) {
        printf("skipped: %s\n", err.message);
        return 77;
    }
    emulated = strncmp(b->isa, "emulated", 8) == 0;
    backend_close(b);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
