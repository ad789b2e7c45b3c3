/* Matrix products of many tokens on the GPU against the reference: bf16 weights by our kernel, and by cuBLASLt where it is
 * found. --perf prints the time of these and of the other formats for the shapes of Qwen3-0.6B and Llama-3.1-8B. */
#define _DEFAULT_SOURCE /* usleep */
#include "support/product_case.h"

/* ---- Tests ----------------------------------------------------------------------------------------------------- */

static const int32_t tokens[] = {17, 31, 32, 33, 64, 100, 128, 200}, widths[] = {8, 40, 64, 72, 1024};

static void check_many(bool norm, uint64_t random)
{
    double worst = 0;
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
        for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
            if (device_leaves_out(&gpu, t + k)) continue;
            product_case c = random_case(tokens[t], widths[k], &random);
            if (norm)
                add_norm(&c, &random);
            else
                c.accumulate = pick(&random, 2) == 0;
            double error = check_case(&c, &random);
            worst = error > worst ? error : worst;
        }
    print_message("largest relative error %.3g\n", worst);
}

static void linear_of_many_tokens_matches_reference(void **state)
{
    (void)state;
    check_many(false, 21);
}

static void norm_linear_of_many_tokens_matches_reference(void **state)
{
    (void)state;
    check_many(true, 22);
}

/* Every tile of our kernel, whatever the number of multiprocessors: many blocks take the large ones. */
static void large_products_match_reference(void **state)
{
    (void)state;
    const product_case cases[] = {
        {.T = 32, .n_parts = 1, .rows = {40000}, .cols = 40},                           /* 32 x 128 */
        {.T = 17, .n_parts = 3, .rows = {30001, 5000, 2001}, .cols = 72, .bias = true}, /* 32 x 128 */
        {.T = 64, .n_parts = 1, .rows = {20003}, .cols = 136, .accumulate = true},      /* 64 x 64 */
        {.T = 300,
         .n_parts = 2,
         .rows = {6000, 5003},
         .cols = 72,
         .bias = true,
         .out_pad = 2},                                                            /* 128 x 128 */
        {.T = 129, .n_parts = 1, .rows = {20001}, .cols = 64, .accumulate = true}, /* 128 x 128 */
        {.T = 30, .n_parts = 2, .rows = {20000, 20000}, .cols = 64, .norm = true, .gated = true},
        {.T = 50, .n_parts = 2, .rows = {9001, 9001}, .cols = 64, .norm = true, .gated = true, .bias = true},
        {.T = 260,
         .n_parts = 2,
         .rows = {4500, 4500},
         .cols = 72,
         .norm = true,
         .gated = true,
         .gather = true},
    };
    uint64_t random = 23;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        product_case c = cases[i];
        for (int p = 0; p < c.n_parts; p++) c.format[p] = DTYPE_BF16;
        for (int p = 0; device_is_emulated(&gpu) && p < c.n_parts; p++)
            c.rows[p] /= 19; /* few multiprocessors are to be filled */
        check_case(&c, &random);
    }
}

/* Few rows and many columns: a cluster of blocks shares k, evenly, unevenly, or with nothing left for the last. */
static void products_of_few_rows_match_reference(void **state)
{
    (void)state;
    uint64_t random = 26;
    static const int32_t cols[] = {1024, 1032, 1160, 3072};
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++)
        for (int32_t T = 17; T <= 64; T += 23) {
            product_case c = random_case(T, cols[i], &random);
            c.n_parts = 2;
            c.format[1] = DTYPE_BF16;
            c.rows[0] = c.rows[1] = !device_is_emulated(&gpu) ? 200 : T > 32 ? 13 : 19;
            c.accumulate = true;
            check_case(&c, &random);
            c.accumulate = false;
            c.norm = c.gated = true;
            c.first_col = 0;
            check_case(&c, &random);
        }
}

