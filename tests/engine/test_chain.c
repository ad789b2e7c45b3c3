/* `test_chain cuda`: one token through the whole model as one kernel against the same ops a kernel each, at contexts around
 * the borders of tiles, splits and pages, and long ones. Both continue the same tokens, so that only the last step differs.
 * Without an argument there is nothing to compare, and it is skipped (77), as where there is no GPU. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/runner.h"
#include "support/family.h"

enum { SLOTS = 64, CHUNK = 512 };
static const float RANDOM_BOUND = 1e-2f;

static bool emulated; /* a GPU that tests/emulator plays: short contexts, few families */

typedef struct {
    runner *of;
    int32_t *tokens, *pos, *slot, *pages;
    int32_t done; /* tokens in the cache */
} sequence_run;

static runner *open_runner(const model *m, backend *b, int32_t context, fusion_mode fusion)
{
    nvllm_error err = {0};
    runner *r;
    runner_options o = {.max_tokens = CHUNK,
                        .max_rows = 1,
                        .max_logits = 1,
                        .max_context = context,
                        .pages = (context + SLOTS - 1) / SLOTS,
                        .page_slots = SLOTS,
                        .kv_type = model_default_kv_type(m),
                        .fusion = fusion};
    if (runner_open(&r, m, b, &o, &err)) fail_msg("%s", err.message);
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

static void check_model(const model *m, const char *name, float bound, const int32_t *contexts, int n)
{
    backend *b = family_backend("cuda", NULL, 1);
    int32_t V = m->config.V;
    for (int i = 0; i < n; i++) {
        sequence_run chained = {open_runner(m, b, contexts[i], FUSION_FULL)},
                     single = {open_runner(m, b, contexts[i], FUSION_OPS)};
        const fusion_report *fusion = runner_fusion(chained.of);
        assert_int_equal(runner_fusion(single.of)->chained, 0);
        if (fusion->chained == 0 && !family_gpu_refuses(fusion->no_chain))
            fail_msg("%s: %s", name, fusion->no_chain);
        if (fusion->chained == 0) print_message("nothing to compare: %s\n", fusion->no_chain);
        fill(&chained, contexts[i], V);
        fill(&single, contexts[i], V);
        float *want = malloc((size_t)V * sizeof *want), most = 0;
        assert_non_null(want);
        memcpy(want, run_to(&single, contexts[i]), (size_t)V * sizeof *want);
        float off = largest_difference(run_to(&chained, contexts[i]), want, V, &most) / most;
        print_message("%-34s context %5d: %.2e of %.2e\n", name, contexts[i], (double)off, (double)bound);
        if (!(off < bound)) fail_msg("%s at context %d: off by %g", name, contexts[i], (double)off);
        runner_close(chained.of);
        runner_close(single.of);
        free(chained.tokens);
        free(single.tokens);
        free(want);
    }
    backend_close(b);
}

static void check_family(const family_case *c, const int32_t *contexts, int n)
{
    family_model f;
    family_open(&f, c);
    /* sums in another order, which now and then rounds an input to the other neighbour */
    check_model(f.model, c->name, f.low_error / 2, contexts, n);
    family_close(&f);
}

static void chained_ops_give_what_single_kernels_give_at_all_contexts(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen3-gqa8-bf16",     "llama-gqa8-llama3-bf16", "ernie-gqa8-bf16",
                                        "mistral-window-bf16", "qwen2-tied-bf16",        "qwen3-tied-bf16"};
    static const int32_t all[] = {1, 2, 63, 64, 65, 128, 129, 255, 256, 257, 1000, 4096, 32000};
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

typedef struct {
    const char *name, *json;
} shape;

/* Heads as wide as those of real models, which the families' are not, or narrower than the kernel's unit of them. */
static void check_shape(const shape *s, const int32_t *contexts, int n)
{
    char path[] = "/tmp/nano-vllm-chain-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, s->json, strlen(s->json)), (ssize_t)strlen(s->json));
    close(file);
    nvllm_error err = {0};
    model *m;
    if (model_open_random(&m, path, DTYPE_BF16, 7, &err)) fail_msg("%s", err.message);
    unlink(path);
    check_model(m, s->name, RANDOM_BOUND, contexts, n);
    model_close(m);
}

static void chained_ops_give_what_single_kernels_give_with_wide_heads(void **state)
{
    (void)state;
#define SIZES                                                                                                \
    "\"hidden_size\":256,\"intermediate_size\":384,\"num_hidden_layers\":3,\"vocab_size\":256,"              \
    "\"max_position_embeddings\":65536,\"rms_norm_eps\":1e-6,\"rope_theta\":1e6,"
    static const shape shapes[] = {
        {"128 channels, 2 heads of 2", "{\"model_type\":\"qwen3\"," SIZES "\"num_attention_heads\":4,"
                                       "\"num_key_value_heads\":2,\"head_dim\":128}"},
        {"64 channels, 8 heads of 1", "{\"model_type\":\"llama\"," SIZES "\"num_attention_heads\":8,"
                                      "\"num_key_value_heads\":1,\"head_dim\":64}"},
        {"80 channels, 3 heads of 1", "{\"model_type\":\"qwen3\"," SIZES "\"num_attention_heads\":3,"
                                      "\"num_key_value_heads\":1,\"head_dim\":80}"},
        {"104 channels, 2 heads of 1", "{\"model_type\":\"llama\"," SIZES "\"num_attention_heads\":2,"
                                       "\"num_key_value_heads\":1,\"head_dim\":104}"},
    };
#undef SIZES
    static const int32_t all[] = {1, 2, 63, 64, 65, 66, 127, 128, 129, 193, 256, 257, 1000, 4096, 32000};
    static const int32_t few[] = {1, 65, 130};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_shape(&shapes[i], emulated ? few : all, emulated ? 3 : (int)(sizeof all / sizeof *all));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chained_ops_give_what_single_kernels_give_at_all_contexts),
        cmocka_unit_test(chained_ops_give_what_single_kernels_give_with_wide_heads),
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
