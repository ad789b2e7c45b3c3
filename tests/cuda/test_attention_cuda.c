/* Attention on the GPU, alone and with norm, RoPE and cache write, against the double-precision reference; --perf.
 *
 * The pools hold NaN wherever no row has a position, and dead page entries are out of range, so that reading too far
 * shows. The fused op's K may differ from the reference's by one rounding of the cache's format, which large K turn
 * into visible differences of the result: the cache is compared by itself, and then the result with the reference's
 * over the GPU's own cache. Every comparison is per token and head. Every op runs twice: what it leaves behind in
 * counters or scratch must not matter. */
#define _POSIX_C_SOURCE 200112L /* setenv */
#include "support/device.h"
#include "base/half.h"
#include "ops/attention.h"
#include "ops/rmsnorm.h"
#include "ops/rope_attention.h"

#define MAX_ROWS 160

static device gpu;

typedef struct {
    int32_t H, K, C, S, window;
    dtype format;
    int32_t R, tokens[MAX_ROWS], context[MAX_ROWS]; /* context: kv_len, this step's tokens included */
    bool fused, norm;
    rope_pairing pairing;
    float k_norm;    /* size of the weights */
    double bound;    /* 0: 2e-5 */
    int32_t max_len; /* as in op_attention_args */
} shape;

typedef struct {
    shape s;
    op_rope_attention_args host, there;
    size_t pool_bytes, q_floats, out_floats;
    float *q_before;
} fixture;

static void set_element(void *pool, dtype format, size_t i, float x)
{
    if (format == DTYPE_F32)
        ((float *)pool)[i] = x;
    else
        ((uint16_t *)pool)[i] = format == DTYPE_BF16 ? bf16_from_float(x) : f16_from_float(x);
}

static size_t position_at(const kv_layer *kv, int32_t page, int32_t k, int32_t slot)
{
    return (((size_t)page * (size_t)kv->K + (size_t)k) * (size_t)kv->S + (size_t)slot) * (size_t)kv->C;
}

static void fill_position(const fixture *f, int32_t page, int32_t slot, uint64_t *seed)
{
    const kv_layer *kv = &f->host.attention.kv;
    for (int32_t k = 0; k < kv->K; k++)
        for (int32_t c = 0; c < kv->C; c++) {
            size_t at = position_at(kv, page, k, slot) + (size_t)c;
            uint64_t random = check_random(seed); /* one for both: 32k contexts take a while */
            set_element(kv->k_pool, kv->format, at, 2 * f->s.k_norm * (float)(int32_t)random * 0x1p-31f);
            set_element(kv->v_pool, kv->format, at, (float)(int32_t)(random >> 32) * 0x1p-31f);
        }
}

