/* SiLU gate against the double-precision reference, and the vector exponentials over their whole range. */
#include "ops/op_check.h"
#include "ops/exp_simd.h"
#include "ops/silu_mul.h"
#include "base/half.h"

/* Error of got in units in the last place of the exact value. */
static double ulps(float got, double want)
{
    int exponent;
    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1, exponent - 24);
}

__attribute__((target("avx2,fma"))) static void exp8(float *out, const float *x)
{
    _mm256_storeu_ps(out, exp_avx2(_mm256_loadu_ps(x)));
    _mm256_storeu_ps(out + 8, exp_avx2(_mm256_loadu_ps(x + 8)));
}

__attribute__((target("avx512f"))) static void exp16(float *out, const float *x)
{
    _mm512_storeu_ps(out, exp_avx512(_mm512_loadu_ps(x)));
}

static void exp_over_the_whole_range_is_within_two_ulps(void **state)
{
    (void)state;
    double worst[ISA_COUNT] = {0};
    for (cpu_isa isa = ISA_AVX2; isa <= cpu_isa_detect(); isa++) {
        float x[16], y[16];
        for (double at = -87.3365; at < 88.7228; at += 16 * 3.1e-5) {
            for (int i = 0; i < 16; i++) x[i] = (float)(at + i * 3.1e-5);
            (isa == ISA_AVX2 ? exp8 : exp16)(y, x);
            for (int i = 0; i < 16; i++)
                if (x[i] < 88.7228f) worst[isa] = fmax(worst[isa], ulps(y[i], exp((double)x[i])));
        }
        print_message("exp %s: %.3f ulp\n", cpu_isa_name(isa), worst[isa]);
        assert_true(worst[isa] <= 2);
    }
}

static void exp_of_special_values_is_as_documented(void **state)
{
    (void)state;
    for (cpu_isa isa = ISA_AVX2; isa <= cpu_isa_detect(); isa++) {
        float x[16] = {0, -0.0f, -INFINITY, INFINITY, NAN, -88, -1000, 89, 1e30f, -1e30f}, y[16];
        (isa == ISA_AVX2 ? exp8 : exp16)(y, x);
        assert_true(y[0] == 1 && y[1] == 1 && y[2] == 0 && y[3] == INFINITY && isnan(y[4]));
        assert_true(y[5] == 0 && y[6] == 0 && y[7] == INFINITY && y[8] == INFINITY && y[9] == 0);
    }
}

static void compare(cpu_isa isa, int32_t T, int32_t F, float range)
{
    uint64_t seed = 17;
    int32_t in_stride = 2 * F + 3, out_stride = F + 1;
    float *in = check_alloc((size_t)T * (size_t)in_stride * sizeof *in);
    size_t n = (size_t)T * (size_t)out_stride;
    float *out = check_alloc(n * sizeof *out), *want = check_alloc(n * sizeof *out);
    check_fill(in, (size_t)T * (size_t)in_stride, range, &seed);
    memset(out, 0, n * sizeof *out);
    memset(want, 0, n * sizeof *out);
    cpu_context cpu = check_open(isa, 2, 64);
    op_silu_mul_args a = {out, in, in + F, out_stride, in_stride, T, F}, ref = a;
    ref.out = want;
    op_silu_mul_ref(&ref);
    op_silu_mul_cpu(&a, &cpu);
    check_near(out, want, n, 6e-7, 1e-30, cpu_isa_name(isa));
    /* in place, one token alone: the same bits */
    for (int32_t t = 0; t < T; t++) {
        float *gate = in + (size_t)t * (size_t)in_stride;
        op_silu_mul_args one = {gate, gate, gate + F, 0, 0, 1, F};
        op_silu_mul_cpu(&one, &cpu);
        assert_memory_equal(gate, out + (size_t)t * (size_t)out_stride, (size_t)F * sizeof(float));
    }
    check_close(&cpu);
    free(in);
    free(out);
    free(want);
}

static void silu_mul_of_many_widths_matches_reference(void **state)
{
    (void)state;
    static const int32_t widths[] = {1, 7, 8, 9, 15, 16, 17, 172, 3072, 4096, 8960};
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++)
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            compare(isa, 1, widths[i], 10);
            compare(isa, 9, widths[i], 60);
        }
}

static void silu_mul_of_extremes_is_finite_where_the_formula_is(void **state)
{
    (void)state;
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++) {
        float gate[4] = {-1000, 1000, 0, -100}, up[4] = {2, 2, 2, 2}, out[4];
        cpu_context cpu = check_open(isa, 1, 64);
        op_silu_mul_args a = {out, gate, up, 4, 4, 1, 4};
        op_silu_mul_cpu(&a, &cpu);
        assert_true(out[0] == 0 && out[1] == 2000 && out[2] == 0 && fabsf(out[3]) < 1e-35f);
        check_close(&cpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_over_the_whole_range_is_within_two_ulps),
        cmocka_unit_test(exp_of_special_values_is_as_documented),
        cmocka_unit_test(silu_mul_of_many_widths_matches_reference),
        cmocka_unit_test(silu_mul_of_extremes_is_finite_where_the_formula_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
