/* Attention of prompts on tensor cores against the reference: every row and head for itself, so that no wrong head can
 * hide; the same bits in any chunking; tokens that are not its own left alone. --perf prints TFLOP/s.
 *
 * The cache is full of NaN except where a token of the step sees a position; page entries that nobody needs name a page
 * of NaN. Bounds: weights are rounded to the cache's format (2^-9 or 2^-12 of each, at most), and so is q. */
#define _POSIX_C_SOURCE 200112L /* setenv */
#include "backend/cuda.h"
#include "support/device.h"
#include "base/half.h"

#define MAX_ROWS 40
#define POISON   (-12345.0f)

typedef struct {
    int32_t H, K, C, S, window;
    dtype format;
    int32_t R, tokens[MAX_ROWS], context[MAX_ROWS]; /* context: kv_len, this step's tokens included */
    float k_range;                                  /* of K's elements, 0: 2; V's and Q's are 1 */
    bool exact_q;                                   /* q has bf16 values: large scores magnify its rounding */
    int32_t check_every;                            /* tokens of a row that are compared, 0: all */
} shape;

typedef struct {
    shape s;
    op_attention_args host, there; /* pointers of the host, and of the GPU */
    size_t out_floats;
    float *got;
} fixture;

static device gpu;

/* The function under test, whatever kernel OP_ATTENTION would choose. */
bool op_attention_prompt_cuda(const op_attention_args *a, const struct cuda_context *cuda);

static bool run_prompt(const op_attention_args *a)
{
    return op_attention_prompt_cuda(a, cuda_context_of(gpu.backend));
}

/* ---- Fixture --------------------------------------------------------------------------------------------------- */

static void set_element(const kv_layer *kv, void *pool, size_t i, float x)
{
    ((uint16_t *)pool)[i] = kv->format == DTYPE_BF16 ? bf16_from_float(x) : f16_from_float(x);
}

static void fill_position(const fixture *f, int32_t page, int32_t slot, uint64_t *seed)
{
    const kv_layer *kv = &f->host.kv;
    for (int32_t k = 0; k < kv->K; k++) {
        size_t first =
            (((size_t)page * (size_t)kv->K + (size_t)k) * (size_t)kv->S + (size_t)slot) * (size_t)kv->C;
        for (int32_t c = 0; c < kv->C; c++) {
            set_element(kv, kv->k_pool, first + (size_t)c, check_uniform(seed, f->s.k_range));
            set_element(kv, kv->v_pool, first + (size_t)c, check_uniform(seed, 1));
        }
    }
}

/* Page 0 is the page of NaN; the others are given out from the last to the first. */
static int32_t *fill_pages(const fixture *f, int32_t pages, uint64_t *seed)
{
    const shape *s = &f->s;
    int32_t P = f->host.P, *table = check_alloc((size_t)s->R * (size_t)P * sizeof *table);
    for (int32_t r = 0; r < s->R; r++) {
        int32_t low = s->window > 0 ? s->context[r] - s->tokens[r] - s->window + 1 : 0;
        for (int32_t p = 0; p < P; p++) {
            bool live = p * s->S < s->context[r] && (p + 1) * s->S > low;
            table[r * P + p] = live ? --pages : 0;
            for (int32_t slot = 0; live && slot < s->S; slot++)
                if (p * s->S + slot < s->context[r] && p * s->S + slot >= low)
                    fill_position(f, table[r * P + p], slot, seed);
        }
    }
    return table;
}

static void copy_to_gpu(fixture *f, size_t pool)
{
    const op_attention_args *a = &f->host;
    op_attention_args *b = &f->there;
    size_t q = (size_t)a->T * (size_t)a->q_stride, R = (size_t)a->R;
    *b = *a;
    b->kv.k_pool = device_copy(&gpu, a->kv.k_pool, pool);
    b->kv.v_pool = device_copy(&gpu, a->kv.v_pool, pool);
    b->q = device_copy(&gpu, a->q, q * sizeof *a->q);
    b->row_start = device_copy(&gpu, a->row_start, (R + 1) * sizeof *a->row_start);
    b->kv_len = device_copy(&gpu, a->kv_len, R * sizeof *a->kv_len);
    b->pages = device_copy(&gpu, a->pages, R * (size_t)a->P * sizeof *a->pages);
    for (size_t i = 0; i < f->out_floats; i++) f->got[i] = POISON;
    b->out = device_copy(&gpu, f->got, f->out_floats * sizeof *f->got);
}

