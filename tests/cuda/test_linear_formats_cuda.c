/* Matrix products of many tokens with Q8_0, f16 and float32 weights on the GPU against the reference, alone and with the
 * norm before them. */
#include "support/product_case.h"

/* By chance, of every format. */
static void check_formats(bool norm, const int32_t *cols, size_t n_cols, uint64_t random)
{
    static const int32_t counts[] = {5, 9, 17, 33, 64, 65, 130};
    static const dtype formats[] = {DTYPE_Q8_0, DTYPE_F16, DTYPE_F32};
    double worst = 0;
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t t = 0; t < sizeof counts / sizeof *counts; t++)
            for (size_t k = 0; k < n_cols; k++) {
                if (cols[k] % dtype_block(formats[f]) != 0 || device_leaves_out(&gpu, f + t + k)) continue;
                product_case c = random_case(counts[t], cols[k], &random);
                c.accumulate = !norm && pick(&random, 2) == 0;
                c.spread = norm && pick(&random, 3) == 0;
                for (int p = 0; p < LINEAR_MAX_PARTS; p++) {
                    c.format[p] = formats[f];
                    if (c.rows[p] == 1000) c.rows[p] = device_size(&gpu, 1000, 170);
                    if (cols[k] > 4096 && c.rows[p] > 40) c.rows[p] = 40;
                    if (c.spread) c.rows[p] = 40; /* enough that no single sum decides a token's error */
                }
                if (norm) add_norm(&c, &random);
                double error = check_case(&c, &random);
                worst = error > worst ? error : worst;
            }
    print_message("largest relative error %.3g\n", worst);
}

/* Widths in whole stages, and others: f16 takes multiples of 8, Q8_0 all, and the kernels for few tokens what is left. */
static void linear_of_other_formats_matches_reference(void **state)
{
    (void)state;
    static const int32_t cols[] = {256, 512, 768, 1280, 32, 96, 288, 40, 13};
    check_formats(false, cols, sizeof cols / sizeof *cols, 27);
}

/* Every tile, as above; parts that end in the middle of one; formats beside each other; the largest sums. */
static void large_products_of_other_formats_match_reference(void **state)
{
    (void)state;
    const dtype q8 = DTYPE_Q8_0, bf16 = DTYPE_BF16, f16 = DTYPE_F16;
    const product_case cases[] = {
        {.T = 9, .n_parts = 1, .rows = {100}, .format = {q8}, .cols = 2560, .bias = true}, /* 32 x 32 */
        {.T = 70, .n_parts = 2, .rows = {33, 31}, .format = {q8, q8}, .cols = 256},        /* 32 x 32 */
        {.T = 32, .n_parts = 2, .rows = {13001, 500}, .format = {q8, q8}, .cols = 256},    /* 32 x 128 */
        {.T = 17,
         .n_parts = 3,
         .rows = {10001, 3000, 2001},
         .format = {q8, q8, q8},
         .cols = 768,
         .bias = true}, /* 32 x 128 */
        {.T = 61,
         .n_parts = 1,
         .rows = {13003},
         .format = {q8},
         .cols = 512,
         .accumulate = true}, /* 64 x 128 */
        {.T = 130,
         .n_parts = 2,
         .rows = {6000, 5003},
         .format = {q8, q8},
         .cols = 768,
         .bias = true,
         .out_pad = 3}, /* 128 x 128 */
        {.T = 65, .n_parts = 3, .rows = {136, 50, 64}, .format = {q8, bf16, q8}, .cols = 256, .bias = true},
        {.T = 129,
         .n_parts = 1,
         .rows = {15001},
         .format = {q8},
         .cols = 512,
         .largest = true},                                                                  /* 128 x 128 */
        {.T = 9, .n_parts = 1, .rows = {33}, .format = {q8}, .cols = 256, .largest = true}, /* 32 x 32 */
        {.T = 11, .n_parts = 1, .rows = {190}, .format = {q8}, .cols = 512, .spread = true},
        {.T = 9, .n_parts = 1, .rows = {100}, .format = {f16}, .cols = 2560, .bias = true}, /* 32 x 32 */
        {.T = 32, .n_parts = 2, .rows = {40001, 500}, .format = {f16, f16}, .cols = 136},   /* 32 x 128 */
        {.T = 61,
         .n_parts = 1,
         .rows = {13003},
         .format = {f16},
         .cols = 72,
         .accumulate = true}, /* 64 x 64 */
        {.T = 130,
         .n_parts = 2,
         .rows = {6000, 5003},
         .format = {f16, f16},
         .cols = 200,
         .bias = true,
         .out_pad = 3}, /* 128 x 128 */
        {.T = 70, .n_parts = 3, .rows = {136, 50, 64}, .format = {f16, q8, bf16}, .cols = 256, .bias = true},
        {.T = 11, .n_parts = 1, .rows = {190}, .format = {f16}, .cols = 520, .spread = true},
        {.T = 133,
         .n_parts = 1,
         .rows = {15001},
         .format = {f16},
         .cols = 128,
         .spread = true}, /* 128 x 128 */
    };
    uint64_t random = 28;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        product_case c = cases[i];
        for (int p = 0; device_is_emulated(&gpu) && p < c.n_parts; p++)
            if (c.rows[p] > 200) c.rows[p] /= 33; /* few multiprocessors are to be filled */
        check_case(&c, &random);
    }
}

static void norm_linear_of_other_formats_matches_reference(void **state)
{
    (void)state;
    static const int32_t cols[] = {256, 512, 768, 576, 96, 32, 40, 4192};
    check_formats(true, cols, sizeof cols / sizeof *cols, 29);
}

/* More tokens than scratch holds gate and up of at a time, in rows of the tokens' own and in a list of them. */
static void gated_products_of_a_long_prompt_match_reference(void **state)
{
    (void)state;
    uint64_t random = 30;
    product_case c = {.T = 1100,
                      .n_parts = 2,
                      .rows = {40, 40},
                      .format = {DTYPE_Q8_0, DTYPE_Q8_0},
                      .cols = 64,
                      .norm = true,
                      .gated = true,
                      .out_pad = 4};
    check_case(&c, &random);
    c.gather = true;
    check_case(&c, &random);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(linear_of_other_formats_matches_reference),
                                       cmocka_unit_test(large_products_of_other_formats_match_reference),
                                       cmocka_unit_test(norm_linear_of_other_formats_matches_reference),
                                       cmocka_unit_test(gated_products_of_a_long_prompt_match_reference)};
    const backend_shape shape = {.max_tokens = 1100,
                                 .max_logits = 1,
                                 .widest_input = 4192,
                                 .max_rows = 1,
                                 .H = 8,
                                 .C = 64,
                                 .F = 8192,
                                 .V = 256,
                                 .max_context = 256};
    if (!device_open(&gpu)) return 77;
    device_reserve(&gpu, &shape);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
