/* Paged attention against the double-precision reference, bit for bit against itself in other chunkings, and --perf.
 *
 * Tolerance: |difference| <= 2e-6 * max|v| * (1 + largest |score| / 4): the float32 rounding of a score of size s is
 * an absolute error of about s * 1e-7 * a few, which the exponential turns into a relative one of every weight. */
#define _DEFAULT_SOURCE /* madvise */
#include "ops/op_check.h"
#include "ops/attention.h"
#include "base/half.h"

#include <sys/mman.h>

#define MAX_ROWS  8
#define HUGE_PAGE ((size_t)2 << 20)

typedef struct {
    int32_t H, K, C, S, window;
    dtype format;
    int32_t R, tokens[MAX_ROWS], context[MAX_ROWS]; /* context: kv_len, this step's tokens included */
    float k_range;                                  /* of K's elements; V's and Q's are 1 */
    int32_t shared_pages;                           /* leading pages that all rows share */
} shape;

/* A pool full of NaN except where a row has a position, pages in random order, dead page entries out of range. */
typedef struct {
    shape s;
    op_attention_args args;
    size_t out_floats;
    double largest_score; /* bound */
} fixture;

static void set_element(void *pool, dtype format, size_t i, float x)
{
    if (format == DTYPE_F32)
        ((float *)pool)[i] = x;
    else
        ((uint16_t *)pool)[i] = format == DTYPE_BF16 ? bf16_from_float(x) : f16_from_float(x);
}

static void fill_position(const fixture *f, int32_t page, int32_t slot, uint64_t *seed)
{
    const kv_layer *kv = &f->args.kv;
    for (int32_t k = 0; k < kv->K; k++) {
        size_t first =
            (((size_t)page * (size_t)kv->K + (size_t)k) * (size_t)kv->S + (size_t)slot) * (size_t)kv->C;
        for (int32_t c = 0; c < kv->C; c++) {
            set_element(kv->k_pool, kv->format, first + (size_t)c, check_uniform(seed, f->s.k_range));
            set_element(kv->v_pool, kv->format, first + (size_t)c, check_uniform(seed, 1));
        }
    }
}