static fixture fixture_open(shape s, uint64_t seed)
{
    fixture f = {.s = s};
    op_attention_args *a = &f.host;
    if (s.k_range == 0) f.s.k_range = 2;
    if (s.check_every == 0) f.s.check_every = 1;
    int32_t *row_start = check_alloc(sizeof(int32_t) * (MAX_ROWS + 1)), pages = 1, T = 0;
    int32_t *kv_len = check_alloc(sizeof(int32_t) * MAX_ROWS);
    a->P = 1;
    for (int32_t r = 0; r < s.R; r++) {
        int32_t p = (s.context[r] + s.S - 1) / s.S + 1; /* one more than needed */
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
    a->out_stride = s.H * s.C + 8;
    size_t pool = (size_t)pages * (size_t)(s.K * s.S * s.C) * dtype_block_bytes(s.format);
    a->kv = (kv_layer){check_alloc(pool), check_alloc(pool), s.format, s.K, s.S, s.C};
    memset(a->kv.k_pool, 0xff, pool);
    memset(a->kv.v_pool, 0xff, pool);
    a->pages = fill_pages(&f, pages, &seed);
    size_t n = (size_t)T * (size_t)a->q_stride;
    float *q = check_alloc(n * sizeof *q);
    check_fill(q, n, 1, &seed);
    for (size_t i = 0; s.exact_q && i < n; i++) q[i] = bf16_to_float(bf16_from_float(q[i]));
    a->q = q;
    f.out_floats = ((size_t)T + 1) * (size_t)a->out_stride;
    f.got = check_alloc(f.out_floats * sizeof *f.got);
    copy_to_gpu(&f, pool);
    return f;
}

static void fixture_close(fixture *f)
{
    device_release(&gpu);
    free(f->host.kv.k_pool);
    free(f->host.kv.v_pool);
    free((void *)(uintptr_t)f->host.row_start);
    free((void *)(uintptr_t)f->host.kv_len);
    free((void *)(uintptr_t)f->host.pages);
    free((void *)(uintptr_t)f->host.q);
    free(f->got);
}

static void describe(char *text, size_t bytes, const shape *s, int32_t r)
{
    snprintf(text, bytes, "H=%d K=%d C=%d S=%d window=%d %s R=%d, row %d of %d tokens and context %d", s->H,
             s->K, s->C, s->S, s->window, dtype_name(s->format), s->R, r, s->tokens[r], s->context[r]);
}

/* ---- Comparison ------------------------------------------------------------------------------------------------ */

/* Token t of row r by the reference. */
static void reference(const fixture *f, float *want, int32_t r, int32_t t)
{
    op_attention_args a = f->host;
    int32_t row_start[2] = {0, 1}, kv_len[1] = {a.kv_len[r] - (a.row_start[r + 1] - 1 - t)};
    a.q += (size_t)t * (size_t)a.q_stride;
    a.row_start = row_start;
    a.kv_len = kv_len;
    a.pages += (size_t)r * (size_t)a.P;
    a.T = a.R = 1;
    a.out = want;
    op_attention_ref(&a);
}

/* Every head's relative error over the checked tokens of row r. */
static double check_row(const fixture *f, int32_t r, double bound)
{
    const op_attention_args *a = &f->host;
    int32_t H = a->H, C = a->kv.C, first = a->row_start[r], end = a->row_start[r + 1];
    double gap[256] = {0}, size[256] = {0}, worst = 0;
    float *want = check_alloc((size_t)a->out_stride * sizeof *want);
    char text[200];
    describe(text, sizeof text, &f->s, r);
    assert_true(H <= 256);
    for (int32_t t = end - 1; t >= first; t -= f->s.check_every) {
        const float *got = f->got + (size_t)t * (size_t)a->out_stride;
        reference(f, want, r, t);
        for (int32_t i = 0; i < H * C; i++) {
            double d = (double)got[i] - (double)want[i];
            if (!isfinite(got[i])) fail_msg("%s: token %d, head %d is not finite", text, t - first, i / C);
            gap[i / C] += d * d;
            size[i / C] += (double)want[i] * (double)want[i];
        }
    }
    for (int32_t h = 0; h < H; h++) {
        double error = sqrt(gap[h] / size[h]);
        worst = error > worst ? error : worst;
        if (!(error <= bound))
            fail_msg("%s, head %d: relative error %.3g, at most %.3g is allowed", text, h, error, bound);
    }
    free(want);
    return worst;
}

static void check_poison(const fixture *f, const char *what, int32_t t, int32_t from, int32_t to)
{
    const float *got = f->got + (size_t)t * (size_t)f->host.out_stride;
    for (int32_t i = from; i < to; i++)
        if (got[i] != POISON) fail_msg("%s: token %d, element %d was written", what, t, i);
}

static void compare(shape s)
{
    fixture f = fixture_open(s, 1234);
    const op_attention_args *a = &f.host;
    double worst = 0, bound = s.format == DTYPE_BF16 ? 4e-3 : 1e-3;
    char text[200];
    assert_true(run_prompt(&f.there));
    device_read(&gpu, f.got, f.there.out, f.out_floats * sizeof *f.got);
    for (int32_t r = 0; r < s.R; r++) {
        double error = s.tokens[r] > 1 ? check_row(&f, r, bound) : 0;
        worst = error > worst ? error : worst;
        describe(text, sizeof text, &s, r);
        for (int32_t t = a->row_start[r]; t < a->row_start[r + 1]; t++)
            check_poison(&f, text, t, s.tokens[r] > 1 ? s.H * s.C : 0, a->out_stride);
    }
    check_poison(&f, "past the last token", a->T, 0, a->out_stride);
    describe(text, sizeof text, &s, 0);
    printf("  %s: T=%d, worst head %.2g\n", text, a->T, worst);
    fixture_close(&f);
}

static void compare_formats(shape s)
{
    s.format = DTYPE_BF16;
    compare(s);
    s.format = DTYPE_F16;
    compare(s);
}

/* ---- Tests ----------------------------------------------------------------------------------------------------- */

static void rows_of_many_lengths_match_reference(void **state)
{
    (void)state;
    static const int32_t channels[] = {64, 128, 32, 96, 256, 72, 8};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
        compare_formats((shape){.H = 4,
                                .K = 2,
                                .C = channels[i],
                                .S = 64,
                                .R = 9,
                                .tokens = {2, 1, 63, 64, 65, 1, 129, 1, 17},
                                .context = {2, 1, 63, 64, 65, 70, 129, 300, 17}});
}

static void chunks_that_continue_match_reference(void **state)
{
    (void)state;
    static const int32_t channels[] = {64, 128, 256}, slots[] = {64, 16, 5, 128, 192};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
        for (size_t j = 0; j < sizeof slots / sizeof *slots; j++) {
            int32_t before = device_size(&gpu, 1000, 200);
            compare_formats(
                (shape){.H = 4,
                        .K = 2,
                        .C = channels[i],
                        .S = slots[j],
                        .R = 7,
                        .tokens = {20, 64, 70, 1, 33, 2, 40},
                        .context = {1 + 20, 63 + 64, 64 + 70, 90, 65 + 33, before + 2, before + 40},
                        .check_every = 3});
        }
}

static void windows_match_reference(void **state)
{
    (void)state;
    static const int32_t windows[] = {1, 17, 64, 300}, slots[] = {64, 16, 5};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
        for (size_t j = 0; j < sizeof slots / sizeof *slots; j++) {
            if (device_leaves_out(&gpu, i + j)) continue;
            compare_formats((shape){.H = 4,
                                    .K = 2,
                                    .C = 64 << (j % 2),
                                    .S = slots[j],
                                    .window = windows[i],
                                    .R = 5,
                                    .tokens = {150, 1, 64, 400, 9},
                                    .context = {150, 700, 900, 411, 320},
                                    .check_every = 5});
        }
}

static void groups_of_any_size_match_reference(void **state)
{
    (void)state;
    static const int32_t ratios[] = {1, 2, 3, 4, 7, 16, 71};
    for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++)
        compare_formats((shape){.H = ratios[i] * 2,
                                .K = 2,
                                .C = 64 << (i % 2),
                                .S = 64,
                                .R = 3,
                                .tokens = {131, 1, 50},
                                .context = {131, 5, 250},
                                .check_every = 7});
}

