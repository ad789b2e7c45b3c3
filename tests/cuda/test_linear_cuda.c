/* Matrix products on the GPU against the reference: sizes that fill no tile, one to three parts in a wider output, bias,
 * residual, odd addresses, all formats.
 *
 * `test_linear_cuda --perf`: microseconds and GB/s of weights, 100 products in one recorded list, over enough copies of
 * the weights that the L2 cache does not serve them; also of norm_linear. */
#include "support/product.h"

static void linear_bf16_of_every_shape_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t rows[] = {1, 7, 8, 9, 40, 136, 1000, 4096};
    const int32_t cols[] = {8, 24, 64, 128, 136, 1000, 1024, 1032, 3072, 14336};
    check_sizes(DTYPE_BF16, false, 4300000, rows, sizeof rows / sizeof *rows, cols,
                sizeof cols / sizeof *cols);
    no_failures();
}

static void linear_of_parts_writes_each_to_its_columns(void **state)
{
    (void)state;
    const product p[] = {
        {1024, 3, {2048, 1024, 1024}, {DTYPE_BF16, DTYPE_BF16, DTYPE_BF16}, .bias = true},
        {896, 3, {896, 128, 128}, {DTYPE_BF16, DTYPE_BF16, DTYPE_BF16}, .bias = true, .accumulate = true},
        {1032, 3, {7, 1, 9}, {DTYPE_BF16, DTYPE_BF16, DTYPE_BF16}},
        {136, 2, {1000, 41}, {DTYPE_BF16, DTYPE_BF16}, .accumulate = true, .in_pad = 4},
        {128, 3, {136, 40, 9}, {DTYPE_BF16, DTYPE_Q8_0, DTYPE_BF16}, .bias = true, .accumulate = true},
        {1024, 3, {33, 136, 8}, {DTYPE_F32, DTYPE_F16, DTYPE_BF16}, .bias = true},
        {1024, 2, {40, 40}, {DTYPE_Q8_0, DTYPE_Q8_0}, .accumulate = true},
    };
    for (size_t i = 0; i < sizeof p / sizeof *p; i++) check_product(&p[i]);
    no_failures();
}

static void linear_of_every_format_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t rows[] = {1, 9, 136, 1000}, cols[] = {13, 64, 136, 1000, 1024, 3072};
    for (int format = 0; format < DTYPE_COUNT; format++)
        check_sizes((dtype)format, false, INT64_MAX, rows, sizeof rows / sizeof *rows, cols,
                    sizeof cols / sizeof *cols);
    no_failures();
}

/* Rows that a warp streams in whole and broken stages, several rows per warp; a part whose rows begin at odd places. */
static void linear_of_rows_in_stages_is_close_to_the_reference(void **state)
{
    (void)state;
    const dtype formats[] = {DTYPE_Q8_0, DTYPE_F16, DTYPE_F32};
    const int32_t cols[] = {256, 896, 1280, 576, 2304, 96, 1056};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            check_product(&(product){.cols = cols[c],
                                     .n_parts = 2,
                                     .rows = {device_size(&gpu, 3001, 45), 33},
                                     .format = {formats[f], formats[f]},
                                     .bias = c % 3 == 1,
                                     .accumulate = c % 3 == 2});
    no_failures();
}

/* Cards of 99 KB of shared memory hold the inputs of four such tokens; two of the second, one of the third, and none of the
 * last. */
static void linear_q8_of_wide_inputs_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t cols[] = {8192, 14336, 28672, 65536};
    for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
        check_product(&(product){.cols = cols[c],
                                 .n_parts = 1,
                                 .rows = {device_size(&gpu, 33, cols[c] > 20000 ? 3 : 9)},
                                 .format = {DTYPE_Q8_0},
                                 .bias = true});
    no_failures();
}

static void linear_of_odd_strides_and_addresses_reads_the_right_elements(void **state)
{
    (void)state;
    for (int format = 0; format < DTYPE_COUNT; format++)
        for (int variant = 0; variant < 5; variant++) {
            size_t smallest = format == DTYPE_F32 ? 4 : 2;
            check_product(&(product){.cols = 1024,
                                     .n_parts = 2,
                                     .rows = {device_size(&gpu, 37, 9), 8},
                                     .format = {(dtype)format, (dtype)format},
                                     .bias = true,
                                     .in_pad = variant % 3, /* 1, 2: inputs on 4 and 8 bytes */
                                     .shift = variant < 2    ? 0
                                              : variant == 2 ? smallest
                                              : variant == 3 ? 8
                                                             : 16});
        }
    no_failures();
}