/* Pages in random order. Positions of this step are left to a fused op. */
static void fill_pages(fixture *f, int32_t pages, int32_t *slot_of_token, uint64_t *seed)
{
    const shape *s = &f->s;
    int32_t *order = check_alloc((size_t)pages * sizeof *order), next = 0, P = f->host.attention.P, t = 0;
    for (int32_t i = 0; i < pages; i++) order[i] = i;
    for (int32_t i = pages - 1; i > 0; i--) {
        int32_t j = (int32_t)(check_random(seed) % (uint64_t)(i + 1)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    int32_t *table = check_alloc((size_t)s->R * (size_t)P * sizeof *table);
    for (int32_t r = 0; r < s->R; r++) {
        int32_t old = s->context[r] - s->tokens[r];
        for (int32_t p = 0; p < P; p++) {
            bool live = p * s->S < s->context[r];
            if (s->window > 0 && (p + 1) * s->S <= old + 1 - s->window) live = false; /* given back */
            int32_t page = live ? order[next++] : INT32_MAX / 2;
            table[r * P + p] = page;
            for (int32_t i = 0; live && i < s->S; i++)
                if (p * s->S + i < (s->fused ? old : s->context[r])) fill_position(f, page, i, seed);
        }
        for (int32_t j = old; j < s->context[r]; j++)
            slot_of_token[t++] = table[r * P + j / s->S] * s->S + j % s->S;
    }
    f->host.attention.pages = table;
    free(order);
}

static float *random_floats(size_t n, float middle, float range, uint64_t *seed)
{
    float *x = check_alloc(n * sizeof *x);
    check_fill(x, n, range, seed);
    for (size_t i = 0; i < n; i++) x[i] += middle;
    return x;
}

static int32_t fill_rows(fixture *f)
{
    const shape *s = &f->s;
    op_attention_args *a = &f->host.attention;
    int32_t *row_start = check_alloc((size_t)(s->R + 1) * sizeof(int32_t)), pages = 1, T = 0;
    int32_t *kv_len = check_alloc((size_t)s->R * sizeof(int32_t));
    for (int32_t r = 0; r < s->R; r++) {
        int32_t p = (s->context[r] + s->S - 1) / s->S;
        row_start[r] = T;
        kv_len[r] = s->context[r];
        T += s->tokens[r];
        pages += p;
        a->P = p > a->P ? p : a->P;
    }
    row_start[s->R] = T;
    a->row_start = row_start;
    a->kv_len = kv_len;
    a->T = T;
    a->R = s->R;
    return pages;
}

static void fill_heads(fixture *f, uint64_t *seed)
{
    const shape *s = &f->s;
    op_rope_attention_args *o = &f->host;
    op_attention_args *a = &o->attention;
    size_t T = (size_t)a->T, C = (size_t)s->C;
    a->q_stride = (s->H + 2 * s->K) * s->C + 4; /* a joint q, k, v buffer, and a gap */
    a->out_stride = s->H * s->C + 2;
    f->q_floats = T * (size_t)a->q_stride;
    f->out_floats = T * (size_t)a->out_stride;
    o->q = random_floats(f->q_floats, 0, 1, seed);
    f->q_before = check_alloc(f->q_floats * sizeof(float));
    memcpy(f->q_before, o->q, f->q_floats * sizeof(float));
    a->q = o->q;
    o->k = o->q + s->H * s->C;
    o->v = o->k + s->K * s->C;
    a->out = check_alloc(f->out_floats * sizeof(float));
    o->q_norm = s->norm ? random_floats(C, 1, 0.3f, seed) : NULL;
    o->k_norm = s->norm ? random_floats(C, s->k_norm, 0.5f * s->k_norm, seed) : NULL;
    o->eps = 1e-6f;
    o->pairing = s->pairing;
    float *cosine = check_alloc(T * C / 2 * sizeof(float)), *sine = check_alloc(T * C / 2 * sizeof(float));
    for (size_t i = 0; i < T * C / 2; i++) {
        double angle = check_uniform(seed, 3.14159f);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    o->cos = cosine;
    o->sin = sine;
}

static void upload(fixture *f)
{
    op_rope_attention_args *h = &f->host, *d = &f->there;
    op_attention_args *a = &d->attention;
    size_t C = (size_t)f->s.C, T = (size_t)a->T, R = (size_t)a->R, P = (size_t)a->P;
    *d = *h;
    a = &d->attention;
    T = (size_t)a->T, R = (size_t)a->R, P = (size_t)a->P;
    a->kv.k_pool = device_copy(&gpu, h->attention.kv.k_pool, f->pool_bytes);
    a->kv.v_pool = device_copy(&gpu, h->attention.kv.v_pool, f->pool_bytes);
    a->row_start = device_copy(&gpu, a->row_start, (R + 1) * sizeof(int32_t));
    a->kv_len = device_copy(&gpu, a->kv_len, R * sizeof(int32_t));
    a->pages = device_copy(&gpu, a->pages, R * P * sizeof(int32_t));
    a->out = device_alloc(&gpu, f->out_floats * sizeof(float));
    d->q = device_copy(&gpu, h->q, f->q_floats * sizeof(float));
    a->q = d->q;
    d->k = d->q + (h->k - h->q);
    d->v = d->q + (h->v - h->q);
    d->slot = device_copy(&gpu, h->slot, T * sizeof(int32_t));
    if (h->q_norm) d->q_norm = device_copy(&gpu, h->q_norm, C * sizeof(float));
    if (h->k_norm) d->k_norm = device_copy(&gpu, h->k_norm, C * sizeof(float));
    d->cos = device_copy(&gpu, h->cos, T * C / 2 * sizeof(float));
    d->sin = device_copy(&gpu, h->sin, T * C / 2 * sizeof(float));
}

static void reserve(const shape *s, int32_t T, int32_t context)
{
    device_reserve(&gpu, &(backend_shape){.max_tokens = T,
                                          .max_logits = s->R,
                                          .widest_input = s->H * s->C,
                                          .max_rows = s->R,
                                          .H = s->H,
                                          .C = s->C,
                                          .F = s->H * s->C,
                                          .V = 64,
                                          .max_context = context});
}

static fixture fixture_open(shape s, uint64_t seed)
{
    fixture f = {.s = s};
    op_attention_args *a = &f.host.attention;
    if (f.s.k_norm == 0) f.s.k_norm = 1;
    int32_t pages = fill_rows(&f);
    a->H = s.H;
    a->window = s.window;
    a->max_len = s.max_len;
    a->scale = 1.0f / sqrtf((float)s.C);
    f.pool_bytes = (size_t)pages * (size_t)(s.K * s.S * s.C) * dtype_block_bytes(s.format);
    a->kv = (kv_layer){check_alloc(f.pool_bytes), check_alloc(f.pool_bytes), s.format, s.K, s.S, s.C};
    memset(a->kv.k_pool, 0xff, f.pool_bytes);
    memset(a->kv.v_pool, 0xff, f.pool_bytes);
    int32_t *slot = check_alloc((size_t)a->T * sizeof *slot);
    fill_pages(&f, pages, slot, &seed);
    f.host.slot = slot;
    fill_heads(&f, &seed);
    reserve(&s, a->T, a->P * s.S);
    upload(&f);
    return f;
}

static void fixture_close(fixture *f)
{
    op_rope_attention_args *h = &f->host;
    const void *all[] = {h->attention.kv.k_pool,
                         h->attention.kv.v_pool,
                         h->attention.row_start,
                         h->attention.kv_len,
                         h->attention.pages,
                         h->attention.out,
                         h->q,
                         f->q_before,
                         h->slot,
                         h->q_norm,
                         h->k_norm,
                         h->cos,
                         h->sin};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free((void *)(uintptr_t)all[i]);
    device_release(&gpu);
}

static void describe(char *what, size_t size, const shape *s)
{
    int n = snprintf(what, size, "%s H=%d K=%d C=%d S=%d window=%d max_len=%d %s%s%s R=%d tokens/context",
                     s->fused ? "rope_attention" : "attention", s->H, s->K, s->C, s->S, s->window, s->max_len,
                     dtype_name(s->format), s->norm ? " norm" : "", s->pairing == ROPE_PAIRS ? " pairs" : "",
                     s->R);
    for (int32_t r = 0; r < s->R && r < 6; r++)
        n += snprintf(what + n, size - (size_t)n, " %d/%d", s->tokens[r], s->context[r]);
}

/* Bytes equal (NaN too), or a number within one step of the format. */
static void check_cache(const fixture *f, const void *got, const void *want, const char *which,
                        const char *what)
{
    dtype format = f->s.format;
    size_t size = dtype_block_bytes(format);
    double step = format == DTYPE_F32 ? 2e-6 : format == DTYPE_BF16 ? 0x1p-7 : 0x1p-10;
    for (size_t i = 0; i < f->pool_bytes / size; i++) {
        const char *a = (const char *)got + i * size, *b = (const char *)want + i * size;
        float x, y;
        if (memcmp(a, b, size) == 0) continue;
        dtype_to_float(&x, a, format, 1);
        dtype_to_float(&y, b, format, 1);
        if (fabs((double)x - (double)y) <= step * fabs((double)y) + 1e-5 * (double)f->s.k_norm) continue;
        size_t row = i / (size_t)f->s.C;
        fail_msg("%s: %s cache, page %zu head %zu slot %zu channel %zu is %g, expected %g", what, which,
                 row / (size_t)(f->s.K * f->s.S), row / (size_t)f->s.S % (size_t)f->s.K, row % (size_t)f->s.S,
                 i % (size_t)f->s.C, (double)x, (double)y);
    }
}

static void check_out(const fixture *f, const float *got, const char *what)
{
    const op_attention_args *a = &f->host.attention;
    double bound = f->s.bound > 0 ? f->s.bound : 2e-5;
    char where[400];
    for (int32_t t = 0; t < a->T; t++)
        for (int32_t h = 0; h < a->H; h++) {
            size_t at = (size_t)t * (size_t)a->out_stride + (size_t)(h * f->s.C);
            snprintf(where, sizeof where, "%s: token %d head %d", what, t, h);
            device_check(got + at, a->out + at, (size_t)f->s.C, bound, where);
        }
}

static void run_on_gpu(fixture *f, float *out)
{
    if (gpu.backend->type->copy_in(gpu.backend, f->there.q, f->q_before, f->q_floats * sizeof(float), NULL))
        fail_msg("copying q failed");
    if (f->s.fused)
        device_run(&gpu, OP_ROPE_ATTENTION, &(op_args){.rope_attention = f->there});
    else
        device_run(&gpu, OP_ATTENTION, &(op_args){.attention = f->there.attention});
    device_read(&gpu, out, f->there.attention.out, f->out_floats * sizeof(float));
}

static void compare(shape s)
{
    char what[300];
    describe(what, sizeof what, &s);
    fixture f = fixture_open(s, 77);
    op_attention_args *a = &f.host.attention;
    float *out = check_alloc(f.out_floats * sizeof(float)),
          *again = check_alloc(f.out_floats * sizeof(float));
    run_on_gpu(&f, out);
    if (s.fused) {
        void *k = check_alloc(f.pool_bytes), *v = check_alloc(f.pool_bytes);
        op_rope_attention_ref(&f.host);
        device_read(&gpu, k, f.there.attention.kv.k_pool, f.pool_bytes);
        device_read(&gpu, v, f.there.attention.kv.v_pool, f.pool_bytes);
        check_cache(&f, k, a->kv.k_pool, "K", what);
        check_cache(&f, v, a->kv.v_pool, "V", what);
        memcpy(a->kv.k_pool, k, f.pool_bytes);
        memcpy(a->kv.v_pool, v, f.pool_bytes);
        free(k);
        free(v);
    }
    op_attention_ref(a);
    check_out(&f, out, what);
    run_on_gpu(&f, again);
    for (int32_t t = 0; t < a->T; t++) {
        size_t at = (size_t)t * (size_t)a->out_stride;
        if (memcmp(out + at, again + at, (size_t)(s.H * s.C) * sizeof(float)))
            fail_msg("%s: token %d differs in the second run", what, t);
    }
    free(out);
    free(again);
    fixture_close(&f);
}

/* Alone, and fused with and without norm. */
static void compare_both(shape s)
{
    compare(s);
    s.fused = true;
    compare(s);
    s.norm = true;
    s.pairing = s.pairing == ROPE_PAIRS ? ROPE_HALVES : ROPE_PAIRS;
    compare(s);
}

static const shape qwen = {
    .H = 16, .K = 8, .C = 128, .S = 64, .format = DTYPE_BF16, .R = 1, .tokens = {1}, .context = {100}};

static void single_tokens_at_many_contexts_match_reference(void **state)
{
    (void)state;
    static const int32_t contexts[] = {1,   2,   63,  64,   65,   128,  129, 255,
                                       256, 257, 511, 1000, 2113, 4096, 4097};
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        shape s = qwen;
        if (contexts[i] > device_size(&gpu, 4097, 257)) break;
        s.context[0] = contexts[i];
        compare_both(s);
    }
}

/* 64, 128, 256, ..: what a host that records a step per bucket takes for max_len. */
static int32_t bucket_of(int32_t context)
{
    int32_t bucket = 64;
    while (bucket < context) bucket *= 2;
    return bucket;
}

/* With max_len 512 a short row has 1 to 8 splits, with 2048 and 4096 up to 16. */
static void every_number_of_splits_matches_reference(void **state)
{
    (void)state;
    static const int32_t longest[] = {64, 128, 256, 512, 1024, 2048, 4096, 8192};
    for (size_t i = 0; i < sizeof longest / sizeof *longest; i++)
        for (int32_t part = 1; part <= 8; part++) {
            shape s = qwen;
            if (longest[i] > device_size(&gpu, 8192, 1024) || device_leaves_out(&gpu, i + (size_t)part))
                continue;
            s.max_len = longest[i];
            s.context[0] = longest[i] * part / 8 - (part & 1);
            compare_both(s);
        }
}

static void buckets_of_other_shapes_match_reference(void **state)
{
    (void)state;
    static const int32_t shapes[][3] = {{8, 8, 64}, {8, 2, 64},  {16, 2, 128}, {14, 2, 64}, {9, 1, 128},
                                        {4, 4, 96}, {4, 1, 256}, {3, 1, 22},   {2, 2, 250}, {8, 1, 128}};
    static const int32_t contexts[][3] = {{60, 3, 64}, {130, 256, 1}, {500, 70, 400}, {1500, 2040, 129}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t n = 0; n < sizeof contexts / sizeof *contexts; n++)
            for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++) {
                shape s = {.H = shapes[i][0],
                           .K = shapes[i][1],
                           .C = shapes[i][2],
                           .S = n == 1 ? 48 : 64,
                           .format = format,
                           .R = 3,
                           .tokens = {1, 1, 1}};
                if (contexts[n][0] > device_size(&gpu, 1500, 130) || device_leaves_out(&gpu, i + n + format))
                    continue;
                memcpy(s.context, contexts[n], sizeof contexts[n]);
                for (int r = 0; r < 3; r++)
                    if (bucket_of(s.context[r]) > s.max_len) s.max_len = bucket_of(s.context[r]);
                compare_both(s);
                s.window = 100;
                compare(s);
            }
}

/* Blocks have 1, 2, 4 or 8 heads, the fewer the shorter max_len is: all of them on 32 multiprocessors and on 132. */
static void heads_over_more_blocks_match_reference(void **state)
{
    (void)state;
    static const int32_t heads[][2] = {{3, 1}, {7, 1}, {9, 1}, {16, 2}, {32, 4}};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (int32_t max_len = 64; max_len <= 4096; max_len *= 2)
            for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++) {
                shape s = qwen;
                if (device_leaves_out(&gpu, h + (size_t)max_len / 64 + format)) continue;
                s.H = heads[h][0], s.K = heads[h][1], s.C = 64;
                s.format = format;
                s.max_len = max_len;
                s.context[0] = device_size(&gpu, max_len - 1, 63);
                compare_both(s);
            }
}