/* Steps large enough for blocks of 128 rows, on any GPU. */
static void large_steps_match_reference(void **state)
{
    (void)state;
    static const int32_t channels[] = {64, 128};
    int32_t longest = device_size(&gpu, 1300, 150), more = device_size(&gpu, 7, 1),
            fewer = device_size(&gpu, 1, 4);
    shape s = {.S = 64, .format = DTYPE_BF16, .check_every = 29};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        s.C = channels[i];
        s.H = 32 / fewer, s.K = 32 / fewer, s.window = 0;
        s.R = 4;
        memcpy(s.tokens, (int32_t[]){longest, 1, 2, 200}, 4 * sizeof(int32_t));
        memcpy(s.context, (int32_t[]){longest, 1, 130, 265}, 4 * sizeof(int32_t));
        compare_formats(s);
        s.H = 28 / fewer, s.K = 4 / fewer, s.window = 100, s.S = 16;
        compare_formats(s);
        s.H = 16 / fewer, s.K = 8 / fewer, s.window = 0, s.S = 64;
        s.R = MAX_ROWS; /* more than a warp looks at at once */
        for (int32_t r = 0; r < s.R; r++) {
            s.tokens[r] = r % 3 == 1 ? 1 : 30 + more * r;
            s.context[r] = s.tokens[r] + 13 * r;
        }
        compare_formats(s);
    }
}

