/* Which groups of ops are fused is the backend's word on their weights, and why one was not is kept. */
#include "support/test.h"
#include "model/fusion.h"
#include "model/model.h"

static bool takes_one_format(op_kind kind, const weight *const *parts, int32_t n_parts)
{
    (void)kind;
    for (int32_t p = 0; p < n_parts; p++)
        if (parts[p]->format != parts[0]->format) return false;
    return true;
}

static bool takes_no_products(op_kind kind, const weight *const *parts, int32_t n_parts)
{
    (void)parts;
    (void)n_parts;
    return kind != OP_NORM_LINEAR;
}

static fusion_report report_of(const model *m, bool (*can_fuse)(op_kind, const weight *const *, int32_t))
{
    backend_type type = backend_reference;
    fusion_report report;
    graph g;
    type.can_fuse = can_fuse;
    assert_int_equal(graph_fuse(&g, &m->graph, &m->weights, &type, &report, NULL), NVLLM_OK);
    graph_free(&g);
    return report;
}

static void fusion_that_was_refused_says_which_weights_were_not_taken(void **state)
{
    (void)state;
    model *m;
    nvllm_error err = {0};
    if (model_open(&m, TEST_FIXTURES "/families/qwen3-tied-bf16", &err)) fail_msg("%s", err.message);
    int32_t L = m->config.L, all = 3 * L + 1; /* qkv, attention, gate and up; the head */
    fusion_report r = report_of(m, takes_one_format);
    assert_int_equal(r.fused, all);
    assert_int_equal(r.refused, 0);
    assert_string_equal(r.reason, "");
    r = report_of(m, takes_no_products);
    assert_int_equal(r.fused, L);
    assert_int_equal(r.refused, 2 * L + 1);
    assert_string_equal(r.reason, "reference has no norm_linear for BF16 weights");
    weight *k = &m->weights.table[W_K];
    assert_int_equal(k->format, DTYPE_BF16);
    k->format = DTYPE_F16;
    r = report_of(m, takes_one_format);
    k->format = DTYPE_BF16;
    assert_int_equal(r.fused, all - 1);
    assert_int_equal(r.refused, 1);
    assert_string_equal(r.reason, "reference has no norm_linear for BF16 beside F16 weights");
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fusion_that_was_refused_says_which_weights_were_not_taken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