static void single_token_at_32k_matches_reference(void **state)
{
    (void)state;
    shape s = qwen;
    s.context[0] = device_size(&gpu, 32768, 3000);
    s.max_len = 32768;
    s.bound = 5e-5;
    compare_both(s);
    s.H = 4, s.K = 1, s.C = 64, s.S = 16;
    s.context[0] = device_size(&gpu, 32767, 2999);
    compare_both(s);
}

static void every_head_shape_and_format_matches_reference(void **state)
{
    (void)state;
    static const int32_t dims[] = {16, 22, 48, 64, 80, 96, 128, 192, 250, 256};
    static const int32_t heads[][2] = {{2, 2}, {4, 2}, {3, 1}, {8, 2}, {14, 2}, {8, 1}, {16, 1}, {9, 1}};
    for (size_t c = 0; c < sizeof dims / sizeof *dims; c++)
        for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
            for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++) {
                shape s = {
                    .H = heads[h][0], .K = heads[h][1], .C = dims[c], .S = 64, .format = format, .R = 2};
                if (device_leaves_out(&gpu, c + h + format)) continue;
                s.tokens[0] = s.tokens[1] = 1;
                s.context[0] = device_size(&gpu, 200, 70);
                s.context[1] = 33;
                compare_both(s);
            }
}

