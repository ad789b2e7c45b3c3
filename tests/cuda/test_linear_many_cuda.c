/* Matrix products of many tokens on the GPU against the reference: bf16 weights by our kernel, and by cuBLASLt where it
 * is found; the other formats.
 * --perf prints the time of all for the shapes of Qwen3-0.6B and Llama-3.1-8B. */
#define _DEFAULT_SOURCE /* usleep */
#include "support/device.h"

#include "base/half.h"
#include "backend/cuda.h"

#include <math.h>

static device gpu;
static bool library; /* cuBLASLt is there and ready */

/* ---- One op, here and there ----------------------------------------------------------------------------------- */

typedef struct {
    int32_t T, n_parts, rows[LINEAR_MAX_PARTS], cols;
    dtype format[LINEAR_MAX_PARTS];
    bool largest; /* weights and inputs of the largest size, so that Q8_0's sums of a block are */
    bool spread;  /* inputs of all sizes, and tokens' too */
    bool bias, accumulate, gated, gather, norm;
    int32_t in_pad, out_pad, first_col; /* floats between rows, and before the first output column */
} product_case;

typedef struct {
    op_norm_linear_args host, there;
    weight w[LINEAR_MAX_PARTS], w_there[LINEAR_MAX_PARTS];
    float *out, *got;
    size_t out_count;
} product_pair;

static void *random_bf16(size_t n, uint64_t *random)
{
    uint16_t *data = check_alloc(n * sizeof *data);
    for (size_t i = 0; i < n; i++) data[i] = bf16_from_float(check_uniform(random, 1));
    return data;
}

static float *random_floats(size_t n, uint64_t *random)
{
    float *data = check_alloc(n * sizeof *data);
    check_fill(data, n, 1, random);
    return data;
}

/* Scales of both signs, some of them subnormal. */
static void *random_q8(size_t n, bool largest, uint64_t *random)
{
    uint8_t *data = check_alloc(n / Q8_0_BLOCK * Q8_0_BLOCK_BYTES), *to = data;
    for (size_t b = 0; b < n / Q8_0_BLOCK; b++, to += Q8_0_BLOCK_BYTES) {
        uint16_t scale = f16_from_float(check_uniform(random, b % 7 == 0 ? 0x1p-15f : 0.01f));
        memcpy(to, &scale, sizeof scale);
        for (int i = 0; i < Q8_0_BLOCK; i++) to[2 + i] = largest ? 0x80 : (uint8_t)check_random(random);
    }
    return data;
}

static void *random_f16(size_t n, uint64_t *random)
{
    uint16_t *data = check_alloc(n * sizeof *data);
    for (size_t i = 0; i < n; i++) data[i] = f16_from_float(check_uniform(random, 1));
    return data;
}

static void *random_weights(dtype format, size_t n, bool largest, uint64_t *random)
{
    switch (format) {
    case DTYPE_F16: return random_f16(n, random);
    case DTYPE_F32: return random_floats(n, random);
    case DTYPE_Q8_0: return random_q8(n, largest, random);
    default: return random_bf16(n, random);
    }
}

static void make_parts(product_pair *p, const product_case *c, uint64_t *random)
{
    op_linear_args *here = &p->host.linear, *there = &p->there.linear;
    int32_t col = c->first_col;
    for (int i = 0; i < c->n_parts; i++) {
        size_t n = (size_t)c->rows[i] * (size_t)c->cols;
        dtype format = c->format[i];
        size_t bytes = dtype_row_bytes(format, c->cols) * (size_t)c->rows[i];
        p->w[i] = (weight){format, c->rows[i], c->cols, random_weights(format, n, c->largest, random)};
        p->w_there[i] = p->w[i];
        p->w_there[i].data = device_copy(&gpu, p->w[i].data, bytes);
        float *bias = c->bias ? random_floats((size_t)c->rows[i], random) : NULL;
        here->part[i] = (linear_part){&p->w[i], bias, col};
        there->part[i] = (linear_part){&p->w_there[i], NULL, col};
        if (bias) there->part[i].bias = device_copy(&gpu, bias, (size_t)c->rows[i] * sizeof *bias);
        if (!c->gated) col += c->rows[i] + (i == 0 ? c->out_pad : 0);
    }
    here->out_stride = there->out_stride = col + (c->gated ? c->rows[0] : 0) + c->out_pad;
}

