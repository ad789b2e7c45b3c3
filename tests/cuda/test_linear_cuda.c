/* Matrix products on the GPU, alone and with the norm before them, against the reference: sizes that fill no tile,
 * one to three parts in a wider output, bias, residual, gate and up, rows picked from a list, all formats.
 *
 * A token's reference does not depend on how many tokens there are, so each product has it computed once for its
 * largest T and is then run at every T below. Each run is repeated and must give the same bits, and must leave the
 * output around the parts alone. Failures are collected: one run of the program shows them all.
 *
 * `test_linear_cuda --perf`: microseconds and GB/s of weights, 100 products in one recorded list, over enough copies of
 * the weights that the L2 cache does not serve them. */
#include "base/half.h"
#include "support/device.h"

enum { EDGE = 5, MOST_TOKENS = 100, FEW = 4 };

static const int32_t token_counts[] = {1, 2, 3, 5, 8, 9, 15, 16, 17, 33, 100};

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

static void *take(setup *s, size_t bytes)
{
    return s->memory[s->count++] = check_alloc(bytes);
}

static float *take_floats(setup *s, size_t n, float range)
{
    float *f = take(s, n * sizeof *f);
    check_fill(f, n, range, &random_state);
    return f;
}

static void fill_weight(uint8_t *to, dtype format, size_t elements, float range)
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

static void make_part(setup *s, int i, int32_t *column)
{
    const product *p = &s->p;
    size_t bytes = dtype_row_bytes(p->format[i], p->cols) * (size_t)p->rows[i];
    uint8_t *data = take(s, bytes + p->shift);
    float range = (p->gated ? 0.2f : 2.0f) / sqrtf((float)p->cols);
    fill_weight(data + p->shift, p->format[i], (size_t)p->rows[i] * (size_t)p->cols, range);
    s->host[i] = (weight){p->format[i], p->rows[i], p->cols, data + p->shift};
    s->there[i] = s->host[i];
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
static void make_norm(setup *s, int32_t in_rows)
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

static int64_t weights_of(const product *p)
{
    int64_t size = 0;
    for (int i = 0; i < p->n_parts; i++) size += (int64_t)p->rows[i] * p->cols;
    return size;
}

static void make_setup(setup *s, const product *p)
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

static void free_setup(setup *s)
{
    while (s->count > 0) free(s->memory[--s->count]);
    device_release(&gpu);
}

/* ---- What is expected ---------------------------------------------------------------------------------------- */

/* As the reference, but with in * norm rounded to bf16 before 1/rms is applied: what a kernel does that has the sum of
 * squares only at the end. It differs from the reference by rounding, and a kernel must be close to one of the two. */
static void norm_linear_rounded_first(setup *s, int32_t t)
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

static void expect(setup *s)
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

static const char *describe(const product *p, int32_t T)
{
    static char text[300];
    int n =
        snprintf(text, sizeof text, "%s T %d cols %d rows", p->norm ? "norm_linear" : "linear", T, p->cols);
    for (int i = 0; i < p->n_parts; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %d %s", p->rows[i], dtype_name(p->format[i]));
    snprintf(text + n, sizeof text - (size_t)n, "%s%s%s%s, in + %d, weights + %zu", p->bias ? ", bias" : "",
             p->accumulate ? ", accumulate" : "", p->gated ? ", gated" : "", p->by_row ? ", by row" : "",
             p->in_pad, p->shift);
    return text;
}

static void report(const product *p, int32_t T, const char *what)
{
    if (++failures <= 40) printf("FAILED %s: %s\n", describe(p, T), what);
}

/* Relative to the size of T typical tokens, so that a lone sum that happens to cancel is no failure. */
static double error_of(const setup *s, const float *want, int32_t part, int32_t T, int64_t *worst)
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

static void check_part(const setup *s, int part, int32_t T, double bound, double nearer_bound)
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
static void check_edges(const setup *s, int32_t T)
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

static void run(const setup *s, int32_t T, float *got)
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

static double bound_of(const product *p, int part, int32_t T)
{
    double roundings = device_is_emulated(&gpu) ? 18e-3 : 6e-3; /* over few tokens one input's is seen */
    if (p->norm) return roundings; /* so far apart are the two; the nearer must be nearer */
    if (p->format[part] == DTYPE_Q8_0) return 1e-4;
    return T > FEW || p->cols > 4096 ? 1e-4 : 2e-5; /* long sums on tensor cores, which cut low bits off */
}

static void check_product(const product *p)
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
            check_part(&s, part, T, bound_of(p, part, T), p->norm ? 5e-4 : 1);
        check_edges(&s, T);
        if (memcmp(s.got, s.again, (size_t)(T + 1) * (size_t)s.on_host.linear.out_stride * sizeof(float)) !=
            0)
            report(p, T, "a second run gave other bits");
    }
    free_setup(&s);
}

static void no_failures(void)
{
    if (failures > 40) printf("... and %d more\n", failures - 40);
    int found = failures;
    failures = 0;
    if (found > 0) fail_msg("%d comparisons failed", found);
}

/* ---- op linear ----------------------------------------------------------------------------------------------- */