static void rows_of_mixed_lengths_and_any_page_size_match_reference(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 5, 16, 32, 64, 96, 128, 256};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++) {
            shape s = {.H = 4,
                       .K = 2,
                       .C = 64,
                       .S = sizes[i],
                       .format = format,
                       .R = 6,
                       .tokens = {1, 1, 1, 1, 1, 1},
                       .context = {device_size(&gpu, 300, 70), 1, 64, device_size(&gpu, 1500, 200), 129, 2}};
            for (s.C = 64; s.C <= 256; s.C *= 2)
                if (!device_leaves_out(&gpu, i + format + (size_t)s.C / 64)) compare_both(s);
        }
}

static void many_rows_match_reference(void **state)
{
    (void)state;
    static const int32_t counts[] = {8, 32, 128};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        shape s = qwen;
        if (device_is_emulated(&gpu) && counts[i] > 8) break;
        s.R = counts[i];
        for (int32_t r = 0; r < s.R; r++) {
            s.tokens[r] = 1;
            s.context[r] = 1 + r * 37 % 400;
        }
        compare_both(s);
        s.max_len = 512;
        compare_both(s);
    }
}

static void window_hides_what_is_before_it(void **state)
{
    (void)state;
    static const int32_t windows[] = {1, 7, 63, 64, 65, 200, 1024};
    static const int32_t sizes[] = {64, 32, 5};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
        for (size_t p = 0; p < sizeof sizes / sizeof *sizes; p++) {
            shape s = {.H = 8,
                       .K = 2,
                       .C = p == 1 ? 256 : 128,
                       .S = sizes[p],
                       .window = windows[i],
                       .format = DTYPE_BF16,
                       .R = 4,
                       .tokens = {1, 1, 1, 1},
                       .context = {device_size(&gpu, 1000, 265), 3, device_size(&gpu, 2050, 514), 64}};
            if (!device_leaves_out(&gpu, i + p)) compare_both(s);
        }
}

