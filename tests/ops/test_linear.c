/* Matrix products: every instruction set and format against the reference, and batch invariance bit for bit.
 *
 * Bound of the comparison: each of the fewer than cols + 16 float32 additions of an output may be off by 2^-24 of the
 * partial sums' magnitude, which sum |x*w| bounds; in practice errors stay far below EPS_FACTOR * 2^-24 * that sum,
 * and a wrong or missing product of typical size lies far above it.
 *
 * `test_linear --perf [threads [rounds]]` measures instead: GB/s of weights with one token, GFLOP/s with 128, in the
 * shapes of Qwen3-0.6B, beside the machine's limits. Best of many rounds, since neighbours only make one slower. */
#define _GNU_SOURCE
#include "base/half.h"
#include "ops/linear.h"
#include "ops/linear_kernels.h"
#include "ops/probe.h"
#include "support/test.h"

#include <math.h>
#include <time.h>

enum { MAX_T = 128, OUT_PAD = 5 };

static const float error_factor = 16.0f;

static uint32_t random_state;

static float random_unit(void) /* [-1, 1) */
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(int32_t)random_state * 0x1p-31f;
}

/* A weight in memory that is aligned to 2 bytes (4 for F32) and no more, so that wide loads may not assume it. */
typedef struct {
    weight w;
    uint8_t *memory;
} test_weight;

static void fill_row(uint8_t *row, dtype format, int32_t cols)
{
    for (int32_t k = 0; k < cols; k++) {
        float f = random_unit();
        uint16_t half = format == DTYPE_F16 ? f16_from_float(f) : bf16_from_float(f);
        if (format == DTYPE_F32) memcpy(row + 4 * k, &f, 4);
        if (format == DTYPE_F16 || format == DTYPE_BF16) memcpy(row + 2 * k, &half, 2);
        if (format != DTYPE_Q8_0) continue;
        uint8_t *block = row + k / Q8_0_BLOCK * Q8_0_BLOCK_BYTES;
        uint16_t scale = f16_from_float(0.001f + 0.01f * fabsf(f));
        if (k % Q8_0_BLOCK == 0) memcpy(block, &scale, 2);
        block[2 + k % Q8_0_BLOCK] =
            (uint8_t)(int8_t)(k % 61 == 0 ? -128 : (int)(127.0f * f)); /* -128 is legal */
    }
}

static test_weight make_weight(dtype format, int32_t rows, int32_t cols)
{
    size_t stride = dtype_row_bytes(format, cols), offset = format == DTYPE_F32 ? 4 : 2;
    test_weight t = {.memory = malloc(stride * (size_t)rows + offset)};
    assert_non_null(t.memory);
    t.w = (weight){.format = format, .rows = rows, .cols = cols, .data = t.memory + offset};
    for (int32_t n = 0; n < rows; n++) fill_row(t.memory + offset + stride * (size_t)n, format, cols);
    return t;
}

static float *random_floats(size_t count)
{
    float *f = malloc(count * sizeof *f);
    assert_non_null(f);
    for (size_t i = 0; i < count; i++) f[i] = random_unit();
    return f;
}

static cpu_context make_cpu(cpu_isa isa, int threads, int32_t T, int32_t cols)
{
    cpu_context cpu = {.isa = isa};
    assert_int_equal(thread_pool_open(&cpu.pool, threads, NULL), NVLLM_OK);
    cpu.scratch_bytes = op_linear_scratch(T, cols, threads);
    cpu.scratch = aligned_alloc(64, linear_round_up(cpu.scratch_bytes, 64));
    assert_non_null(cpu.scratch);
    memset(cpu.scratch, 0xff, cpu.scratch_bytes); /* NaNs, should padding be forgotten */
    return cpu;
}

static void free_cpu(cpu_context *cpu)
{
    thread_pool_close(cpu->pool);
    free(cpu->scratch);
}