static void fill_pages(fixture *f, int32_t pages, uint64_t *seed)
{
    const shape *s = &f->s;
    int32_t *order = check_alloc((size_t)pages * sizeof *order), next = 0;
    for (int32_t i = 0; i < pages; i++) order[i] = i;
    for (int32_t i = pages - 1; i > 0; i--) {
        int32_t j = (int32_t)(check_random(seed) % (uint64_t)(i + 1)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    int32_t *table = check_alloc((size_t)s->R * (size_t)f->args.P * sizeof *table);
    for (int32_t r = 0; r < s->R; r++)
        for (int32_t p = 0; p < f->args.P; p++) {
            bool live = p * s->S<s->context[r], shared = r> 0 && p < s->shared_pages;
            /* a page below every window of the step may have been given back */
            if (s->window > 0 && (p + 1) * s->S <= s->context[r] - s->tokens[r] + 1 - s->window) live = false;
            int32_t *entry = &table[r * f->args.P + p];
            *entry = !live ? INT32_MAX / 2 : shared ? table[p] : order[next++];
            for (int32_t slot = 0; live && !shared && slot < s->S; slot++)
                if (p * s->S + slot < s->context[r]) fill_position(f, *entry, slot, seed);
        }
    f->args.pages = table;
    free(order);
}

/* In huge pages where the system has them, as an engine does. */
static void *alloc_pool(size_t bytes)
{
    if (bytes < HUGE_PAGE) return check_alloc(bytes);
    size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p = aligned_alloc(HUGE_PAGE, rounded);
    assert_non_null(p);
    (void)madvise(p, rounded, MADV_HUGEPAGE);
    return p;
}

static fixture fixture_open(shape s, uint64_t seed)
{
    fixture f = {.s = s};
    op_attention_args *a = &f.args;
    int32_t *row_start = check_alloc(sizeof(int32_t) * (MAX_ROWS + 1)), pages = 1, T = 0;
    int32_t *kv_len = check_alloc(sizeof(int32_t) * MAX_ROWS);
    for (int32_t r = 0; r < s.R; r++) {
        int32_t p = (s.context[r] + s.S - 1) / s.S;
        row_start[r] = T;
        kv_len[r] = s.context[r];
        T += s.tokens[r];
        pages += p;
        a->P = p > a->P ? p : a->P;
    }
    row_start[s.R] = T;
    a->row_start = row_start;
    a->kv_len = kv_len;
    a->T = T;
    a->R = s.R;
    a->H = s.H;
    a->window = s.window;
    a->scale = 1.0f / sqrtf((float)s.C);
    a->q_stride = (s.H + 2 * s.K) * s.C; /* as in a joint q, k, v buffer */
    a->out_stride = s.H * s.C;
    size_t pool = (size_t)pages * (size_t)(s.K * s.S * s.C) * dtype_block_bytes(s.format);
    a->kv = (kv_layer){alloc_pool(pool), alloc_pool(pool), s.format, s.K, s.S, s.C};
    memset(a->kv.k_pool, 0xff, pool);
    memset(a->kv.v_pool, 0xff, pool);
    fill_pages(&f, pages, &seed);
    float *q = check_alloc((size_t)T * (size_t)a->q_stride * sizeof *q);
    check_fill(q, (size_t)T * (size_t)a->q_stride, 1, &seed);
    a->q = q;
    f.out_floats = (size_t)T * (size_t)a->out_stride;
    a->out = check_alloc(f.out_floats * sizeof(float));
    f.largest_score = (double)s.k_range * sqrt((double)s.C);
    return f;
}

static void fixture_close(fixture *f)
{
    free(f->args.kv.k_pool);
    free(f->args.kv.v_pool);
    free((void *)(uintptr_t)f->args.row_start);
    free((void *)(uintptr_t)f->args.kv_len);
    free((void *)(uintptr_t)f->args.pages);
    free((void *)(uintptr_t)f->args.q);
    free(f->args.out);
}

static size_t scratch_for(const fixture *f, int threads)
{
    return op_attention_scratch(f->args.T, f->s.H, f->s.C, f->args.P * f->s.S, threads);
}

static void compare(shape s, cpu_isa isa, int threads)
{
    fixture f = fixture_open(s, 1234);
    float *want = check_alloc(f.out_floats * sizeof *want);
    cpu_context cpu = check_open(isa, threads, scratch_for(&f, threads));
    op_attention_args ref = f.args;
    ref.out = want;
    op_attention_ref(&ref);
    op_attention_cpu(&f.args, &cpu);
    char what[160];
    snprintf(what, sizeof what, "%s x%d H=%d K=%d C=%d S=%d window=%d %s tokens=%d context=%d",
             cpu_isa_name(isa), threads, s.H, s.K, s.C, s.S, s.window, dtype_name(s.format), s.tokens[0],
             s.context[0]);
    check_near(f.args.out, want, f.out_floats, 0, 2e-6 * (1 + f.largest_score / 4), what);
    check_close(&cpu);
    free(want);
    fixture_close(&f);
}

static void compare_everywhere(shape s)
{
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++)
        for (int threads = 1; threads <= 2; threads++) compare(s, isa, threads);
}

static void attention_of_one_token_at_many_contexts_matches_reference(void **state)
{
    (void)state;
    static const int32_t contexts[] = {1, 2, 15, 16, 17, 31, 33, 255, 256, 257, 511, 1000, 4096};
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++)
        compare_everywhere((shape){.H = 4,
                                   .K = 2,
                                   .C = 64,
                                   .S = 16,
                                   .format = DTYPE_BF16,
                                   .R = 1,
                                   .tokens = {1},
                                   .context = {contexts[i]},
                                   .k_range = 2});
}

static void attention_of_every_head_shape_matches_reference(void **state)
{
    (void)state;
    static const int32_t dims[] = {8, 10, 16, 22, 48, 64, 80, 96, 128, 256};
    static const int32_t heads[][2] = {{1, 1}, {4, 4}, {4, 2}, {8, 1}, {14, 2}};
    for (size_t c = 0; c < sizeof dims / sizeof *dims; c++)
        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
            for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++)
                compare_everywhere((shape){.H = heads[h][0],
                                           .K = heads[h][1],
                                           .C = dims[c],
                                           .S = 16,
                                           .format = format,
                                           .R = 1,
                                           .tokens = {13},
                                           .context = {45},
                                           .k_range = 1});
}