/* Scores far apart: the running maximum rises again and again, and weights vanish. */
static void large_scores_match_reference(void **state)
{
    (void)state;
    for (int32_t C = 64; C <= 256; C *= 2)
        compare_formats((shape){.H = 4,
                                .K = 2,
                                .C = C,
                                .S = 64,
                                .R = 2,
                                .tokens = {200, 90},
                                .context = {200, 700},
                                .k_range = 96.5f,
                                .exact_q = true,
                                .check_every = 3});
}

/* The row's tokens in steps of `step`, which leave no single token. */
static void feed_in_chunks(const fixture *f, int32_t step, float *out)
{
    op_attention_args a = f->there;
    int32_t T = f->host.T, before = f->s.context[0] - T;
    for (size_t i = 0; i < f->out_floats; i++) out[i] = POISON;
    a.out = device_copy(&gpu, out, f->out_floats * sizeof *out);
    float *first = a.out;
    for (int32_t t = 0, n; t < T; t += n) {
        n = T - t <= step + 1 ? T - t : step;
        int32_t row_start[2] = {0, n}, kv_len[1] = {before + t + n};
        a.T = n;
        a.row_start = device_copy(&gpu, row_start, sizeof row_start);
        a.kv_len = device_copy(&gpu, kv_len, sizeof kv_len);
        a.q = f->there.q + (size_t)t * (size_t)a.q_stride;
        a.out = first + (size_t)t * (size_t)a.out_stride;
        assert_true(run_prompt(&a));
    }
    device_read(&gpu, out, first, f->out_floats * sizeof *out);
}

