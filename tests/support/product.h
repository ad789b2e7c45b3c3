/* A product on the GPU, alone or with the norm before it, against the reference: at every number of tokens.
 *
 * A token's reference does not depend on how many tokens there are, so each product has it computed once for its
 * largest T and is then run at every T below. Each run is repeated and must give the same bits, and must leave the
 * output around the parts alone. Failures are collected: no_failures() ends a test, and one run of the program shows all. */
#ifndef NVLLM_TEST_PRODUCT_H
#define NVLLM_TEST_PRODUCT_H

#include "base/half.h"
#include "support/device.h"

enum { EDGE = 5, MOST_TOKENS = 100, FEW = 4 };

static const int32_t token_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 100};

static device gpu;
static int failures;
static uint64_t random_state = 1;

/* Where the GPU is played products have fewer weights, and larger ones fewer tokens. */
enum { EMULATED_WEIGHTS = 150000, EMULATED_SMALL = 20000 };

typedef struct {
    int32_t cols, n_parts, rows[LINEAR_MAX_PARTS];
    dtype format[LINEAR_MAX_PARTS];
    bool bias, accumulate;
    bool norm, gated, by_row; /* op norm_linear */
    int32_t in_pad;           /* elements between the inputs of two tokens */
    size_t shift;             /* bytes by which the weights miss the allocation's alignment */
    bool as_stored;           /* rows of Q8_0 follow each other there, too */
} product;

typedef struct {
    product p;
    weight host[LINEAR_MAX_PARTS], there[LINEAR_MAX_PARTS];
    float *before, *want, *rounded_first; /* outputs: [tokens + 1, out_stride] */
    float *got, *again;
    op_norm_linear_args on_host, on_gpu; /* for op linear only .linear is used */
    int32_t tokens;
    void *memory[32];
    int count;
} setup;

/* ---- Making a product ---------------------------------------------------------------------------------------- */

static inline void *take(setup *s, size_t bytes)
{
    return s->memory[s->count++] = check_alloc(bytes);
}

static inline float *take_floats(setup *s, size_t n, float range)
{
    float *f = take(s, n * sizeof *f);
    check_fill(f, n, range, &random_state);
    return f;
}

static inline void fill_weight(uint8_t *to, dtype format, size_t elements, float range)
{
    for (size_t i = 0; i < elements; i++) {
        float f = check_uniform(&random_state, range);
        uint16_t half = format == DTYPE_F16 ? f16_from_float(f) : bf16_from_float(f);
        if (format == DTYPE_F32) memcpy(to + 4 * i, &f, 4);
        if (format == DTYPE_F16 || format == DTYPE_BF16) memcpy(to + 2 * i, &half, 2);
        if (format != DTYPE_Q8_0) continue;
        uint8_t *block = to + i / Q8_0_BLOCK * Q8_0_BLOCK_BYTES;
        uint16_t scale = f16_from_float(range / 127.0f * (float)(1 + i / Q8_0_BLOCK % 3));
        if (i % Q8_0_BLOCK == 0) memcpy(block, &scale, 2);
        block[2 + i % Q8_0_BLOCK] = (uint8_t)(int8_t)(i % 61 == 0 ? -128 : (int)(127.0f * f / range));
    }
}

static inline void make_part(setup *s, int i, int32_t *column)
{
    const product *p = &s->p;
    size_t bytes = dtype_row_bytes(p->format[i], p->cols) * (size_t)p->rows[i];
    uint8_t *data = take(s, bytes + p->shift);
    float range = (p->gated ? 0.2f : 2.0f) / sqrtf((float)p->cols);
    fill_weight(data + p->shift, p->format[i], (size_t)p->rows[i] * (size_t)p->cols, range);
    s->host[i] = (weight){p->format[i], p->rows[i], p->cols, data + p->shift, 0};
    s->there[i] = s->host[i];
    if (p->shift == 0 && !p->as_stored)
        s->there[i] = device_weight(&gpu, &s->host[i]);
    else
        s->there[i].data = (uint8_t *)device_copy(&gpu, data, bytes + p->shift) + p->shift;
    linear_part *here = &s->on_host.linear.part[i], *there = &s->on_gpu.linear.part[i];
    *here = (linear_part){.w = &s->host[i], .out_col = p->gated ? 0 : *column};
    if (p->bias) here->bias = take_floats(s, (size_t)p->rows[i], 0.5f);
    *there = *here;
    there->w = &s->there[i];
    if (p->bias) there->bias = device_copy(&gpu, here->bias, (size_t)p->rows[i] * sizeof(float));
    *column += p->rows[i] + EDGE;
}