static void attention_of_any_page_size_matches_reference(void **state)
{
    (void)state;
    static const int32_t slots[] = {1, 4, 16, 24, 32, 64, 256};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        compare_everywhere((shape){.H = 4,
                                   .K = 2,
                                   .C = 32,
                                   .S = slots[i],
                                   .format = DTYPE_F16,
                                   .R = 2,
                                   .tokens = {3, 40},
                                   .context = {300, 100},
                                   .k_range = 1});
}

static void attention_with_a_window_sees_only_the_window(void **state)
{
    (void)state;
    static const int32_t windows[] = {1, 5, 16, 33, 128, 256, 257, 999, 5000};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        compare_everywhere((shape){.H = 4,
                                   .K = 2,
                                   .C = 16,
                                   .S = 16,
                                   .window = windows[i],
                                   .format = DTYPE_F32,
                                   .R = 2,
                                   .tokens = {1, 70},
                                   .context = {1000, 600},
                                   .k_range = 1});
        compare_everywhere((shape){.H = 2,
                                   .K = 2,
                                   .C = 16,
                                   .S = 16,
                                   .window = windows[i],
                                   .format = DTYPE_F32,
                                   .R = 1,
                                   .tokens = {1},
                                   .context = {1000},
                                   .k_range = 1});
    }
}

static void attention_of_mixed_rows_matches_reference(void **state)
{
    (void)state;
    compare_everywhere((shape){.H = 16,
                               .K = 8,
                               .C = 128,
                               .S = 64,
                               .format = DTYPE_BF16,
                               .R = 5,
                               .tokens = {64, 1, 1, 17, 1},
                               .context = {200, 1, 700, 17, 256},
                               .k_range = 1});
}

static void attention_of_rows_sharing_pages_matches_reference(void **state)
{
    (void)state;
    compare_everywhere((shape){.H = 4,
                               .K = 2,
                               .C = 64,
                               .S = 16,
                               .format = DTYPE_BF16,
                               .R = 3,
                               .tokens = {20, 1, 33},
                               .context = {200, 300, 180},
                               .k_range = 1,
                               .shared_pages = 8});
}

/* Qwen3's K-norm weights reach 96.5: scores of many hundreds, a softmax that is nearly one-hot. */
static void attention_of_huge_keys_stays_finite_and_near(void **state)
{
    (void)state;
    compare_everywhere((shape){.H = 4,
                               .K = 2,
                               .C = 128,
                               .S = 16,
                               .format = DTYPE_BF16,
                               .R = 2,
                               .tokens = {1, 30},
                               .context = {600, 300},
                               .k_range = 96.5f});
}

/* The same tokens as `whole`, fed `step` at a time, must give the same bits. */
static void feed_in_chunks(const fixture *whole, const float *want, int32_t step, const cpu_context *cpu)
{
    op_attention_args a = whole->args;
    int32_t T = a.T, row_start[2] = {0, 0}, kv_len[1];
    float *out = check_alloc(whole->out_floats * sizeof *out);
    for (int32_t t = 0; t < T; t += step) {
        int32_t n = T - t < step ? T - t : step;
        row_start[1] = n;
        kv_len[0] = whole->s.context[0] - T + t + n;
        a.T = n;
        a.row_start = row_start;
        a.kv_len = kv_len;
        a.q = whole->args.q + (size_t)t * (size_t)a.q_stride;
        a.out = out + (size_t)t * (size_t)a.out_stride;
        op_attention_cpu(&a, cpu);
    }
    if (memcmp(out, want, whole->out_floats * sizeof *out) != 0)
        fail_msg("%s: chunks of %d differ from the whole (C=%d H=%d K=%d window=%d)", cpu_isa_name(cpu->isa),
                 step, a.kv.C, a.H, a.kv.K, a.window);
    free(out);
}

static void check_chunks(shape s)
{
    static const int32_t steps[] = {1, 7, 64, 1000};
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++) {
        fixture f = fixture_open(s, 99);
        cpu_context one = check_open(isa, 1, scratch_for(&f, 1)),
                    many = check_open(isa, 3, scratch_for(&f, 3));
        op_attention_cpu(&f.args, &one);
        float *want = check_alloc(f.out_floats * sizeof *want);
        memcpy(want, f.args.out, f.out_floats * sizeof *want);
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            feed_in_chunks(&f, want, steps[i], &one);
            feed_in_chunks(&f, want, steps[i], &many);
        }
        free(want);
        check_close(&one);
        check_close(&many);
        fixture_close(&f);
    }
}