static void linear_bf16_of_every_shape_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t rows[] = {1, 7, 8, 9, 40, 136, 1000, 4096};
    const int32_t cols[] = {8, 24, 64, 128, 136, 1000, 1024, 1032, 3072, 14336};
    int variant = 0;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
            if ((int64_t)rows[r] * cols[c] > 4300000 || device_leaves_out(&gpu, r + c)) continue;
            variant++;
            check_product(&(product){.cols = cols[c],
                                     .n_parts = 1,
                                     .rows = {rows[r]},
                                     .format = {DTYPE_BF16},
                                     .bias = variant % 2 == 0,
                                     .accumulate = variant % 3 == 0,
                                     .in_pad = variant % 5 == 0 ? 4 : 0});
        }
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
    int variant = 0;
    for (int format = 0; format < DTYPE_COUNT; format++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (size_t c = 0; c < sizeof cols / sizeof *cols; c++, variant++) {
                if (cols[c] % dtype_block((dtype)format) != 0 ||
                    device_leaves_out(&gpu, (size_t)format + r + c))
                    continue;
                check_product(&(product){.cols = cols[c],
                                         .n_parts = 1,
                                         .rows = {rows[r]},
                                         .format = {(dtype)format},
                                         .bias = variant % 2 == 0,
                                         .accumulate = variant % 3 == 0});
            }
    no_failures();
}

/* Rows that a warp streams in whole and broken stages, several rows per warp; a part whose rows begin at odd places. */
static void linear_of_rows_in_stages_is_close_to_the_reference(void **state)
{
    (void)state;
    const dtype formats[] = {DTYPE_Q8_0, DTYPE_F16, DTYPE_F32};
    const int32_t cols[] = {256, 1280, 2304};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            check_product(&(product){.cols = cols[c],
                                     .n_parts = 2,
                                     .rows = {device_size(&gpu, 3001, 45), 33},
                                     .format = {formats[f], formats[f]},
                                     .bias = c == 1,
                                     .accumulate = c == 2});
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

/* ---- op norm_linear ------------------------------------------------------------------------------------------ */

static void norm_linear_of_every_shape_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t rows[] = {1, 8, 9, 136, 1000},
                  cols[] = {8, 24, 64, 128, 136, 1000, 1024, 1032, 3072, 14336};
    int variant = 0;
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
            if ((int64_t)rows[r] * cols[c] > 2200000 || device_leaves_out(&gpu, r + c)) continue;
            variant++;
            check_product(&(product){.cols = cols[c],
                                     .n_parts = 1,
                                     .rows = {rows[r]},
                                     .format = {DTYPE_BF16},
                                     .norm = true,
                                     .bias = variant % 2 == 0,
                                     .by_row = variant % 3 == 0,
                                     .in_pad = variant % 5 == 0 ? 8 : 0});
        }
    no_failures();
}

static void norm_linear_gated_is_silu_of_gate_times_up(void **state)
{
    (void)state;
    const int32_t shape[][2] = {{1, 8},      {7, 24},      {8, 64},    {9, 128},     {40, 136},   {136, 1032},
                                {1056, 896}, {1000, 1000}, {4, 14336}, {1536, 1024}, {136, 3072}, {65, 4096}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        check_product(&(product){.cols = shape[i][1],
                                 .n_parts = 2,
                                 .rows = {shape[i][0], shape[i][0]},
                                 .format = {DTYPE_BF16, DTYPE_BF16},
                                 .norm = true,
                                 .gated = true,
                                 .bias = i % 3 == 1,
                                 .by_row = i % 4 == 2});
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

static void perf_one(const perf_shape *shape, int32_t *key)
{
    static weight copies[256];
    int parts = shape->gated ? 2 : 1;
    size_t bytes = (size_t)shape->rows * (size_t)shape->cols * 2;
    int n = (int)(COPIES_BYTES / (bytes * (size_t)parts)) + 1;
    if (n > CALLS) n = CALLS;
    uint16_t *data = check_alloc(bytes);
    uint32_t random = 1;
    for (size_t i = 0; i < bytes / 2; i++) { /* 2^-5 .. 2^-4 and as much below zero */
        random = random * 1664525u + 1013904223u;
        data[i] = (uint16_t)(0x3d00u | (random >> 31 << 15) | (random >> 20 & 0x7fu));
    }
    for (int i = 0; i < n * parts; i++)
        copies[i] = (weight){DTYPE_BF16, shape->rows, shape->cols, device_copy(&gpu, data, bytes)};
    for (int32_t T = 1; T <= 16; T = T == 1 ? 4 : T * 2) {
        double seconds = time_calls(shape, T, copies, n, ++*key);
        printf("%-12s %6d x %-5d T %2d  %8.2f us  %6.0f GB/s\n", shape->name, shape->rows * parts,
               shape->cols, T, seconds * 1e6, (double)bytes * parts / seconds / 1e9);
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
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) perf_one(&shapes[i], &key);
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
        cmocka_unit_test(linear_of_odd_strides_and_addresses_reads_the_right_elements),
        cmocka_unit_test(linear_of_a_token_is_the_same_bits_among_few_others),
        cmocka_unit_test(norm_linear_of_every_shape_is_close_to_the_reference),
        cmocka_unit_test(norm_linear_gated_is_silu_of_gate_times_up),
        cmocka_unit_test(norm_linear_of_parts_writes_each_to_its_columns),
    };
    const backend_shape shape = {.max_tokens = MOST_TOKENS,
                                 .max_logits = MOST_TOKENS,
                                 .widest_input = 14336,
                                 .max_rows = MOST_TOKENS,
                                 .H = 32,
                                 .C = 128,
                                 .F = 14336,
                                 .V = 4096,
                                 .max_context = 256};
    if (!device_open(&gpu)) return 77;
    device_reserve(&gpu, &shape);
    int failed =
        argc > 1 && strcmp(argv[1], "--perf") == 0 ? perf() : cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