/* sum_k |x*w|, the scale of an output's rounding error */
static double magnitude(const float *x, const weight *w, int32_t n)
{
    float *row = malloc(sizeof(float) * (size_t)w->cols);
    assert_non_null(row);
    dtype_to_float(row, (const uint8_t *)w->data + dtype_row_bytes(w->format, w->cols) * (size_t)n, w->format,
                   w->cols);
    double sum = 0.0;
    for (int32_t k = 0; k < w->cols; k++) sum += fabs((double)x[k] * row[k]);
    free(row);
    return sum;
}

static void check_close(const op_linear_args *a, const float *got, const float *want)
{
    for (int p = 0; p < a->n_parts; p++)
        for (int32_t t = 0; t < a->T; t++)
            for (int32_t n = 0; n < a->part[p].w->rows; n++) {
                int64_t at = (int64_t)t * a->out_stride + a->part[p].out_col + n;
                double scale = magnitude(a->in + (int64_t)t * a->in_stride, a->part[p].w, n) + 2.0;
                double error = fabs((double)got[at] - want[at]);
                if (!(error <= error_factor * 0x1p-24 * scale))
                    fail_msg("%s part %d token %d row %d: %.9g, reference %.9g, bound %.3g",
                             dtype_name(a->part[p].w->format), p, t, n, (double)got[at], (double)want[at],
                             error_factor * 0x1p-24 * scale);
            }
}

static void compare_with_reference(cpu_isa isa, dtype format, int32_t rows, int32_t cols, int32_t T,
                                   bool extras)
{
    test_weight w = make_weight(format, rows, cols);
    int32_t stride = rows + OUT_PAD;
    size_t outs = (size_t)T * (size_t)stride;
    float *in = random_floats((size_t)T * (size_t)(cols + 3)), *bias = random_floats((size_t)rows);
    float *got = random_floats(outs), *want = malloc(outs * sizeof(float));
    assert_non_null(want);
    memcpy(want, got, outs * sizeof(float));
    op_linear_args a = {.in = in, .in_stride = cols + 3, .out_stride = stride, .T = T, .n_parts = 1};
    a.part[0] = (linear_part){.w = &w.w, .bias = extras ? bias : NULL, .out_col = 2};
    a.accumulate = extras;
    cpu_context cpu = make_cpu(isa, 1, T, cols);
    a.out = want;
    op_linear_ref(&a);
    a.out = got;
    op_linear_cpu(&a, &cpu);
    check_close(&a, got, want);
    for (int32_t t = 0; t < T; t++) /* columns outside the part are untouched */
        for (int32_t n = 0; n < stride; n++)
            if (n < 2 || n >= rows + 2) assert_true(got[t * stride + n] == want[t * stride + n]);
    free_cpu(&cpu);
    free(w.memory);
    free(in);
    free(bias);
    free(got);
    free(want);
}

static void linear_of_every_isa_and_format_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t rows[] = {1, 3, 4, 5, 37}, cols[] = {1, 15, 33, 64, 100, 172, 1000, 1024};
    const int32_t tokens[] = {1, 2, 3, 5, 8, 13};
    random_state = 1;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++)
        for (int format = 0; format < DTYPE_COUNT; format++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
                    int32_t k =
                        format == DTYPE_Q8_0 ? (int32_t)linear_round_up((size_t)cols[c], 32) : cols[c];
                    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
                        compare_with_reference((cpu_isa)isa, (dtype)format, rows[r], k, tokens[t],
                                               t % 2 == 1);
                }
}

/* Three parts, two formats, so that packing happens twice. */
typedef struct {
    test_weight w[3];
    op_linear_args args;
    float *in;
} invariance_case;

static void make_case(invariance_case *c, dtype format, int32_t rows, int32_t cols)
{
    *c = (invariance_case){.w = {make_weight(format, rows, cols), make_weight(DTYPE_F32, rows / 2 + 1, cols),
                                 make_weight(format, rows * 2 + 1, cols)}};
    c->in = random_floats((size_t)MAX_T * (size_t)cols);
    c->args = (op_linear_args){.in = c->in, .in_stride = cols, .n_parts = 3};
    for (int i = 0; i < 3; i++) {
        c->args.part[i] = (linear_part){.w = &c->w[i].w, .out_col = c->args.out_stride};
        c->args.out_stride += c->w[i].w.rows;
    }
}