static void attention_in_chunks_gives_the_same_bits(void **state)
{
    (void)state;
    shape s = {.H = 4,
               .K = 2,
               .C = 32,
               .S = 16,
               .format = DTYPE_BF16,
               .R = 1,
               .tokens = {150},
               .context = {700},
               .k_range = 3};
    check_chunks(s);
    s.window = 37;
    check_chunks(s);
    s = (shape){.H = 3,
                .K = 3,
                .C = 10,
                .S = 16,
                .format = DTYPE_F32,
                .R = 1,
                .tokens = {300},
                .context = {300},
                .k_range = 3};
    check_chunks(s);
    s = (shape){.H = 7,
                .K = 1,
                .C = 128,
                .S = 64,
                .format = DTYPE_F16,
                .R = 1,
                .tokens = {70},
                .context = {330},
                .k_range = 3};
    check_chunks(s);
}

static void attention_beside_other_rows_gives_the_same_bits(void **state)
{
    (void)state;
    shape s = {.H = 4,
               .K = 2,
               .C = 64,
               .S = 16,
               .format = DTYPE_BF16,
               .R = 8,
               .tokens = {40, 1, 1, 9, 1, 100, 1, 2},
               .context = {300, 513, 77, 400, 1, 100, 1000, 31},
               .k_range = 3};
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++) {
        fixture f = fixture_open(s, 5);
        cpu_context cpu = check_open(isa, 2, scratch_for(&f, 2));
        op_attention_cpu(&f.args, &cpu);
        float *alone = check_alloc(f.out_floats * sizeof *alone);
        for (int32_t r = 0; r < s.R; r++) {
            op_attention_args a = f.args;
            int32_t first = a.row_start[r], row_start[2] = {0, s.tokens[r]};
            a.R = 1;
            a.T = s.tokens[r];
            a.row_start = row_start;
            a.kv_len = f.args.kv_len + r;
            a.pages = f.args.pages + r * a.P;
            a.q = f.args.q + (size_t)first * (size_t)a.q_stride;
            a.out = alone + (size_t)first * (size_t)a.out_stride;
            op_attention_cpu(&a, &cpu);
        }
        assert_memory_equal(alone, f.args.out, f.out_floats * sizeof *alone);
        free(alone);
        check_close(&cpu);
        fixture_close(&f);
    }
}

static void kv_write_puts_every_token_where_its_slot_says(void **state)
{
    (void)state;
    enum { T = 37, K = 3, C = 22, S = 16, PAGES = 5, STRIDE = 2 * K * C + 3, POOL = PAGES * K * S * C };
    uint64_t seed = 8;
    float k[T * STRIDE], v[T * STRIDE];
    check_fill(k, T * STRIDE, 100, &seed);
    check_fill(v, T * STRIDE, 1e-6f, &seed); /* subnormal in f16 */
    int32_t slot[T];
    for (int32_t t = 0; t < T; t++) slot[t] = (t * 29 + 11) % (PAGES * S);
    float *pool[4];
    for (int i = 0; i < 4; i++) pool[i] = check_alloc(POOL * sizeof(float));
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++)
        for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++) {
            for (int i = 0; i < 4; i++) memset(pool[i], 0x55, POOL * sizeof(float));
            cpu_context cpu = check_open(isa, 2, 64);
            op_kv_write_args a = {{pool[0], pool[1], format, K, S, C}, k, v, STRIDE, slot, T}, ref = a;
            ref.kv.k_pool = pool[2];
            ref.kv.v_pool = pool[3];
            op_kv_write_ref(&ref);
            op_kv_write_cpu(&a, &cpu);
            assert_memory_equal(pool[0], pool[2], POOL * sizeof(float));
            assert_memory_equal(pool[1], pool[3], POOL * sizeof(float));
            /* the layout, once by hand: token 5, head 2, channel 7 */
            if (format == DTYPE_F32)
                assert_true(pool[0][((slot[5] / S * K + 2) * S + slot[5] % S) * C + 7] ==
                            k[5 * STRIDE + 2 * C + 7]);
            check_close(&cpu);
        }
    for (int i = 0; i < 4; i++) free(pool[i]);
}