static void large_k_norms_match_reference(void **state)
{
    (void)state;
    for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++)
        for (int pairing = 0; pairing < 2; pairing++) {
            shape s = qwen;
            s.format = format;
            s.R = 3;
            s.tokens[1] = s.tokens[2] = 1;
            s.context[1] = 1;
            s.context[2] = 700;
            s.fused = s.norm = true;
            s.k_norm = 96.5f;
            s.pairing = (rope_pairing)pairing;
            s.bound = 1e-3;
            compare(s);
        }
}

/* Rows of many tokens stand beside rows of one: prompts may be done on tensor cores, in which case weights and q are
 * rounded to 16 bits. */
static void prompts_beside_single_tokens_match_reference(void **state)
{
    (void)state;
    for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++)
        for (int32_t window = 0; window <= 40; window += 40) {
            int32_t long_one = device_size(&gpu, 100, 17);
            shape s = {
                .H = 8,
                .K = 2,
                .C = 64,
                .S = 64,
                .window = window,
                .format = format,
                .R = 6,
                .tokens = {device_size(&gpu, 40, 3), 1, 1, 2, long_one, 1},
                .context = {device_size(&gpu, 300, 100), device_size(&gpu, 513, 257), 1, 31, long_one, 77}};
            s.bound = format == DTYPE_F32 ? 0 : 1e-2;
            compare_both(s);
            s.C = 22;
            s.bound = 0;
            compare_both(s);
        }
}

