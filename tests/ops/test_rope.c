/* RoPE: the table against long double trigonometry, the rotation against complex multiplication, both pairings. */
#include "ops/op_check.h"
#include "ops/rope.h"

static void frequencies(float *inv_freq, int32_t C, double theta)
{
    for (int32_t i = 0; i < C / 2; i++) inv_freq[i] = (float)pow(theta, -2.0 * i / C);
}

static void rope_table_at_far_positions_is_correctly_rounded(void **state)
{
    (void)state;
    enum { C = 128, T = 400 };
    float inv_freq[C / 2], *cosine = check_alloc(T * C / 2 * sizeof(float)),
                           *sine = check_alloc(T * C / 2 * sizeof(float));
    int32_t pos[T];
    frequencies(inv_freq, C, 1e6);
    for (int32_t t = 0; t < T; t++) pos[t] = t < 3 ? t : 32768 - t;
    for (int threads = 1; threads <= 2; threads++) {
        cpu_context cpu = check_open(cpu_isa_detect(), threads, 64);
        op_rope_table_args a = {cosine, sine, inv_freq, pos, T, C, 1.0f};
        op_rope_table_cpu(&a, &cpu);
        for (int32_t i = 0; i < T * C / 2; i++) {
            float angle = (float)pos[i / (C / 2)] * inv_freq[i % (C / 2)];
            assert_true(cosine[i] == (float)cosl((long double)angle));
            assert_true(sine[i] == (float)sinl((long double)angle));
        }
        check_close(&cpu);
    }
    free(cosine);
    free(sine);
}

static void rope_table_scale_multiplies_both(void **state)
{
    (void)state;
    float inv_freq[1] = {1}, c[1], s[1];
    int32_t pos[1] = {2};
    cpu_context cpu = check_open(ISA_SCALAR, 1, 64);
    op_rope_table_args a = {c, s, inv_freq, pos, 1, 2, 1.5f};
    op_rope_table_cpu(&a, &cpu);
    assert_true(fabs(c[0] - 1.5 * cos(2)) < 1e-6 && fabs(s[0] - 1.5 * sin(2)) < 1e-6);
    check_close(&cpu);
}

static void rotate_and_compare(cpu_isa isa, rope_pairing pairing, int32_t T, int32_t heads, int32_t C)
{
    uint64_t seed = (uint64_t)C;
    int32_t stride = heads * C + 7, half = C / 2;
    size_t n = (size_t)T * (size_t)stride;
    float *x = check_alloc(n * sizeof *x), *ref = check_alloc(n * sizeof *x),
          *before = check_alloc(n * sizeof *x);
    float *cosine = check_alloc((size_t)(T * half) * sizeof *x),
          *sine = check_alloc((size_t)(T * half) * sizeof *x);
    for (int32_t i = 0; i < T * half; i++) {
        double angle = check_uniform(&seed, 3.14159f);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    check_fill(x, n, 500, &seed);
    memcpy(ref, x, n * sizeof *x);
    memcpy(before, x, n * sizeof *x);
    cpu_context cpu = check_open(isa, 2, 64);
    op_rope_args a = {x, stride, T, heads, C, cosine, sine, pairing}, want = a;
    want.x = ref;
    op_rope_ref(&want);
    op_rope_cpu(&a, &cpu);
    check_near(x, ref, n, 0, 1e-4, cpu_isa_name(isa)); /* 500 * 2^-24 * a few; the gaps are untouched */
    for (int32_t t = 0; t < T; t++)
        for (int32_t h = 0; h < heads; h++)
            for (int32_t i = 0; i < half; i++) {
                size_t head = (size_t)t * (size_t)stride + (size_t)(h * C);
                size_t u = head + (size_t)(pairing == ROPE_HALVES ? i : 2 * i),
                       v = u + (size_t)(pairing == ROPE_HALVES ? half : 1);
                double c = cosine[t * half + i], s = sine[t * half + i];
                assert_true(fabs(x[u] - (before[u] * c - before[v] * s)) < 1e-4);
                assert_true(fabs(x[v] - (before[v] * c + before[u] * s)) < 1e-4);
            }
    /* a token alone gives the same bits */
    memcpy(ref, before, n * sizeof *x);
    for (int32_t t = 0; t < T; t++) {
        op_rope_args one = {
            ref + (size_t)t * (size_t)stride, 0, 1, heads, C, cosine + t * half, sine + t * half, pairing};
        op_rope_cpu(&one, &cpu);
    }
    assert_memory_equal(ref, x, n * sizeof *x);
    check_close(&cpu);
    free(x);
    free(ref);
    free(before);
    free(cosine);
    free(sine);
}

static void rope_of_both_pairings_rotates_every_pair(void **state)
{
    (void)state;
    static const int32_t dims[] = {2, 8, 10, 22, 64, 80, 128, 256};
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            rotate_and_compare(isa, ROPE_HALVES, 5, 3, dims[i]);
            rotate_and_compare(isa, ROPE_PAIRS, 5, 3, dims[i]);
            rotate_and_compare(isa, ROPE_HALVES, 60, 8, dims[i]);
            rotate_and_compare(isa, ROPE_PAIRS, 60, 8, dims[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rope_table_at_far_positions_is_correctly_rounded),
        cmocka_unit_test(rope_table_scale_multiplies_both),
        cmocka_unit_test(rope_of_both_pairings_rotates_every_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