/* One query by the definition, written apart from the reference: three positions, window 2 hides the first. */
static void attention_of_a_tiny_case_is_as_computed_by_hand(void **state)
{
    (void)state;
    enum { C = 8 };
    float k[3 * C] = {0}, v[3 * C] = {0}, q[C] = {1}, out[C];
    k[0] = 100, k[C] = 1, k[2 * C] = 3;
    v[0] = 1000, v[C] = 10, v[2 * C] = 20;
    int32_t row_start[2] = {0, 1}, kv_len[1] = {3}, pages[3] = {0, 1, 2};
    op_attention_args a = {.out = out,
                           .out_stride = C,
                           .q = q,
                           .q_stride = C,
                           .kv = {k, v, DTYPE_F32, 1, 1, C},
                           .row_start = row_start,
                           .kv_len = kv_len,
                           .pages = pages,
                           .T = 1,
                           .R = 1,
                           .P = 3,
                           .H = 1,
                           .window = 2,
                           .scale = 0.5f};
    double e = exp(0.5 * (3 - 1)), want = (10 + 20 * e) / (1 + e);
    op_attention_ref(&a);
    assert_true(fabs(out[0] - want) < 1e-5 && out[1] == 0);
    cpu_context cpu = check_open(cpu_isa_detect(), 1, op_attention_scratch(1, 1, C, 3, 1));
    op_attention_cpu(&a, &cpu);
    assert_true(fabs(out[0] - want) < 1e-5 && out[1] == 0);
    check_close(&cpu);
}

static double best_time(const fixture *f, const cpu_context *cpu, int reps)
{
    double best = 1e9;
    for (int i = 0; i < reps; i++) {
        double start = check_seconds();
        op_attention_cpu(&f->args, cpu);
        double took = check_seconds() - start;
        best = took < best ? took : best;
    }
    return best;
}

/* Qwen3-0.6B's shape; a fresh pool per repetition would be honest for small contexts, but 4k tokens are 16 MB already. */
static void perf(cpu_isa isa, int threads, int32_t tokens, int32_t context, int reps)
{
    shape s = {.H = 16,
               .K = 8,
               .C = 128,
               .S = 64,
               .format = DTYPE_BF16,
               .R = 1,
               .tokens = {tokens},
               .context = {context},
               .k_range = 1};
    fixture f = fixture_open(s, 3);
    cpu_context cpu = check_open(isa, threads, scratch_for(&f, threads));
    double took = best_time(&f, &cpu, reps);
    double bytes = 2.0 * context * s.K * s.C * 2, visible = (double)tokens * (context - (tokens - 1) / 2.0);
    printf("%-7s %d threads  %4d tokens  context %5d  %9.3f ms  %6.1f GB/s  %7.1f GFLOP/s\n",
           cpu_isa_name(isa), threads, tokens, context, took * 1e3, bytes / took * 1e-9,
           4.0 * visible * s.H * s.C / took * 1e-9);
    check_close(&cpu);
    fixture_close(&f);
}

static int perf_main(void)
{
    for (cpu_isa isa = ISA_SCALAR; isa <= cpu_isa_detect(); isa++)
        for (int threads = 1; threads <= 2; threads++) {
            int reps = isa == ISA_SCALAR ? 2 : 20;
            perf(isa, threads, 1, 128, 10 * reps);
            perf(isa, threads, 1, 4096, reps);
            perf(isa, threads, 1, 32768, reps);
            perf(isa, threads, 128, 128, reps);
            perf(isa, threads, 128, 2048, reps);
        }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--perf") == 0) return perf_main();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_of_a_tiny_case_is_as_computed_by_hand),
        cmocka_unit_test(attention_of_one_token_at_many_contexts_matches_reference),
        cmocka_unit_test(attention_of_every_head_shape_matches_reference),
        cmocka_unit_test(attention_of_any_page_size_matches_reference),
        cmocka_unit_test(attention_with_a_window_sees_only_the_window),
        cmocka_unit_test(attention_of_mixed_rows_matches_reference),
        cmocka_unit_test(attention_of_rows_sharing_pages_matches_reference),
        cmocka_unit_test(attention_of_huge_keys_stays_finite_and_near),
        cmocka_unit_test(attention_in_chunks_gives_the_same_bits),
        cmocka_unit_test(attention_beside_other_rows_gives_the_same_bits),
        cmocka_unit_test(kv_write_puts_every_token_where_its_slot_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
