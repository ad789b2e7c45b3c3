/* The planned memory is what the runner takes: compared with a device that counts. */
#include "support/fake_device.h"
#include "support/test.h"
#include "model/memory_plan.h"

typedef struct {
    backend base;
    size_t taken;
    size_t most; /* alloc fails beyond it */
} counting;

static void *counting_alloc(backend *b, size_t bytes)
{
    counting *c = (counting *)(void *)b;
    if (c->taken + bytes > c->most) return NULL;
    c->taken += bytes;
    return calloc(1, bytes ? bytes : 1);
}

static void counting_free(backend *b, void *memory, size_t bytes)
{
    (void)b;
    (void)bytes;
    free(memory);
}

static size_t scratch_bytes(backend *b, const backend_shape *shape)
{
    (void)b;
    return (size_t)shape->max_tokens * 1000 + (size_t)shape->widest_input;
}

static nvllm_status reserve_scratch(backend *b, const backend_shape *shape, nvllm_error *err)
{
    (void)err;
    ((counting *)(void *)b)->taken += scratch_bytes(b, shape);
    return NVLLM_OK;
}

static void memory(backend *b, size_t *left, size_t *total)
{
    counting *c = (counting *)(void *)b;
    *left = c->most - c->taken;
    *total = c->most;
}

static backend_type counting_type(void)
{
    backend_type t = backend_reference;
    t.alloc = counting_alloc;
    t.free = counting_free;
    fake_device(&t);
    t.scratch_bytes = scratch_bytes;
    t.reserve_scratch = reserve_scratch;
    t.memory = memory;
    return t;
}

static const runner_options options = {.max_tokens = 37,
                                       .max_rows = 3,
                                       .max_logits = 5,
                                       .max_context = 61,
                                       .pages = 11,
                                       .page_slots = 16,
                                       .kv_type = DTYPE_BF16};

static void plan_is_what_the_runner_takes(void **state)
{
    (void)state;
    static const char *const names[] = {"llama-gqa2-f32", "ernie-gqa8-bf16", "qwen3-tied-bf16"};
    backend_type type = counting_type();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        model *m;
        runner *r;
        nvllm_error err = {0};
        counting c = {.base = {.type = &type}, .most = (size_t)1 << 40};
        snprintf(path, sizeof path, TEST_FIXTURES "/families/%s", names[i]);
        assert_int_equal(model_open(&m, path, &err), NVLLM_OK);
        memory_plan plan = memory_plan_of(m, &c.base, &options);
        if (runner_open(&r, m, &c.base, &options, &err)) fail_msg("%s", err.message);
        assert_int_equal(memory_plan_sum(&plan), c.taken);
        assert_int_equal(plan.kv, runner_kv_bytes(r));
        assert_true(plan.weights > 0 && plan.activations >= runner_workspace_bytes(r));
        runner_close(r);
        model_close(m);
    }
}

static void plan_of_a_host_has_no_copies_of_weights(void **state)
{
    (void)state;
    model *m;
    backend *b;
    assert_int_equal(model_open(&m, TEST_FIXTURES "/families/llama-gqa2-f32", NULL), NVLLM_OK);
    assert_int_equal(backend_open(&b, "cpu", &(backend_options){.threads = 1}, NULL), NVLLM_OK);
    memory_plan plan = memory_plan_of(m, b, &options);
    assert_int_equal(plan.weights, 0);
    assert_true(plan.scratch > 0);
    backend_close(b);
    model_close(m);
}

/* Whatever the allocation that fails, the sentence says what for, how much is free and what to change; nothing leaks. */
static void runner_names_the_allocation_that_fails(void **state)
{
    (void)state;
    backend_type type = counting_type();
    bool seen_weights = false, seen_activations = false, seen_kv = false;
    model *m;
    assert_int_equal(model_open(&m, TEST_FIXTURES "/families/llama-gqa2-f32", NULL), NVLLM_OK);
    counting plenty = {.base = {.type = &type}};
    memory_plan plan = memory_plan_of(m, &plenty.base, &options);
    size_t all = memory_plan_sum(&plan) - plan.scratch;
    for (size_t most = 0; most < all; most += all / 64 + 1) {
        counting c = {.base = {.type = &type, .isa = "Abacus 3000"}, .most = most};
        nvllm_error err = {0};
        runner *r;
        assert_int_equal(runner_open(&r, m, &c.base, &options, &err), NVLLM_ERR_MEMORY);
        seen_weights |= strstr(err.message, "for the weights") != NULL;
        seen_activations |= strstr(err.message, "for activations") != NULL;
        seen_kv |= strstr(err.message, "for the KV cache") != NULL;
        if (strstr(err.message, "drawn")) continue;
        assert_non_null(strstr(err.message, "out of memory on Abacus 3000"));
        assert_non_null(strstr(err.message, "GB are free: lower the context"));
    }
    assert_true(seen_weights && seen_activations && seen_kv);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plan_is_what_the_runner_takes),
                                       cmocka_unit_test(plan_of_a_host_has_no_copies_of_weights),
                                       cmocka_unit_test(runner_names_the_allocation_that_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