static void chunks_give_the_same_bits(void **state)
{
    (void)state;
    const int32_t steps[] = {device_size(&gpu, 7, 21), 64, 500}, windows[] = {0, 100};
    int32_t T = device_size(&gpu, 2500, 520), K = device_size(&gpu, 8, 2);
    for (int32_t C = 64; C <= 256; C *= 2)
        for (int w = 0; w < 2; w++) {
            fixture f = fixture_open((shape){.H = 2 * K,
                                             .K = K,
                                             .C = C,
                                             .S = 64,
                                             .window = windows[w],
                                             .format = DTYPE_BF16,
                                             .R = 1,
                                             .tokens = {T},
                                             .context = {T + 33},
                                             .k_range = 20},
                                     77);
            float *out = check_alloc(f.out_floats * sizeof *out);
            assert_true(run_prompt(&f.there));
            device_read(&gpu, f.got, f.there.out, f.out_floats * sizeof *f.got);
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
                feed_in_chunks(&f, steps[i], out);
                if (memcmp(out, f.got, f.out_floats * sizeof *out) != 0)
                    fail_msg("C=%d window=%d: chunks of %d differ from the whole", C, windows[w], steps[i]);
            }
            free(out);
            fixture_close(&f);
        }
}

static void what_it_cannot_do_is_refused(void **state)
{
    (void)state;
    op_attention_args a = {
        .kv = {NULL, NULL, DTYPE_F32, 2, 64, 128}, .T = 8, .R = 1, .P = 1, .H = 4, .scale = 1};
    a.q_stride = a.out_stride = 512;
    assert_false(run_prompt(&a));
    a.kv.format = DTYPE_BF16;
    a.kv.C = 20;
    assert_false(run_prompt(&a));
    a.kv.C = 128;
    a.q_stride = 514;
    assert_false(run_prompt(&a));
}

/* ---- Speed ----------------------------------------------------------------------------------------------------- */

static void time_prompt(int32_t T, int32_t H, int32_t K, int32_t C)
{
    fixture f = fixture_open(
        (shape){.H = H, .K = K, .C = C, .S = 64, .format = DTYPE_BF16, .R = 1, .tokens = {T}, .context = {T}},
        5);
    double flops = 4.0 * C * H * ((double)T * (T + 1.0) / 2), best = 1e9;
    int runs = (int)(20e-3 / (flops / 300e12 + 5e-6)) + 1; /* about 20 ms */
    for (int i = 0; i < 6; i++) {
        double from = check_seconds();
        for (int j = 0; j < runs; j++) run_prompt(&f.there);
        device_read(&gpu, f.got, f.there.out, sizeof *f.got);
        double took = (check_seconds() - from) / runs;
        best = i > 0 && took < best ? took : best;
    }
    printf("attention_prompt T=%5d H=%d K=%d C=%d: %8.1f us, %6.1f TFLOP/s\n", T, H, K, C, best * 1e6,
           flops / best * 1e-12);
    fixture_close(&f);
}

static void time_prompts(void)
{
    static const int32_t lengths[] = {512, 1024, 2048, 4096, 8192};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) time_prompt(lengths[i], 16, 8, 128);
    time_prompt(512, 32, 8, 128);
    time_prompt(4096, 32, 8, 128);
    time_prompt(4096, 32, 8, 64);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_of_many_lengths_match_reference),
                                       cmocka_unit_test(chunks_that_continue_match_reference),
                                       cmocka_unit_test(windows_match_reference),
                                       cmocka_unit_test(groups_of_any_size_match_reference),
                                       cmocka_unit_test(large_steps_match_reference),
                                       cmocka_unit_test(large_scores_match_reference),
                                       cmocka_unit_test(chunks_give_the_same_bits),
                                       cmocka_unit_test(what_it_cannot_do_is_refused)};
    int failed = 0;
    setenv("NVLLM_EMULATOR", "multiprocessors=10", 0); /* there some steps get large blocks, some small */
    if (!device_open(&gpu)) return 77;
    if (argc > 1 && strcmp(argv[1], "--perf") == 0)
        time_prompts();
    else
        failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
