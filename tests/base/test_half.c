/* 16-bit floats: exact round trips, and rounding against an independent definition. */
#include "support/test.h"
#include "base/half.h"

#include <math.h>

static void f16_of_every_finite_value_round_trips(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = f16_to_float((uint16_t)h);
        if (isnan(f))
            assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff));
        else
            assert_int_equal(f16_from_float(f), h);
    }
}

/* Nearest by search over neighbours: independent of the bit tricks under test. */
static void f16_from_float_rounds_to_nearest_even(void **state)
{
    (void)state;
    uint32_t seed = 1;
    for (int i = 0; i < 200000; i++) {
        seed = seed * 1664525u + 1013904223u;
        float f = float_from_bits(0x32000000u + seed % 0x157fe000u);
        uint16_t h = f16_from_float(f);
        double best = fabs((double)f16_to_float(h) - (double)f);
        for (int d = -1; d <= 1; d += 2) {
            uint16_t other = (uint16_t)(h + d);
            if (h == 0 && d < 0) continue;
            double gap = fabs((double)f16_to_float(other) - (double)f);
            assert_true(best <= gap);
            if (best == gap) assert_int_equal(h & 1, 0);
        }
    }
}

static void bf16_from_float_rounds_ties_to_even_and_keeps_nan(void **state)
{
    (void)state;
    assert_int_equal(bf16_from_float(1.0f), 0x3f80);
    assert_int_equal(bf16_from_float(float_from_bits(0x3f808000u)), 0x3f80); /* tie, even below */
    assert_int_equal(bf16_from_float(float_from_bits(0x3f818000u)), 0x3f82); /* tie, even above */
    assert_int_equal(bf16_from_float(float_from_bits(0x3f808001u)), 0x3f81);
    assert_true(isnan(bf16_to_float(bf16_from_float(NAN))));
    assert_true(isinf(bf16_to_float(bf16_from_float(3.4e38f))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_of_every_finite_value_round_trips),
        cmocka_unit_test(f16_from_float_rounds_to_nearest_even),
        cmocka_unit_test(bf16_from_float_rounds_ties_to_even_and_keeps_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