/* Every eleventh input is a thousand times larger; tokens are from 2^-80 (f16: 2^-125, whose scale is at its limit) to 2^30
 * times as large, or zero. */
static void spread_inputs(float *in, const product_case *c)
{
    const float tiny = c->format[0] == DTYPE_F16 ? 0x1p-125f : 0x1p-80f;
    const float size[] = {1, 0x1p-40f, 0x1p30f, tiny, 0};
    int32_t stride = c->cols + c->in_pad;
    for (int32_t t = 0; t < c->T; t++)
        for (int32_t k = 0; k < stride; k++)
            in[(size_t)t * (size_t)stride + (size_t)k] *= size[t % 5] * (k % 11 == 3 ? 1000.0f : 1.0f);
}

/* Pointers into *p: it must stay where it is. */
static void make_pair(product_pair *p, const product_case *c, uint64_t *random)
{
    int32_t in_rows = c->gather ? c->T + 5 : c->T, in_stride = c->cols + c->in_pad;
    size_t in_count = (size_t)in_rows * (size_t)in_stride;
    *p = (product_pair){0};
    op_linear_args *l = &p->host.linear;
    *l = (op_linear_args){
        .T = c->T, .n_parts = c->n_parts, .accumulate = c->accumulate, .in_stride = in_stride};
    p->host.gated = c->gated;
    p->host.eps = 1e-6f;
    p->there = p->host;
    make_parts(p, c, random);
    p->out_count = (size_t)c->T * (size_t)l->out_stride;
    float *in = random_floats(in_count, random);
    for (size_t i = 0; c->largest && i < in_count; i++) in[i] = i / 256 % 2 ? 1 : -1;
    if (c->spread) spread_inputs(in, c);
    l->in = in;
    l->out = random_floats(p->out_count, random); /* also what columns beside the parts must still hold */
    p->out = check_alloc(p->out_count * sizeof *p->out);
    p->got = check_alloc(p->out_count * sizeof *p->got);
    memcpy(p->out, l->out, p->out_count * sizeof *p->out);
    p->there.linear.in = device_copy(&gpu, l->in, in_count * sizeof *l->in);
    p->there.linear.out = device_alloc(&gpu, p->out_count * sizeof *l->out);
    if (c->norm) {
        p->host.norm = random_floats((size_t)c->cols, random);
        p->there.norm = device_copy(&gpu, p->host.norm, (size_t)c->cols * sizeof(float));
    }
    if (c->gather) {
        int32_t *row = check_alloc((size_t)c->T * sizeof *row);
        for (int32_t t = 0; t < c->T; t++) row[t] = (int32_t)(check_random(random) % (uint64_t)in_rows);
        p->host.row = row;
        p->there.row = device_copy(&gpu, row, (size_t)c->T * sizeof *row);
    }
    if (c->norm)
        op_norm_linear_ref(&p->host);
    else
        op_linear_ref(l);
}

static void free_pair(product_pair *p, const product_case *c)
{
    for (int i = 0; i < c->n_parts; i++) {
        free((void *)p->w[i].data);
        free((void *)p->host.linear.part[i].bias);
    }
    free((void *)p->host.linear.in);
    free(p->host.linear.out);
    free((void *)p->host.norm);
    free((void *)p->host.row);
    free(p->out);
    free(p->got);
    device_release(&gpu);
}

static bool is_written(const product_case *c, const op_linear_args *l, int32_t col)
{
    for (int i = 0; i < (c->gated ? 1 : c->n_parts); i++)
        if (col >= l->part[i].out_col && col < l->part[i].out_col + c->rows[i]) return true;
    return false;
}

static void describe(char *text, size_t size, const product_case *c, const char *path)
{
    snprintf(text, size, "%s: %s, T %d, rows %d %d %d (%d parts), cols %d%s%s%s%s%s, pads %d %d %d", path,
             dtype_name(c->format[0]), c->T, c->rows[0], c->rows[1], c->rows[2], c->n_parts, c->cols,
             c->bias ? ", bias" : "", c->accumulate ? ", accumulate" : "", c->gated ? ", gated" : "",
             c->gather ? ", gather" : "", c->norm ? ", norm" : "", c->in_pad, c->out_pad, c->first_col);
}

