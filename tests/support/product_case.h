/* A product of many tokens on the GPU against the reference, by our kernels and by cuBLASLt where it is found; cases by
 * chance. */
#ifndef NVLLM_TEST_PRODUCT_CASE_H
#define NVLLM_TEST_PRODUCT_CASE_H

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

static inline void *random_bf16(size_t n, uint64_t *random)
{
    uint16_t *data = check_alloc(n * sizeof *data);
    for (size_t i = 0; i < n; i++) data[i] = bf16_from_float(check_uniform(random, 1));
    return data;
}

static inline float *random_floats(size_t n, uint64_t *random)
{
    float *data = check_alloc(n * sizeof *data);
    check_fill(data, n, 1, random);
    return data;
}

/* Scales of both signs, some of them subnormal. */
static inline void *random_q8(size_t n, bool largest, uint64_t *random)
{
    uint8_t *data = check_alloc(n / Q8_0_BLOCK * Q8_0_BLOCK_BYTES), *to = data;
    for (size_t b = 0; b < n / Q8_0_BLOCK; b++, to += Q8_0_BLOCK_BYTES) {
        uint16_t scale = f16_from_float(check_uniform(random, b % 7 == 0 ? 0x1p-15f : 0.01f));
        memcpy(to, &scale, sizeof scale);
        for (int i = 0; i < Q8_0_BLOCK; i++) to[2 + i] = largest ? 0x80 : (uint8_t)check_random(random);
    }
    return data;
}

static inline void *random_f16(size_t n, uint64_t *random)
{
    uint16_t *data = check_alloc(n * sizeof *data);
    for (size_t i = 0; i < n; i++) data[i] = f16_from_float(check_uniform(random, 1));
    return data;
}

static inline void *random_weights(dtype format, size_t n, bool largest, uint64_t *random)
{
    switch (format) {
    case DTYPE_F16: return random_f16(n, random);
    case DTYPE_F32: return random_floats(n, random);
    case DTYPE_Q8_0: return random_q8(n, largest, random);
    default: return random_bf16(n, random);
    }
}