static void linear_of_a_token_is_the_same_bits_among_few_others(void **state)
{
    (void)state;
    const int32_t cols[] = {136, 1024};
    for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
        product p = {cols[c], 1, {1000}, {DTYPE_BF16}};
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

/* ---- Time ---------------------------------------------------------------------------------------------------- */

enum { CALLS = 100, ROUNDS = 7, COPIES_BYTES = 400 << 20 };

typedef struct {
    const char *name;
    int32_t rows, cols;
    bool norm, gated, accumulate;
} perf_shape;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void record_calls(const perf_shape *shape, int32_t T, const weight *copies, int n, float *in,
                         float *out, float *norm)
{
    int parts = shape->gated ? 2 : 1;
    for (int i = 0; i < CALLS; i++) {
        op_linear_args l = {.out = out,
                            .out_stride = shape->rows,
                            .in = in,
                            .in_stride = shape->cols,
                            .T = T,
                            .n_parts = parts,
                            .accumulate = shape->accumulate};
        for (int p = 0; p < parts; p++) l.part[p].w = &copies[(i % n) * parts + p];
        if (shape->norm)
            device_run(
                &gpu, OP_NORM_LINEAR,
                &(op_args){.norm_linear = {.linear = l, .norm = norm, .eps = 1e-6f, .gated = shape->gated}});
        else
            device_run(&gpu, OP_LINEAR, &(op_args){.linear = l});
    }
}

/* Median time of a call, in seconds. */
static double time_calls(const perf_shape *shape, int32_t T, const weight *copies, int n, int32_t key)
{
    double seconds[ROUNDS];
    float word;
    nvllm_error err = {0};
    float *in = device_alloc(&gpu, (size_t)T * (size_t)shape->cols * sizeof(float));
    float *out = device_alloc(&gpu, (size_t)T * (size_t)shape->rows * sizeof(float));
    float *norm = device_alloc(&gpu, (size_t)shape->cols * sizeof(float));
    const backend_type *type = gpu.backend->type;
    type->record(gpu.backend);
    record_calls(shape, T, copies, n, in, out, norm);
    if (type->record_end(gpu.backend, key, &err)) fail_msg("%s", err.message);
    for (int i = -1; i < ROUNDS; i++) {
        device_read(&gpu, &word, out, sizeof word);
        double from = check_seconds();
        assert_true(type->replay(gpu.backend, key));
        device_read(&gpu, &word, out, sizeof word);
        if (i >= 0) seconds[i] = (check_seconds() - from) / CALLS;
    }
    qsort(seconds, ROUNDS, sizeof *seconds, by_value);
    return seconds[ROUNDS / 2];
}

/* The weights of other formats are bf16's bits: times do not depend on them. */
static void perf_one(const perf_shape *shape, dtype format, int32_t *key)
{
    static weight copies[256];
    int parts = shape->gated ? 2 : 1;
    size_t bytes = (size_t)shape->rows * dtype_row_bytes(format, shape->cols);
    int n = (int)(COPIES_BYTES / (bytes * (size_t)parts)) + 1;
    if (n > CALLS) n = CALLS;
    uint16_t *data = check_alloc(bytes);
    uint32_t random = 1;
    for (size_t i = 0; i < bytes / 2; i++) { /* 2^-5 .. 2^-4 and as much below zero */
        random = random * 1664525u + 1013904223u;
        data[i] = (uint16_t)(0x3d00u | (random >> 31 << 15) | (random >> 20 & 0x7fu));
    }
    for (int i = 0; i < n * parts; i++)
        copies[i] = (weight){format, shape->rows, shape->cols, device_copy(&gpu, data, bytes), 0};
    for (int32_t T = 1; T <= 16; T = T == 1 ? 4 : T * 2) {
        double seconds = time_calls(shape, T, copies, n, ++*key);
        printf("%-4s %-12s %6d x %-5d T %2d  %8.2f us  %6.0f GB/s\n", dtype_name(format), shape->name,
               shape->rows * parts, shape->cols, T, seconds * 1e6, (double)bytes * parts / seconds / 1e9);
    }
    free(data);
    device_release(&gpu);
}

static int perf(void)
{
    const perf_shape shapes[] = {
        {"qkv", 4096, 1024, true, false, false},      {"o", 1024, 2048, false, false, true},
        {"gate_up", 3072, 1024, true, true, false},   {"down", 1024, 3072, false, false, true},
        {"head", 151936, 1024, true, false, false},   {"8B qkv", 6144, 4096, true, false, false},
        {"8B o", 4096, 4096, false, false, true},     {"8B gate_up", 14336, 4096, true, true, false},
        {"8B down", 4096, 14336, false, false, true},
    };
    int32_t key = 0;
    const dtype formats[] = {DTYPE_BF16, DTYPE_Q8_0, DTYPE_F16};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) perf_one(&shapes[i], formats[f], &key);
    return 0;
}

/* -------------------------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_bf16_of_every_shape_is_close_to_the_reference),
        cmocka_unit_test(linear_of_parts_writes_each_to_its_columns),
        cmocka_unit_test(linear_of_every_format_is_close_to_the_reference),
        cmocka_unit_test(linear_of_rows_in_stages_is_close_to_the_reference),
        cmocka_unit_test(linear_q8_of_wide_inputs_is_close_to_the_reference),
        cmocka_unit_test(linear_of_odd_strides_and_addresses_reads_the_right_elements),
        cmocka_unit_test(linear_of_a_token_is_the_same_bits_among_few_others),
    };
    if (!device_open(&gpu)) return 77;
    reserve_for_products();
    int failed =
        argc > 1 && strcmp(argv[1], "--perf") == 0 ? perf() : cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