static void empty_rows_beside_single_tokens_are_left_alone(void **state)
{
    (void)state;
    shape s = qwen;
    s.R = 4;
    s.tokens[0] = 0;
    s.context[0] = 0;
    s.tokens[1] = 1;
    s.context[1] = 70;
    s.tokens[2] = 1;
    s.context[2] = 300;
    s.tokens[3] = 0;
    s.context[3] = 0;
    compare_both(s);
}

/* ---- Speed --------------------------------------------------------------------------------------------------- */

#define PERF_CACHE ((size_t)512 << 20) /* pools in turn, so that the L2 cache holds few of them */
#define PERF_OPS   224

/* A recorded list of ops on several copies of the pools, as layers are; per op. */
static void perf(int32_t R, int32_t context, bool fused, int32_t key)
{
    shape s = qwen;
    nvllm_error err = {0};
    s.R = R;
    s.fused = fused;
    s.norm = true;
    for (int32_t r = 0; r < R; r++) {
        s.tokens[r] = 1;
        s.context[r] = context;
    }
    s.max_len = bucket_of(context);
    fixture f = fixture_open(s, 5);
    const backend_type *type = gpu.backend->type;
    float *out = check_alloc(f.out_floats * sizeof(float));
    size_t copies = PERF_CACHE / (2 * f.pool_bytes);
    copies = copies < 1 ? 1 : copies > 112 ? 112 : copies;
    op_rope_attention_args one[112];
    for (size_t i = 0; i < copies; i++) {
        one[i] = f.there;
        if (i == 0) continue;
        one[i].attention.kv.k_pool = device_copy(&gpu, f.host.attention.kv.k_pool, f.pool_bytes);
        one[i].attention.kv.v_pool = device_copy(&gpu, f.host.attention.kv.v_pool, f.pool_bytes);
    }
    device_read(&gpu, out, f.there.attention.out, f.out_floats * sizeof(float));
    type->record(gpu.backend);
    for (size_t i = 0; i < PERF_OPS; i++) {
        if (fused)
            device_run(&gpu, OP_ROPE_ATTENTION, &(op_args){.rope_attention = one[i % copies]});
        else
            device_run(&gpu, OP_ATTENTION, &(op_args){.attention = one[i % copies].attention});
    }
    if (type->record_end(gpu.backend, key, &err)) fail_msg("%s", err.message);
    double best = 1e9;
    for (int i = 0; i < 12; i++) {
        double start = check_seconds();
        int replays = 5;
        for (int n = 0; n < replays; n++) assert_true(type->replay(gpu.backend, key));
        device_read(&gpu, out, f.there.attention.out, sizeof(float));
        double took = (check_seconds() - start) / replays / PERF_OPS;
        best = took < best ? took : best;
    }
    double bytes = 2.0 * R * context * s.K * s.C * 2;
    printf("%-14s batch %3d  context %5d  %8.2f us  %7.1f GB/s\n", fused ? "rope_attention" : "attention", R,
           context, best * 1e6, bytes / best * 1e-9);
    fflush(stdout);
    free(out);
    fixture_close(&f);
}