static void free_case(invariance_case *c)
{
    for (int i = 0; i < 3; i++) free(c->w[i].memory);
    free(c->in);
}

/* Tokens [first, first + T) in one step must equal the rows of `alone`, which were computed one at a time. */
static void check_step(const invariance_case *c, const cpu_context *cpu, int32_t first, int32_t T,
                       const float *alone)
{
    op_linear_args a = c->args;
    size_t bytes = sizeof(float) * (size_t)T * (size_t)a.out_stride;
    a.out = malloc(bytes);
    assert_non_null(a.out);
    memset(a.out, 0xff, bytes);
    a.in += (int64_t)first * a.in_stride;
    a.T = T;
    op_linear_cpu(&a, cpu);
    const float *want = alone + (int64_t)first * a.out_stride;
    for (int64_t i = 0; i < (int64_t)T * a.out_stride; i++)
        if (float_bits(a.out[i]) != float_bits(want[i]))
            fail_msg("%s %s, %d tokens from %d: token %d column %d differs", cpu_isa_name(cpu->isa),
                     dtype_name(c->w[0].w.format), T, first, (int)(i / a.out_stride),
                     (int)(i % a.out_stride));
    free(a.out);
}

static void check_invariance(cpu_isa isa, dtype format, int32_t rows, int32_t cols)
{
    invariance_case c;
    make_case(&c, format, rows, cols);
    float *alone = malloc(sizeof(float) * MAX_T * (size_t)c.args.out_stride);
    assert_non_null(alone);
    cpu_context one = make_cpu(isa, 1, MAX_T, cols);
    for (int32_t t = 0; t < MAX_T; t++) {
        op_linear_args a = c.args;
        a.in += (int64_t)t * a.in_stride;
        a.out = alone + (int64_t)t * a.out_stride;
        a.T = 1;
        op_linear_cpu(&a, &one);
    }
    free_cpu(&one);
    for (int threads = 1; threads <= 3; threads++) {
        cpu_context cpu = make_cpu(isa, threads, MAX_T, cols);
        for (int32_t T = 1; T <= 40; T += threads == 1 ? 1 : 13) check_step(&c, &cpu, T % 7, T, alone);
        check_step(&c, &cpu, 0, 64, alone);
        check_step(&c, &cpu, 3, 64, alone);
        check_step(&c, &cpu, 0, MAX_T, alone);
        free_cpu(&cpu);
    }
    free(alone);
    free_case(&c);
}

static void linear_output_of_a_token_is_the_same_bits_in_any_step(void **state)
{
    (void)state;
    random_state = 2;
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++)
        for (int format = 0; format < DTYPE_COUNT; format++) {
            bool blocks = format == DTYPE_Q8_0;
            check_invariance((cpu_isa)isa, (dtype)format, 6, blocks ? 32 : 33);
            check_invariance((cpu_isa)isa, (dtype)format, 61, blocks ? 160 : 172);
            check_invariance((cpu_isa)isa, (dtype)format, 150,
                             blocks ? 992 : 1000); /* enough for three threads */
        }
}

static void linear_quantize_of_ties_rounds_to_even_and_keeps_the_largest_exact(void **state)
{
    (void)state;
    float in[Q8_0_BLOCK] = {127.0f, -127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 63.4f};
    const int8_t want[] = {127, -127, 0, 2, 2, 0, -2, 63};
    int8_t q[Q8_0_BLOCK];
    float scale;
    linear_quantize(q, &scale, in, Q8_0_BLOCK);
    assert_true(scale == 1.0f);
    assert_memory_equal(q, want, sizeof want);
    memset(in, 0, sizeof in);
    linear_quantize(q, &scale, in, Q8_0_BLOCK);
    assert_true(scale == 0.0f);
    for (int i = 0; i < Q8_0_BLOCK; i++) assert_int_equal(q[i], 0);
}

