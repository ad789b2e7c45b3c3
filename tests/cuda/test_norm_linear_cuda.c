/* RMSNorm with the products that read it, on the GPU, against the reference: sizes that fill no tile, one to three parts
 * in a wider output, bias, gate and up, rows picked from a list, all formats. */
#include "support/product.h"

static void norm_linear_of_every_shape_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t rows[] = {1, 8, 9, 136, 1000},
                  cols[] = {8, 24, 64, 128, 136, 1000, 1024, 1032, 3072, 14336};
    check_sizes(DTYPE_BF16, true, 2200000, rows, sizeof rows / sizeof *rows, cols,
                sizeof cols / sizeof *cols);
    no_failures();
}

static void norm_linear_gated_is_silu_of_gate_times_up(void **state)
{
    (void)state;
    const int32_t shape[][2] = {{1, 8},      {7, 24},      {8, 64},    {9, 128},     {40, 136},   {136, 1032},
                                {1056, 896}, {1000, 1000}, {4, 14336}, {1536, 1024}, {136, 3072}, {65, 4096}};
    check_gates(DTYPE_BF16, shape, sizeof shape / sizeof *shape);
    no_failures();
}

static void norm_linear_of_parts_writes_each_to_its_columns(void **state)
{
    (void)state;
    const product p[] = {
        {1024, 3, {2048, 1024, 1024}, {DTYPE_BF16, DTYPE_BF16, DTYPE_BF16}, .norm = true},
        {896,
         3,
         {896, 128, 128},
         {DTYPE_BF16, DTYPE_BF16, DTYPE_BF16},
         .norm = true,
         .bias = true,
         .by_row = true},
        {136, 3, {9, 1, 7}, {DTYPE_BF16, DTYPE_BF16, DTYPE_BF16}, .norm = true, .bias = true},
        {1032, 2, {41, 1000}, {DTYPE_BF16, DTYPE_BF16}, .norm = true, .by_row = true, .in_pad = 4},
    };
    for (size_t i = 0; i < sizeof p / sizeof *p; i++) check_product(&p[i]);
    no_failures();
}

static const dtype others[] = {DTYPE_Q8_0, DTYPE_F16, DTYPE_F32};

static void norm_linear_of_other_formats_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t rows[] = {1, 9, 136, 1000}, cols[] = {13, 32, 40, 96, 256, 576, 896, 1024, 2304, 14336};
    for (size_t f = 0; f < sizeof others / sizeof *others; f++)
        check_sizes(others[f], true, 2400000, rows, sizeof rows / sizeof *rows, cols,
                    sizeof cols / sizeof *cols);
    no_failures();
}

/* A warp has several rows, of several stages: the inputs' widths of whole and broken ones. */
static void norm_linear_of_other_formats_gated_is_silu_of_gate_times_up(void **state)
{
    (void)state;
    const int32_t shape[][2] = {{1, 32},     {7, 96},   {40, 1024}, {136, 256}, {9, 2304},
                                {1056, 896}, {33, 576}, {4, 14336}, {21, 1056}};
    for (size_t f = 0; f < sizeof others / sizeof *others; f++)
        check_gates(others[f], shape, sizeof shape / sizeof *shape);
    no_failures();
}

static void norm_linear_of_parts_of_other_formats_writes_each_to_its_columns(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof others / sizeof *others; f++) {
        const dtype of = others[f];
        const product p[] = {
            {1024, 3, {2048, 1024, 1024}, {of, of, of}, .norm = true},
            {896, 3, {89, 12, 12}, {of, of, of}, .norm = true, .bias = true, .by_row = true},
            {288, 3, {9, 1, 7}, {of, of, of}, .norm = true, .bias = true},
            {1280, 2, {41, 60}, {of, of}, .norm = true, .by_row = true, .in_pad = 4},
        };
        for (size_t i = 0; i < sizeof p / sizeof *p; i++) check_product(&p[i]);
    }
    no_failures();
}

/* What the fast kernels refuse: rows as a file has them, addresses and inputs at no multiple of 16. */
static void norm_linear_of_odd_strides_and_addresses_reads_the_right_elements(void **state)
{
    (void)state;
    for (int format = 0; format < DTYPE_COUNT; format++)
        for (int variant = 0; variant < 4; variant++)
            for (int gated = 0; gated < 2; gated++)
                check_product(&(product){.cols = 288,
                                         .n_parts = 2,
                                         .rows = {9, gated ? 9 : 30},
                                         .format = {(dtype)format, (dtype)format},
                                         .norm = true,
                                         .gated = gated,
                                         .bias = true,
                                         .by_row = variant == 1,
                                         .in_pad = variant, /* 1, 2: inputs on 4 and 8 bytes */
                                         .as_stored = variant == 3,
                                         .shift = variant == 0 ? 4 : 0});
    no_failures();
}

/* Many widths: a sum of squares in another order often rounds to the same. */
static void norm_linear_q8_of_a_token_is_the_same_bits_among_few_others(void **state)
{
    (void)state;
    for (int32_t cols = 32; cols < 3200; cols += 160) {
        bool gated = cols % 320 == 32;
        product p = {.cols = cols, .n_parts = gated ? 2 : 1, .rows = {9, 9}, .norm = true, .gated = gated};
        p.format[0] = p.format[1] = DTYPE_Q8_0;
        setup s;
        make_setup(&s, &p);
        size_t token = (size_t)s.on_host.linear.out_stride * sizeof(float);
        run(&s, 1, s.again);
        for (int32_t T = 2; T <= FEW; T++) {
            run(&s, T, s.got);
            if (memcmp(s.got, s.again, token) != 0) report(&p, T, "token 0 has other bits than alone");
        }
        free_setup(&s);
    }
    no_failures();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_linear_of_every_shape_is_close_to_the_reference),
        cmocka_unit_test(norm_linear_gated_is_silu_of_gate_times_up),
        cmocka_unit_test(norm_linear_of_parts_writes_each_to_its_columns),
        cmocka_unit_test(norm_linear_of_other_formats_is_close_to_the_reference),
        cmocka_unit_test(norm_linear_of_other_formats_gated_is_silu_of_gate_times_up),
        cmocka_unit_test(norm_linear_of_parts_of_other_formats_writes_each_to_its_columns),
        cmocka_unit_test(norm_linear_of_odd_strides_and_addresses_reads_the_right_elements),
        cmocka_unit_test(norm_linear_q8_of_a_token_is_the_same_bits_among_few_others),
    };
    if (!device_open(&gpu)) return 77;
    reserve_for_products();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