static inline void make_parts(product_pair *p, const product_case *c, uint64_t *random)
{
    op_linear_args *here = &p->host.linear, *there = &p->there.linear;
    int32_t col = c->first_col;
    for (int i = 0; i < c->n_parts; i++) {
        size_t n = (size_t)c->rows[i] * (size_t)c->cols;
        dtype format = c->format[i];
        p->w[i] = (weight){format, c->rows[i], c->cols, random_weights(format, n, c->largest, random), 0};
        p->w_there[i] = device_weight(&gpu, &p->w[i]);
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
static inline void spread_inputs(float *in, const product_case *c)
{
    const float tiny = c->format[0] == DTYPE_F16 ? 0x1p-125f : 0x1p-80f;
    const float size[] = {1, 0x1p-40f, 0x1p30f, tiny, 0};
    int32_t stride = c->cols + c->in_pad;
    for (int32_t t = 0; t < c->T; t++)
        for (int32_t k = 0; k < stride; k++)
            in[(size_t)t * (size_t)stride + (size_t)k] *= size[t % 5] * (k % 11 == 3 ? 1000.0f : 1.0f);
}

/* Pointers into *p: it must stay where it is. */
static inline void make_pair(product_pair *p, const product_case *c, uint64_t *random)
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

static inline void free_pair(product_pair *p, const product_case *c)
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

static inline bool is_written(const product_case *c, const op_linear_args *l, int32_t col)
{
    for (int i = 0; i < (c->gated ? 1 : c->n_parts); i++)
        if (col >= l->part[i].out_col && col < l->part[i].out_col + c->rows[i]) return true;
    return false;
}

static inline void describe(char *text, size_t size, const product_case *c, const char *path)
{
    snprintf(text, size, "%s: %s, T %d, rows %d %d %d (%d parts), cols %d%s%s%s%s%s, pads %d %d %d", path,
             dtype_name(c->format[0]), c->T, c->rows[0], c->rows[1], c->rows[2], c->n_parts, c->cols,
             c->bias ? ", bias" : "", c->accumulate ? ", accumulate" : "", c->gated ? ", gated" : "",
             c->gather ? ", gather" : "", c->norm ? ", norm" : "", c->in_pad, c->out_pad, c->first_col);
}

/* bf16, f16: products are exact, and tensor cores cut low bits off long sums, for f16 twice for every 16 columns, once they
 * are done, 2^-23 each; f16 keeps an input's 2^-23. Q8_0: a block's integer sum is exact, and then
 * three roundings of 2^-24 follow, the last of the sum so far; the terms' sizes add up to some sqrt(blocks) times the
 * result's. norm: the input's rounding to bf16, or to int8 where the last bit of 1/rms decides. */
static inline double bound_of(const product_case *c)
{
    bool rounds = c->format[0] == DTYPE_BF16 || c->format[0] == DTYPE_Q8_0;
    double blocks = c->cols / Q8_0_BLOCK, bound = c->norm && rounds ? 2e-3 : 0;
    const double of_format[DTYPE_COUNT] = {[DTYPE_F32] = 2e-5,
                                           [DTYPE_F16] = (2 + c->cols / 8) * 0x1p-23,
                                           [DTYPE_BF16] = 2e-5,
                                           [DTYPE_Q8_0] = (blocks + 3) * 0x1p-24 * sqrt(blocks)};
    for (int p = 0; p < c->n_parts; p++)
        if (of_format[c->format[p]] > bound) bound = of_format[c->format[p]];
    return bound + (c->norm ? 2e-6 : 0); /* 1/rms, and the gate */
}

typedef struct {
    double gap, size; /* sums of squares of what differs and of what is wanted */
    int64_t count;
} token_sums;

/* Adds up a token's written columns; the others must not have changed. */
static inline void add_token(token_sums *sums, const product_pair *p, const product_case *c, int32_t t,
                             const char *what)
{
    const op_linear_args *l = &p->host.linear;
    for (int32_t col = 0; col < l->out_stride; col++) {
        size_t i = (size_t)t * (size_t)l->out_stride + (size_t)col;
        if (!is_written(c, l, col)) {
            if (p->got[i] != p->out[i]) fail_msg("%s: token %d column %d must not be written", what, t, col);
            continue;
        }
        double want = (double)l->out[i], d = (double)p->got[i] - want;
        sums->gap += d * d;
        sums->size += want * want;
        sums->count++;
    }
}

/* No element of tokens first to last is far off. Measured against those tokens' typical element besides its own size: a sum
 * whose terms cancel keeps their errors, and where Q8_0 follows a norm, the last bit of 1/rms may move an int8 by one, which
 * a gated element that happens to be small shows whole. */
static inline void check_elements(const product_pair *p, const product_case *c, int32_t first, int32_t last,
                                  const token_sums *sums, const char *what)
{
    const op_linear_args *l = &p->host.linear;
    double bound = 40 * bound_of(c), typical = sums->count > 0 ? sqrt(sums->size / (double)sums->count) : 0;
    for (int32_t t = first; t <= last; t++)
        for (int32_t col = 0; col < l->out_stride; col++) {
            size_t i = (size_t)t * (size_t)l->out_stride + (size_t)col;
            double want = (double)l->out[i], got = (double)p->got[i];
            if (is_written(c, l, col) && !(fabs(got - want) <= bound * (typical + fabs(want))))
                fail_msg("%s: token %d column %d is %.9g, expected %.9g (typical: %.3g)", what, t, col, got,
                         want, typical);
        }
}

/* The relative error of all tokens, or, where their sizes differ, the worst token's. */
static inline double compare(const product_pair *p, const product_case *c, const char *path)
{
    double worst = 0, bound = bound_of(c);
    token_sums sums = {0};
    char what[256];
    describe(what, sizeof what, c, path);
    for (int32_t t = 0, first = 0; t < c->T; t++) {
        add_token(&sums, p, c, t, what);
        if (!c->spread && t + 1 < c->T) continue;
        check_elements(p, c, first, t, &sums, what);
        double error = sums.gap > 0 ? sqrt(sums.gap / sums.size) : 0;
        if (!(error <= bound))
            fail_msg("%s: relative error %.3g at token %d, at most %.3g is allowed", what, error, t, bound);
        worst = error > worst ? error : worst;
        sums = (token_sums){0};
        first = t + 1;
    }
    return worst;
}

static inline void run_there(product_pair *p, const product_case *c, linear_many_path path)
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
static inline double check_case(const product_case *c, uint64_t *random)
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

static const int32_t heights[] = {8, 40, 136, 1000, 33, 1};

static inline int32_t pick(uint64_t *random, int32_t n)
{
    return (int32_t)(check_random(random) % (uint64_t)n);
}

static inline product_case random_case(int32_t T, int32_t cols, uint64_t *random)
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

/* norm_linear's, from a case by chance. */
static inline void add_norm(product_case *c, uint64_t *random)
{
    c->norm = true;
    c->gather = pick(random, 2) == 0;
    c->gated = pick(random, 2) == 0;
    if (!c->gated) return;
    c->n_parts = 2;
    c->rows[1] = c->rows[0];
    c->format[1] = c->format[0];
    c->rows[2] = c->first_col = 0; /* norm_linear.h */
}

#endif