static void linear_q8_of_integers_is_exact_on_every_isa(void **state)
{
    (void)state;
    enum { COLS = 96 };
    uint8_t row[COLS / Q8_0_BLOCK * Q8_0_BLOCK_BYTES];
    float in[COLS];
    const uint16_t one = f16_from_float(1.0f);
    for (int k = 0; k < COLS; k++) {
        memcpy(row + k / Q8_0_BLOCK * Q8_0_BLOCK_BYTES, &one, 2);
        row[k / Q8_0_BLOCK * Q8_0_BLOCK_BYTES + 2 + k % Q8_0_BLOCK] = 0x80; /* -128 */
        in[k] = k % 2 ? 127.0f : 126.0f;
    }
    weight w = {.format = DTYPE_Q8_0, .rows = 1, .cols = COLS, .data = row};
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) {
        float out = 0.0f;
        cpu_context cpu = make_cpu((cpu_isa)isa, 1, 1, COLS);
        op_linear_args a = {.out = &out, .out_stride = 1, .in = in, .in_stride = COLS, .T = 1, .n_parts = 1};
        a.part[0].w = &w;
        op_linear_cpu(&a, &cpu);
        assert_true(out == -128.0f * 253.0f * (COLS / 2));
        free_cpu(&cpu);
    }
}

static void linear_f16_special_weights_widen_exactly_on_every_isa(void **state)
{
    (void)state;
    const uint16_t halves[] = {0x0001, 0x03ff, 0x0400, 0x8001, 0x7bff, 0x7c00, 0xfc00, 0x8000};
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++)
        for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
            uint16_t row[16] = {halves[i]};
            const float in[16] = {1.0f};
            float out = 9.0f, want = f16_to_float(halves[i]);
            weight w = {.format = DTYPE_F16, .rows = 1, .cols = 16, .data = row};
            cpu_context cpu = make_cpu((cpu_isa)isa, 1, 1, 16);
            op_linear_args a = {
                .out = &out, .out_stride = 1, .in = in, .in_stride = 16, .T = 1, .n_parts = 1};
            a.part[0].w = &w;
            op_linear_cpu(&a, &cpu);
            assert_true(out == want);
            free_cpu(&cpu);
        }
}

static void cpu_isa_names_parse_to_themselves(void **state)
{
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++)
        assert_int_equal(cpu_isa_parse(cpu_isa_name((cpu_isa)isa)), isa);
    assert_int_equal(cpu_isa_parse("sse"), -1);
    for (int kind = 0; kind < OP_COUNT; kind++) assert_non_null(op_name((op_kind)kind));
}

/* ---- --perf ---- */

enum { PERF_LAYERS = 6, PERF_SHAPES = 4, PERF_COLS_MAX = 3072, PERF_ROWS_MAX = 6144 };

static const struct {
    const char *name;
    int32_t rows, cols;
} perf_shapes[PERF_SHAPES] = {
    {"qkv", 4096, 1024}, {"o", 1024, 2048}, {"gate_up", 6144, 1024}, {"down", 1024, 3072}};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* All layers' weights lie one after the other at `data`, so that none is in a cache when its turn comes. */