/* More tokens than the library's scratch for gate and up holds at a time. */
static void gated_products_of_a_long_prompt_match_reference(void **state)
{
    (void)state;
    uint64_t random = 24;
    product_case c = {.T = 1100,
                      .n_parts = 2,
                      .rows = {72, 72},
                      .format = {DTYPE_BF16, DTYPE_BF16},
                      .cols = 64,
                      .norm = true,
                      .gated = true,
                      .out_pad = 4};
    check_case(&c, &random);
}

/* Parts that lie behind each other in memory are one product for the library. */
static void parts_in_one_block_match_reference(void **state)
{
    (void)state;
    enum { T = 70, COLS = 64, FIRST = 24, SECOND = 40, ROWS = FIRST + SECOND };
    uint64_t random = 25;
    uint16_t *data = random_bf16((size_t)ROWS * COLS, &random);
    float *in = random_floats((size_t)T * COLS, &random), *want = check_alloc(sizeof(float) * T * ROWS),
          *got = check_alloc(sizeof(float) * T * ROWS);
    const uint16_t *there = device_copy(&gpu, data, sizeof *data * ROWS * COLS);
    weight w[2] = {{DTYPE_BF16, FIRST, COLS, data}, {DTYPE_BF16, SECOND, COLS, data + FIRST * COLS}};
    weight w_there[2] = {{DTYPE_BF16, FIRST, COLS, there}, {DTYPE_BF16, SECOND, COLS, there + FIRST * COLS}};
    op_linear_args a = {.out = want, .out_stride = ROWS, .in = in, .in_stride = COLS, .T = T, .n_parts = 2};
    a.part[0] = (linear_part){&w[0], NULL, 0};
    a.part[1] = (linear_part){&w[1], NULL, FIRST};
    op_linear_ref(&a);
    a.part[0].w = &w_there[0];
    a.part[1].w = &w_there[1];
    a.in = device_copy(&gpu, in, sizeof *in * T * COLS);
    a.out = device_alloc(&gpu, sizeof(float) * T * ROWS);
    cuda_products_of(gpu.backend)->path = LINEAR_MANY_LIBRARY;
    uint64_t before = cuda_products_of(gpu.backend)->library_products;
    device_run(&gpu, OP_LINEAR, &(op_args){.linear = a});
    cuda_products_of(gpu.backend)->path = LINEAR_MANY_AUTO;
    assert_int_equal(cuda_products_of(gpu.backend)->library_products - before, library ? 1 : 0);
    device_read(&gpu, got, a.out, sizeof(float) * T * ROWS);
    device_check(got, want, (size_t)T * ROWS, 2e-5, "parts in one block");
    free(data);
    free(in);
    free(want);
    free(got);
    device_release(&gpu);
}

/* ---- Looking for the library ----------------------------------------------------------------------------------- */

/* Waits some seconds for the thread that loads it. */
static bool find_library(void)
{
    enum { T = 32, N = 64, K = 64 };
    weight w = {DTYPE_BF16, N, K, device_alloc(&gpu, (size_t)N * K * 2)};
    op_linear_args a = {.out_stride = N, .in_stride = K, .T = T, .n_parts = 1, .part = {{&w, NULL, 0}}};
    a.in = device_alloc(&gpu, sizeof(float) * T * K);
    a.out = device_alloc(&gpu, sizeof(float) * T * N);
    cuda_products_of(gpu.backend)->path = LINEAR_MANY_LIBRARY;
    double until = check_seconds() + 5;
    while (cuda_products_of(gpu.backend)->library_products == 0 && check_seconds() < until) {
        device_run(&gpu, OP_LINEAR, &(op_args){.linear = a});
        usleep(20000);
    }
    cuda_products_of(gpu.backend)->path = LINEAR_MANY_AUTO;
    float first;
    device_read(&gpu, &first, a.out, sizeof first);
    device_release(&gpu);
    printf("cuBLASLt: %s\n", cuda_products_of(gpu.backend)->library_products
                                 ? "ready"
                                 : "library not found; its tests are left out");
    return cuda_products_of(gpu.backend)->library_products > 0;
}