/* bf16, f16: products are exact, and tensor cores cut low bits off long sums, for f16 twice for every 16 columns, once they
 * are done, 2^-23 each; f16 keeps an input's 2^-23. Q8_0: a block's integer sum is exact, and then
 * three roundings of 2^-24 follow, the last of the sum so far; the terms' sizes add up to some sqrt(blocks) times the
 * result's. norm: the input's rounding to bf16. */
static double bound_of(const product_case *c)
{
    double blocks = c->cols / Q8_0_BLOCK, bound = c->norm ? 2e-3 : 0;
    const double of_format[DTYPE_COUNT] = {[DTYPE_F32] = 2e-5,
                                           [DTYPE_F16] = (2 + c->cols / 8) * 0x1p-23,
                                           [DTYPE_BF16] = 2e-5,
                                           [DTYPE_Q8_0] = (blocks + 3) * 0x1p-24 * sqrt(blocks)};
    for (int p = 0; p < c->n_parts; p++)
        if (of_format[c->format[p]] > bound) bound = of_format[c->format[p]];
    return bound;
}

/* Adds up squares of a token's written columns; the others must not have changed. */
static void add_token(const product_pair *p, const product_case *c, int32_t t, const char *what, double *gap,
                      double *size)
{
    const op_linear_args *l = &p->host.linear;
    for (int32_t col = 0; col < l->out_stride; col++) {
        size_t i = (size_t)t * (size_t)l->out_stride + (size_t)col;
        if (!is_written(c, l, col)) {
            if (p->got[i] != p->out[i]) fail_msg("%s: token %d column %d must not be written", what, t, col);
            continue;
        }
        double want = (double)l->out[i], d = (double)p->got[i] - want;
        if (!(fabs(d) <= 0.05 * (1 + fabs(want))))
            fail_msg("%s: token %d column %d is %.9g, expected %.9g", what, t, col, (double)p->got[i], want);
        *gap += d * d;
        *size += want * want;
    }
}

/* The relative error of all tokens, or, where their sizes differ, the worst token's. */
static double compare(const product_pair *p, const product_case *c, const char *path)
{
    double gap = 0, size = 0, worst = 0, bound = bound_of(c);
    char what[256];
    describe(what, sizeof what, c, path);
    for (int32_t t = 0; t < c->T; t++) {
        if (c->spread) gap = size = 0;
        add_token(p, c, t, what, &gap, &size);
        if (!c->spread && t + 1 < c->T) continue;
        double error = gap > 0 ? sqrt(gap / size) : 0;
        if (!(error <= bound))
            fail_msg("%s: relative error %.3g at token %d, at most %.3g is allowed", what, error, t, bound);
        worst = error > worst ? error : worst;
    }
    return worst;
}

static void run_there(product_pair *p, const product_case *c, linear_many_path path)
{
    op_args args = {0};
    cuda_products_of(gpu.backend)->path = path;
    assert_int_equal(gpu.backend->type->copy_in(gpu.backend, p->there.linear.out, p->out,
                                                p->out_count * sizeof *p->out, NULL),
                     NVLLM_OK);
    if (c->norm)
        args.norm_linear = p->there;
    else
        args.linear = p->there.linear;
    device_run(&gpu, c->norm ? OP_NORM_LINEAR : OP_LINEAR, &args);
    device_read(&gpu, p->got, p->there.linear.out, p->out_count * sizeof *p->got);
    cuda_products_of(gpu.backend)->path = LINEAR_MANY_AUTO;
}

/* Returns the larger error of both ways. Twice the same way must give the same bits. */
static double check_case(const product_case *c, uint64_t *random)
{
    product_pair p;
    double worst = 0;
    make_pair(&p, c, random);
    float *first = check_alloc(p.out_count * sizeof *first);
    bool both = library && c->format[0] == DTYPE_BF16; /* the library takes no others */
    for (int path = LINEAR_MANY_OWN; path <= (both ? LINEAR_MANY_LIBRARY : LINEAR_MANY_OWN); path++) {
        const char *name = path == LINEAR_MANY_OWN ? "own" : "cuBLASLt";
        run_there(&p, c, (linear_many_path)path);
        double error = compare(&p, c, name);
        worst = error > worst ? error : worst;
        memcpy(first, p.got, p.out_count * sizeof *first);
        run_there(&p, c, (linear_many_path)path);
        if (memcmp(first, p.got, p.out_count * sizeof *first) != 0) fail_msg("%s: two runs differ", name);
    }
    free(first);
    free_pair(&p, c);
    return worst;
}