/* Norm weights of 96.5, as in Qwen3's K norm, where there are columns enough that no single one decides the sum. */
static inline void make_norm(setup *s, int32_t in_rows)
{
    const product *p = &s->p;
    float *norm = take_floats(s, (size_t)p->cols, 0.5f);
    int32_t *row = take(s, (size_t)s->tokens * sizeof *row);
    for (int32_t k = 0; k < p->cols; k++) norm[k] = p->cols > 256 && k % 37 == 5 ? 96.5f : 1.0f + norm[k];
    for (int32_t t = 0; t < s->tokens; t++) row[t] = (t * 7 + 3) % in_rows;
    s->on_host.norm = norm;
    s->on_host.eps = 1e-6f;
    s->on_host.gated = p->gated;
    s->on_host.row = p->by_row ? row : NULL;
    s->on_gpu.norm = device_copy(&gpu, norm, (size_t)p->cols * sizeof *norm);
    s->on_gpu.eps = 1e-6f;
    s->on_gpu.gated = p->gated;
    s->on_gpu.row = p->by_row ? device_copy(&gpu, row, (size_t)s->tokens * sizeof *row) : NULL;
}

static inline int64_t weights_of(const product *p)
{
    int64_t size = 0;
    for (int i = 0; i < p->n_parts; i++) size += (int64_t)p->rows[i] * p->cols;
    return size;
}

static inline void make_setup(setup *s, const product *p)
{
    int64_t size = weights_of(p);
    bool emulated = device_is_emulated(&gpu);
    *s = (setup){.p = *p};
    s->tokens = emulated ? (size <= EMULATED_SMALL ? 33 : 17)
                         : (size <= 200000    ? MOST_TOKENS
                            : size <= 1100000 ? 33
                                              : 17);
    int32_t in_rows = s->tokens + (p->by_row ? 3 : 0), in_stride = p->cols + p->in_pad;
    int32_t column = p->gated ? 0 : EDGE;
    for (int i = 0; i < p->n_parts; i++) make_part(s, i, &column);
    if (p->gated) column = p->rows[0] + EDGE;
    size_t ins = (size_t)in_rows * (size_t)in_stride, outs = (size_t)(s->tokens + 1) * (size_t)column;
    float *in = take_floats(s, ins, 3.0f);
    s->before = take_floats(s, outs, 1.0f);
    if (!p->accumulate)
        for (size_t i = 0; i < outs; i++) s->before[i] = NAN;
    s->want = take(s, outs * sizeof(float));
    s->rounded_first = take(s, outs * sizeof(float));
    s->got = take(s, outs * sizeof(float));
    s->again = take(s, outs * sizeof(float));
    op_linear_args *here = &s->on_host.linear, *there = &s->on_gpu.linear;
    here->out = s->want;
    here->in = in;
    there->out = device_alloc(&gpu, outs * sizeof(float));
    there->in = device_copy(&gpu, in, ins * sizeof(float));
    here->out_stride = there->out_stride = column;
    here->in_stride = there->in_stride = in_stride;
    here->n_parts = there->n_parts = p->n_parts;
    here->accumulate = there->accumulate = p->accumulate;
    here->T = s->tokens;
    if (p->norm) make_norm(s, in_rows);
}

static inline void free_setup(setup *s)
{
    while (s->count > 0) free(s->memory[--s->count]);
    device_release(&gpu);
}

/* ---- What is expected ---------------------------------------------------------------------------------------- */

/* As the reference, but with in * norm rounded to bf16 before 1/rms is applied: what a kernel does that has the sum of
 * squares only at the end. It differs from the reference by rounding, and a kernel must be close to one of the two. */
static inline void norm_linear_rounded_first(setup *s, int32_t t)
{
    const op_norm_linear_args *a = &s->on_host;
    int32_t cols = s->p.cols, width = 0;
    for (int i = 0; i < s->p.n_parts; i++) width += s->p.rows[i];
    const float *in = a->linear.in + (size_t)(a->row ? a->row[t] : t) * (size_t)a->linear.in_stride;
    float *weighted = check_alloc((size_t)cols * sizeof *weighted);
    float *sums = check_alloc((size_t)width * sizeof *sums);
    float *out = s->rounded_first + (size_t)t * (size_t)a->linear.out_stride;
    double squares = 0;
    for (int32_t k = 0; k < cols; k++) squares += (double)in[k] * in[k], weighted[k] = in[k] * a->norm[k];
    double scale = 1.0 / sqrt(squares / cols + (double)a->eps);
    op_linear_args l = a->linear;
    l.in = weighted;
    l.out = sums;
    l.T = 1;
    for (int i = 0, at = 0; i < l.n_parts; at += s->p.rows[i++])
        l.part[i].bias = NULL, l.part[i].out_col = at;
    op_linear_ref(&l);
    for (int i = 0, at = 0; i < l.n_parts; at += s->p.rows[i++])
        for (int32_t n = 0; n < s->p.rows[i]; n++) {
            double bias = a->linear.part[i].bias ? a->linear.part[i].bias[n] : 0,
                   v = scale * sums[at + n] + bias;
            float *to = out + a->linear.part[i].out_col + n;
            if (!a->gated || i == 1)
                *to = (float)(a->gated ? *to * v : v);
            else
                *to = (float)(v / (1.0 + exp(-v)));
        }
    free(weighted);
    free(sums);
}