/* ---- Speed ----------------------------------------------------------------------------------------------------- */

enum { PERF_TOKENS = 4096, PERF_IN = 14336, PERF_OUT = 28672, PERF_OPS = 16, PERF_REPLAYS = 5 };

typedef struct {
    char *weights;
    size_t weights_bytes; /* several times the L2 cache, and more than one matrix */
    float *in, *out, *norm;
} perf_memory;

static perf_memory make_perf_memory(void)
{
    const size_t block = (size_t)16 << 20, floats = (size_t)PERF_TOKENS * PERF_IN;
    perf_memory m = {.weights_bytes = (size_t)512 << 20};
    uint64_t random = 31;
    uint16_t *data = random_bf16(block / 2, &random);
    m.weights = device_alloc(&gpu, m.weights_bytes);
    for (size_t at = 0; at < m.weights_bytes; at += block)
        gpu.backend->type->copy_in(gpu.backend, m.weights + at, data, block, NULL);
    float *in = check_alloc(floats * sizeof *in);
    for (size_t i = 0; i < floats; i++) in[i] = bf16_to_float(data[i % (block / 2)]);
    m.in = device_copy(&gpu, in, floats * sizeof *in);
    m.norm = device_copy(&gpu, in, PERF_IN * sizeof *in);
    m.out = device_alloc(&gpu, sizeof(float) * PERF_TOKENS * PERF_OUT);
    free(in);
    free(data);
    return m;
}

/* Seconds per op of PERF_OPS that were recorded, each with other weights. */
static double time_ops(const perf_memory *m, dtype format, int32_t T, int32_t N, int32_t K, bool gated,
                       int32_t key)
{
    nvllm_error err = {0};
    size_t bytes = (size_t)N * dtype_row_bytes(format, K), at = 0;
    float first;
    weight w[2] = {{format, gated ? N / 2 : N, K, NULL}, {format, N / 2, K, NULL}};
    op_norm_linear_args a = {.gated = gated, .eps = 1e-6f, .norm = m->norm};
    a.linear = (op_linear_args){.out = m->out, .out_stride = w[0].rows, .in = m->in, .in_stride = K, .T = T};
    a.linear.n_parts = gated ? 2 : 1;
    a.linear.part[0] = (linear_part){&w[0], NULL, 0};
    a.linear.part[1] = (linear_part){&w[1], NULL, 0};
    for (int i = 0; i <= PERF_OPS; i++) { /* the first is run, the others are recorded */
        w[0].data = m->weights + at;
        w[1].data = m->weights + at + bytes / 2;
        if (gated)
            device_run(&gpu, OP_NORM_LINEAR, &(op_args){.norm_linear = a});
        else
            device_run(&gpu, OP_LINEAR, &(op_args){.linear = a.linear});
        at = at + 2 * bytes <= m->weights_bytes ? at + bytes : 0;
        if (i == 0) gpu.backend->type->record(gpu.backend);
    }
    if (gpu.backend->type->record_end(gpu.backend, key, &err)) fail_msg("%s", err.message);
    gpu.backend->type->replay(gpu.backend, key);
    device_read(&gpu, &first, m->out, sizeof first);
    double from = check_seconds();
    for (int i = 0; i < PERF_REPLAYS; i++) gpu.backend->type->replay(gpu.backend, key);
    device_read(&gpu, &first, m->out, sizeof first);
    return (check_seconds() - from) / (PERF_OPS * PERF_REPLAYS);
}