static void perf_all(void **state)
{
    (void)state;
    static const int32_t shapes[][2] = {{1, 1},     {1, 64},   {1, 128},  {1, 200},  {1, 256},
                                        {1, 512},   {1, 1024}, {1, 2048}, {1, 4096}, {1, 8192},
                                        {1, 32768}, {8, 512},  {32, 512}, {128, 512}};
    int32_t key = 1;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int fused = 0; fused < 2; fused++) perf(shapes[i][0], shapes[i][1], fused, key++);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest speed[] = {cmocka_unit_test(perf_all)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_tokens_at_many_contexts_match_reference),
        cmocka_unit_test(every_number_of_splits_matches_reference),
        cmocka_unit_test(buckets_of_other_shapes_match_reference),
        cmocka_unit_test(heads_over_more_blocks_match_reference),
        cmocka_unit_test(every_head_shape_and_format_matches_reference),
        cmocka_unit_test(rows_of_mixed_lengths_and_any_page_size_match_reference),
        cmocka_unit_test(many_rows_match_reference),
        cmocka_unit_test(window_hides_what_is_before_it),
        cmocka_unit_test(large_k_norms_match_reference),
        cmocka_unit_test(empty_rows_beside_single_tokens_are_left_alone),
        cmocka_unit_test(prompts_beside_single_tokens_match_reference),
        cmocka_unit_test(single_token_at_32k_matches_reference),
    };
    setenv("NVLLM_EMULATOR", "multiprocessors=32", 0); /* of that card alone: enough for many splits */
    if (!device_open(&gpu)) return 77;
    bool is_perf = argc > 1 && strcmp(argv[1], "--perf") == 0;
    int failed =
        is_perf ? cmocka_run_group_tests(speed, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