static void perf_format(const uint8_t *data, dtype format, int32_t T, const cpu_context *cpu, int rounds)
{
    float *in = random_floats((size_t)T * PERF_COLS_MAX), *out = random_floats((size_t)T * PERF_ROWS_MAX);
    double best[PERF_SHAPES], bytes_all = 0.0, flop_all = 0.0, time_all = 0.0;
    for (int s = 0; s < PERF_SHAPES; s++) best[s] = 1e9;
    for (int r = 0; r < rounds; r++) {
        const uint8_t *at = data;
        for (int i = 0; i < PERF_LAYERS * PERF_SHAPES; i++) {
            int s = i % PERF_SHAPES;
            weight w = {format, perf_shapes[s].rows, perf_shapes[s].cols, at};
            op_linear_args a = {
                .out = out, .out_stride = w.rows, .in = in, .in_stride = w.cols, .T = T, .n_parts = 1};
            a.part[0].w = &w;
            double start = seconds();
            op_linear_cpu(&a, cpu);
            double t = seconds() - start;
            if (t < best[s]) best[s] = t;
            at += (size_t)w.rows * dtype_row_bytes(format, w.cols);
        }
    }
    printf("%-6s %-4s T=%-3d", cpu_isa_name(cpu->isa), dtype_name(format), T);
    for (int s = 0; s < PERF_SHAPES; s++) {
        double bytes = (double)perf_shapes[s].rows * (double)dtype_row_bytes(format, perf_shapes[s].cols);
        double flop = 2.0 * perf_shapes[s].rows * perf_shapes[s].cols * T;
        printf("  %s %.1f GB/s %.0f GFLOP/s", perf_shapes[s].name, bytes / best[s] / 1e9,
               flop / best[s] / 1e9);
        bytes_all += bytes;
        flop_all += flop;
        time_all += best[s];
    }
    printf("  | all %.1f GB/s %.0f GFLOP/s\n", bytes_all / time_all / 1e9, flop_all / time_all / 1e9);
    free(in);
    free(out);
}

static int perf(int threads, int rounds)
{
    const int32_t T = 128;
    size_t bytes = 0;
    for (int s = 0; s < PERF_SHAPES; s++)
        bytes += PERF_LAYERS * sizeof(float) * (size_t)perf_shapes[s].rows * (size_t)perf_shapes[s].cols;
    uint8_t *data = malloc(bytes + 8);
    if (!data) return 1;
    memset(data, 0x3c, bytes + 8); /* finite in every format */
    for (int isa = (int)cpu_isa_detect(); isa >= 0; isa--) {
        cpu_context cpu = make_cpu((cpu_isa)isa, threads, T, PERF_COLS_MAX);
        printf("%s, %d threads: memory %.1f GB/s, bf16 %.0f GFLOP/s at most\n", cpu_isa_name(cpu.isa),
               threads, probe_memory_bandwidth(cpu.pool) / 1e9, probe_bf16_flops(cpu.pool, cpu.isa) / 1e9);
        for (int format = 0; format < DTYPE_COUNT; format++) {
            perf_format(data + 8, (dtype)format, 1, &cpu,
                        rounds); /* + 8: aligned as safetensors guarantees */
            perf_format(data + 8, (dtype)format, T, &cpu, rounds / 5 + 1);
        }
        free_cpu(&cpu);
    }
    free(data);
    return 0;
}

static void probes_of_this_machine_find_plausible_limits(void **state)
{
    (void)state;
    cpu_context cpu = make_cpu(cpu_isa_detect(), 1, 1, 32);
    assert_true(probe_memory_bandwidth(cpu.pool) > 1e8);
    for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++)
        assert_true(probe_bf16_flops(cpu.pool, (cpu_isa)isa) > 1e8);
    free_cpu(&cpu);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--perf") == 0)
        return perf(argc > 2 ? atoi(argv[2]) : thread_count_default(), argc > 3 ? atoi(argv[3]) : 20);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_of_every_isa_and_format_is_close_to_the_reference),
        cmocka_unit_test(linear_output_of_a_token_is_the_same_bits_in_any_step),
        cmocka_unit_test(linear_quantize_of_ties_rounds_to_even_and_keeps_the_largest_exact),
        cmocka_unit_test(linear_q8_of_integers_is_exact_on_every_isa),
        cmocka_unit_test(linear_f16_special_weights_widen_exactly_on_every_isa),
        cmocka_unit_test(cpu_isa_names_parse_to_themselves),
        cmocka_unit_test(probes_of_this_machine_find_plausible_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