/* ---- Tests ----------------------------------------------------------------------------------------------------- */

static const int32_t tokens[] = {17, 31, 32, 33, 64, 100, 128, 200}, widths[] = {8, 40, 64, 72, 1024},
                     heights[] = {8, 40, 136, 1000, 33, 1};

static int32_t pick(uint64_t *random, int32_t n)
{
    return (int32_t)(check_random(random) % (uint64_t)n);
}

static product_case random_case(int32_t T, int32_t cols, uint64_t *random)
{
    product_case c = {.T = T, .cols = cols, .n_parts = 1 + pick(random, LINEAR_MAX_PARTS)};
    for (int i = 0; i < c.n_parts; i++) {
        c.rows[i] = heights[pick(random, 6)];
        c.format[i] = DTYPE_BF16;
    }
    if (c.n_parts == 3 && c.rows[0] == 1000) c.rows[1] = 40; /* the reference is slow */
    c.bias = pick(random, 2) == 0;
    c.in_pad = pick(random, 3) == 0 ? pick(random, 9) : 0;
    c.out_pad = pick(random, 2) == 0 ? pick(random, 9) : 0;
    c.first_col = pick(random, 2) == 0 ? pick(random, 9) : 0;
    return c;
}

static void linear_of_many_tokens_matches_reference(void **state)
{
    (void)state;
    uint64_t random = 21;
    double worst = 0;
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
        for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
            if (device_leaves_out(&gpu, t + k)) continue;
            product_case c = random_case(tokens[t], widths[k], &random);
            c.accumulate = pick(&random, 2) == 0;
            double error = check_case(&c, &random);
            worst = error > worst ? error : worst;
        }
    print_message("largest relative error %.3g\n", worst);
}

static void norm_linear_of_many_tokens_matches_reference(void **state)
{
    (void)state;
    uint64_t random = 22;
    double worst = 0;
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
        for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
            if (device_leaves_out(&gpu, t + k)) continue;
            product_case c = random_case(tokens[t], widths[k], &random);
            c.norm = true;
            c.gather = pick(&random, 2) == 0;
            c.gated = pick(&random, 2) == 0;
            if (c.gated) {
                c.n_parts = 2;
                c.rows[1] = c.rows[0];
                c.format[1] = DTYPE_BF16;
                c.rows[2] = 0;
                c.first_col = 0; /* norm_linear.h */
            }
            double error = check_case(&c, &random);
            worst = error > worst ? error : worst;
        }
    print_message("largest relative error %.3g\n", worst);
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

/* The other formats, which neither the library nor op norm_linear takes. Widths in whole stages, and others: f16 takes
 * multiples of 8, Q8_0 of 256, and the kernels for few tokens what is left. */
static void linear_of_other_formats_matches_reference(void **state)
{
    (void)state;
    static const int32_t counts[] = {5, 9, 17, 33, 64, 65, 130},
                         cols[] = {256, 512, 768, 1280, 32, 96, 288, 40, 13};
    static const dtype formats[] = {DTYPE_Q8_0, DTYPE_F16, DTYPE_F32};
    uint64_t random = 27;
    double worst = 0;
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t t = 0; t < sizeof counts / sizeof *counts; t++)
            for (size_t k = 0; k < sizeof cols / sizeof *cols; k++) {
                if (cols[k] % dtype_block(formats[f]) != 0 || device_leaves_out(&gpu, f + t + k)) continue;
                product_case c = random_case(counts[t], cols[k], &random);
                for (int p = 0; p < c.n_parts; p++) {
                    c.format[p] = formats[f];
                    if (c.rows[p] == 1000) c.rows[p] = device_size(&gpu, 1000, 170);
                }
                c.accumulate = pick(&random, 2) == 0;
                double error = check_case(&c, &random);
                worst = error > worst ? error : worst;
            }
    print_message("largest relative error %.3g\n", worst);
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
                                       cmocka_unit_test(parts_in_one_block_match_reference),
                                       cmocka_unit_test(linear_of_other_formats_matches_reference),
                                       cmocka_unit_test(large_products_of_other_formats_match_reference)};
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