/* Times contain the rounding of the inputs (gated: the norm, and silu(gate) * up). */
static void print_speed(void **state)
{
    (void)state;
    static const struct {
        int32_t N, K;
        bool gated;
    } shapes[] = {{4096, 1024, false},  {6144, 1024, false}, {1024, 3072, false}, {28672, 4096, false},
                  {4096, 14336, false}, {6144, 1024, true},  {28672, 4096, true}, {4096, 4096, false}};
    static const int32_t counts[] = {17, 32, 64, 128, 256, 512, 2048, 4096};
    perf_memory m = make_perf_memory();
    int32_t key = 0;
    printf("%6s %6s %6s | %9s %8s %7s | %9s %8s %7s\n", "N", "K", "T", "own us", "TFLOP/s", "GB/s", "library",
           "TFLOP/s", "GB/s");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t t = 0; t < sizeof counts / sizeof *counts; t++) {
            int32_t T = counts[t], N = shapes[s].N, K = shapes[s].K;
            printf("%6d %6d %6d", N, K, T);
            for (int path = LINEAR_MANY_OWN; path <= (library ? LINEAR_MANY_LIBRARY : LINEAR_MANY_OWN);
                 path++) {
                cuda_products_of(gpu.backend)->path = (linear_many_path)path;
                double seconds = time_ops(&m, DTYPE_BF16, T, N, K, shapes[s].gated, ++key);
                printf(" | %9.2f %8.1f %7.0f", seconds * 1e6, 2.0 * T * N * K / seconds * 1e-12,
                       2.0 * N * K / seconds * 1e-9);
            }
            printf("%s\n", shapes[s].gated ? "  gated" : "");
        }
    cuda_products_of(gpu.backend)->path = LINEAR_MANY_AUTO;
    device_release(&gpu);
}

/* The weights are any bits: times do not depend on them. */
static void print_speed_of_other_formats(void **state)
{
    (void)state;
    static const int32_t shapes[][2] = {{4096, 1024},  {1024, 3072}, {28672, 4096},
                                        {4096, 14336}, {4096, 4096}, {6144, 4096}};
    static const int32_t counts[] = {5, 8, 16, 32, 64, 128, 512, 2048};
    static const dtype formats[] = {DTYPE_Q8_0, DTYPE_F16};
    perf_memory m = make_perf_memory();
    int32_t key = 1000; /* others than those of print_speed */
    printf("%6s %6s %6s %6s | %9s %8s %7s\n", "", "N", "K", "T", "us", "TFLOP/s", "GB/s");
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t t = 0; t < sizeof counts / sizeof *counts; t++) {
                int32_t T = counts[t], N = shapes[s][0], K = shapes[s][1];
                double seconds = time_ops(&m, formats[f], T, N, K, false, ++key);
                printf("%6s %6d %6d %6d | %9.2f %8.1f %7.0f\n", dtype_name(formats[f]), N, K, T,
                       seconds * 1e6, 2.0 * T * N * K / seconds * 1e-12,
                       (double)N * (double)dtype_row_bytes(formats[f], K) / seconds * 1e-9);
            }
    device_release(&gpu);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(linear_of_many_tokens_matches_reference),
                                       cmocka_unit_test(norm_linear_of_many_tokens_matches_reference),
                                       cmocka_unit_test(large_products_match_reference),
                                       cmocka_unit_test(products_of_few_rows_match_reference),
                                       cmocka_unit_test(gated_products_of_a_long_prompt_match_reference),
                                       cmocka_unit_test(parts_in_one_block_match_reference)};
    const struct CMUnitTest speed[] = {cmocka_unit_test(print_speed),
                                       cmocka_unit_test(print_speed_of_other_formats)};
    const backend_shape shape = {.max_tokens = PERF_TOKENS,
                                 .max_logits = 1,
                                 .widest_input = PERF_IN,
                                 .max_rows = 1,
                                 .H = 8,
                                 .C = 64,
                                 .F = 20000,
                                 .V = 256,
                                 .max_context = 256};
    nvllm_error err = {0};
    if (!device_open(&gpu)) return 77;
    if (gpu.backend->type->reserve_scratch(gpu.backend, &shape, &err)) {
        printf("%s\n", err.message);
        return 1;
    }
    library = find_library();
    bool perf = argc > 1 && strcmp(argv[1], "--perf") == 0;
    int failed = perf ? cmocka_run_group_tests(speed, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
