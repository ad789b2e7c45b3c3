/* RMSNorm against the double-precision reference (relative 4e-6), in place, with groups, and bit-exact per token. */
#include "ops/op_check.h"
#include "ops/rmsnorm.h"

static void compare(cpu_isa isa, int32_t T, int32_t groups, int32_t width, float range, float eps)
{
    uint64_t seed = (uint64_t)width;
    int32_t stride = groups * width + 5;
    size_t n = (size_t)T * (size_t)stride;
    float *in = check_alloc(n * sizeof *in), *out = check_alloc(n * sizeof *in),
          *want = check_alloc(n * sizeof *in);
    float *w = check_alloc((size_t)width * sizeof *w);
    check_fill(in, n, range, &seed);
    check_fill(w, (size_t)width, 96.5f, &seed);
    memcpy(want, in, n * sizeof *in);
    memcpy(out, in, n * sizeof *in);
    cpu_context cpu = check_open(isa, 2, 64);
    op_rmsnorm_args a = {out, stride, in, stride, w, T, groups, width, eps}, ref = a;
    ref.out = want;
    op_rmsnorm_ref(&ref);
    op_rmsnorm_cpu(&a, &cpu);
    check_near(out, want, n, 4e-6, 0, cpu_isa_name(isa)); /* the gap between tokens stays as it was */
    /* in place, and one token alone: the same bits */
    float *alone = check_alloc(n * sizeof *in);
    memcpy(alone, in, n * sizeof *in);
    for (int32_t t = 0; t < T; t++) {
        float *x = alone + (size_t)t * (size_t)stride;
        op_rmsnorm_args one = {x, 0, x, 0, w, 1, groups, width, eps};
        op_rmsnorm_cpu(&one, &cpu);
    }
    assert_memory_equal(alone, out, n * sizeof *in);
    check_close(&cpu);
    free(in);
    free(out);
    free(want);
    free(w);
    free(alone);
}

static void rmsnorm_of_many_widths_matches_reference(void **state)
{
    (void)state;
    static const int32_t widths[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 896, 1024, 4099};
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++)
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) compare(isa, 3, 1, widths[i], 3, 1e-6f);
}

static void rmsnorm_per_head_matches_reference(void **state)
{
    (void)state;
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++) {
        compare(isa, 40, 16, 128, 500, 1e-6f);
        compare(isa, 5, 3, 22, 1e-4f, 1e-5f); /* eps counts */
    }
}

static void rmsnorm_of_many_tokens_over_threads_matches_reference(void **state)
{
    (void)state;
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++) compare(isa, 200, 1, 1024, 1, 1e-6f);
}

static void rmsnorm_of_zeros_is_zero(void **state)
{
    (void)state;
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++) {
        float x[20] = {0}, w[20] = {0};
        cpu_context cpu = check_open(isa, 1, 64);
        op_rmsnorm_args a = {x, 20, x, 20, w, 1, 1, 20, 1e-6f};
        op_rmsnorm_cpu(&a, &cpu);
        for (int i = 0; i < 20; i++) assert_true(x[i] == 0);
        check_close(&cpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_of_many_widths_matches_reference),
        cmocka_unit_test(rmsnorm_per_head_matches_reference),
        cmocka_unit_test(rmsnorm_of_many_tokens_over_threads_matches_reference),
        cmocka_unit_test(rmsnorm_of_zeros_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