static inline void expect(setup *s)
{
    size_t bytes = (size_t)(s->tokens + 1) * (size_t)s->on_host.linear.out_stride * sizeof(float);
    memcpy(s->want, s->before, bytes);
    if (!s->p.norm) {
        op_linear_ref(&s->on_host.linear);
        return;
    }
    op_norm_linear_ref(&s->on_host);
    for (int32_t t = 0; t < s->tokens; t++) norm_linear_rounded_first(s, t);
}

/* ---- Comparison ---------------------------------------------------------------------------------------------- */

static inline const char *describe(const product *p, int32_t T)
{
    static char text[300];
    int n =
        snprintf(text, sizeof text, "%s T %d cols %d rows", p->norm ? "norm_linear" : "linear", T, p->cols);
    for (int i = 0; i < p->n_parts; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %d %s", p->rows[i], dtype_name(p->format[i]));
    snprintf(text + n, sizeof text - (size_t)n, "%s%s%s%s%s, in + %d, weights + %zu", p->bias ? ", bias" : "",
             p->accumulate ? ", accumulate" : "", p->gated ? ", gated" : "", p->by_row ? ", by row" : "",
             p->as_stored ? ", rows as stored" : "", p->in_pad, p->shift);
    return text;
}

static inline void report(const product *p, int32_t T, const char *what)
{
    if (++failures <= 40) printf("FAILED %s: %s\n", describe(p, T), what);
}

/* Relative to the size of T typical tokens, so that a lone sum that happens to cancel is no failure. */
static inline double error_of(const setup *s, const float *want, int32_t part, int32_t T, int64_t *worst)
{
    double gap = 0, size = 0, all = 0, most = -1;
    const linear_part *l = &s->on_host.linear.part[part];
    for (int32_t t = 0; t < s->tokens; t++)
        for (int32_t n = 0; n < l->w->rows; n++) {
            int64_t at = (int64_t)t * s->on_host.linear.out_stride + l->out_col + n;
            all += (double)want[at] * want[at];
            if (t >= T) continue;
            double d = fabs((double)s->got[at] - want[at]);
            size += (double)want[at] * want[at];
            gap += d * d;
            if (!(d <= most)) *worst = at, most = isnan(d) ? INFINITY : d;
        }
    double typical = all * T / s->tokens;
    return sqrt(gap / (typical > size ? typical : size > 0 ? size : 1));
}

static inline void check_part(const setup *s, int part, int32_t T, double bound, double nearer_bound)
{
    char what[200];
    int64_t worst = 0, other = 0;
    double error = error_of(s, s->want, part, T, &worst), nearer = error;
    if (s->p.norm) nearer = fmin(error, error_of(s, s->rounded_first, part, T, &other));
    if (error <= bound && nearer <= nearer_bound) return;
    int32_t stride = s->on_host.linear.out_stride;
    snprintf(
        what, sizeof what,
        "part %d: error %.3g (nearer rounding %.3g), at most %.3g (%.3g); worst at token %d row %d: %.9g, "
        "expected %.9g",
        part, error, nearer, bound, nearer_bound, (int)(worst / stride),
        (int)(worst % stride) - s->on_host.linear.part[part].out_col, (double)s->got[worst],
        (double)s->want[worst]);
    report(&s->p, T, what);
}

/* The columns around the parts, and the token after the last, hold what they held. */
static inline void check_edges(const setup *s, int32_t T)
{
    const op_linear_args *l = &s->on_host.linear;
    for (int32_t t = 0; t <= T; t++)
        for (int32_t n = 0; n < l->out_stride; n++) {
            bool written = false;
            for (int i = 0; i < l->n_parts; i++)
                written |= t < T && n >= l->part[i].out_col && n < l->part[i].out_col + l->part[i].w->rows;
            size_t at = (size_t)t * (size_t)l->out_stride + (size_t)n;
            if (written || float_bits(s->got[at]) == float_bits(s->before[at])) continue;
            char what[100];
            snprintf(what, sizeof what, "token %d column %d of the output was written over", t, n);
            report(&s->p, T, what);
            return;
        }
}

static inline void run(const setup *s, int32_t T, float *got)
{
    op_norm_linear_args a = s->on_gpu;
    size_t bytes = (size_t)(T + 1) * (size_t)a.linear.out_stride * sizeof(float);
    a.linear.T = T;
    assert_int_equal(gpu.backend->type->copy_in(gpu.backend, a.linear.out, s->before, bytes, NULL), NVLLM_OK);
    if (s->p.norm)
        device_run(&gpu, OP_NORM_LINEAR, &(op_args){.norm_linear = a});
    else
        device_run(&gpu, OP_LINEAR, &(op_args){.linear = a.linear});
    device_read(&gpu, got, a.linear.out, bytes);
}

static inline double bound_of(const product *p, int part, int32_t T)
{
    if (p->norm && p->format[part] != DTYPE_BF16 && p->format[part] != DTYPE_Q8_0) return 2e-5;
    double roundings = device_is_emulated(&gpu) ? 18e-3 : 6e-3; /* over few tokens one input's is seen */
    if (p->norm) return roundings; /* so far apart are the two; the nearer must be nearer */
    if (p->format[part] == DTYPE_Q8_0) return 1e-4;
    return T > FEW || p->cols > 4096 ? 1e-4 : 2e-5; /* long sums on tensor cores, which cut low bits off */
}

/* The nearer: few tokens of Q8_0 round what norm_linear_rounded_first does, and many what the reference does, but where
 * the last bit of 1/rms decides an int8. */
static inline double nearer_bound_of(const product *p, int part, int32_t T)
{
    if (!p->norm || p->format[part] != DTYPE_Q8_0) return p->norm ? 5e-4 : 1;
    return T <= FEW ? 1e-5 : 5e-4;
}

static inline void check_product(const product *p)
{
    setup s;
    if (device_is_emulated(&gpu) && weights_of(p) > EMULATED_WEIGHTS) return;
    make_setup(&s, p);
    expect(&s);
    for (size_t i = 0; i < sizeof token_counts / sizeof *token_counts && token_counts[i] <= s.tokens; i++) {
        int32_t T = token_counts[i];
        run(&s, T, s.got);
        run(&s, T, s.again);
        for (int part = 0; part < (p->gated ? 1 : p->n_parts); part++)
            check_part(&s, part, T, bound_of(p, part, T), nearer_bound_of(p, part, T));
        check_edges(&s, T);
        if (memcmp(s.got, s.again, (size_t)(T + 1) * (size_t)s.on_host.linear.out_stride * sizeof(float)) !=
            0)
            report(p, T, "a second run gave other bits");
    }
    free_setup(&s);
}

static inline void no_failures(void)
{
    if (failures > 40) printf("... and %d more\n", failures - 40);
    int found = failures;
    failures = 0;
    if (found > 0) fail_msg("%d comparisons failed", found);
}

/* All rows x cols of this format, of at most `most` weights, with variants in turn. */
static inline void check_sizes(dtype format, bool norm, int64_t most, const int32_t *rows, size_t n_rows,
                               const int32_t *cols, size_t n_cols)
{
    int variant = 0;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t c = 0; c < n_cols; c++) {
            if (cols[c] % dtype_block(format) != 0 || (int64_t)rows[r] * cols[c] > most ||
                device_leaves_out(&gpu, (size_t)format + r + c))
                continue;
            variant++;
            check_product(&(product){.cols = cols[c],
                                     .n_parts = 1,
                                     .rows = {rows[r]},
                                     .format = {format},
                                     .norm = norm,
                                     .bias = variant % 2 == 0,
                                     .accumulate = !norm && variant % 3 == 0,
                                     .by_row = norm && variant % 3 == 0,
                                     .in_pad = variant % 5 == 0 ? 4 : 0});
        }
}

/* gate and up of shape[i][0] rows and shape[i][1] columns. */
static inline void check_gates(dtype format, const int32_t (*shape)[2], size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_product(&(product){.cols = shape[i][1],
                                 .n_parts = 2,
                                 .rows = {shape[i][0], shape[i][0]},
                                 .format = {format, format},
                                 .norm = true,
                                 .gated = true,
                                 .bias = i % 3 == 1,
                                 .by_row = i % 4 == 2});
}

/* For a program's main. */
static inline void reserve_for_products(void)
{
    const backend_shape shape = {.max_tokens = MOST_TOKENS,
                                 .max_logits = MOST_TOKENS,
                                 .widest_input = 14336,
                                 .max_rows = MOST_TOKENS,
                                 .H = 32,
                                 .C = 128,
                                 .F = 14336,
                                 .V = 4096,
                                 .max_context = 256};
    device_reserve(&gpu, &shape);
}

#endif
