/* Draws on the GPU against the host's, over random rows of all kinds and random orders: tokens, failures, log-
 * probabilities, top lists, epochs; nothing else of the results may change. A token may differ from the host's only
 * where the random number falls within 1e-6 of a boundary of the host's running mass. --perf prints us per draw. */
#include "support/device.h"

#include "ops/sample_select.h"

#include <string.h>

static device gpu;
static bool in_host_memory; /* results in the host's memory, else the device's */
static int at_boundaries;   /* tokens that differ and may */

enum { MAX_LIST = 3000, SPARE = 3 };

static int pick(uint64_t *random, int n)
{
    return (int)(check_random(random) % (uint64_t)n);
}

static float pick_of(uint64_t *random, const float *values, int n)
{
    return values[pick(random, n)];
}

/* ---- Rows and orders ----------------------------------------------------------------------------------------- */

enum {
    FLAT,
    WIDE,
    PEAKED,
    TIES,
    EQUAL,
    HOLES,
    NANS,
    ALL_NAN,
    ALL_EXCLUDED,
    EXCLUDED_AND_NAN,
    INFINITE,
    HUGE_RANGE,
    ROWS
};

static float logit_of(int kind, uint64_t *random, int i)
{
    float flat = check_uniform(random, 1);
    float bell = 3 * (flat + check_uniform(random, 1) + check_uniform(random, 1));
    int odd = pick(random, 4);
    switch (kind) {
    case FLAT: return flat;
    case PEAKED: return pick(random, 1000) == 0 ? 20 + flat : bell;
    case TIES: return roundf(bell);
    case EQUAL: return i % 3 ? -0.0f : 0.0f;
    case HOLES: return odd ? -INFINITY : bell;
    case NANS: return odd == 0 ? NAN : odd == 1 ? -INFINITY : bell;
    case ALL_NAN: return NAN;
    case ALL_EXCLUDED: return -INFINITY;
    case EXCLUDED_AND_NAN: return odd ? NAN : -INFINITY;
    case INFINITE: return pick(random, 50) == 0 ? INFINITY : bell;
    case HUGE_RANGE: return 3e37f * bell;
    default: return bell;
    }
}

typedef struct {
    int32_t V, N, rows;
    float *logits;
    draw_order *order;
    sample_count *counts;
    sample_bias *bias;
    int32_t *banned;
    int32_t n_counts, n_bias, n_banned;
    draw_result *result;
    int32_t *drawn;
} batch;

static sample_params random_params(uint64_t *random)
{
    static const float temperatures[] = {0, 0, 0.05f, 0.7f, 1, 1, 1, 3, 1e-30f, 1e30f};
    static const float top_ps[] = {1, 1, 1, 0.95f, 0.9f, 0.5f, 0.999f, 1e-5f};
    static const int32_t top_ks[] = {0, 0, 0, 0, 1, 2, 20, 50, 64, 65, 300, 2000, 100000};
    static const float min_ps[] = {0, 0, 0, 0.05f, 0.5f, 1, 1e-6f};
    static const float repetition[] = {1, 1, 1.1f, 0.8f, 5}, others[] = {0, 0, 0.5f, -1, 2};
    return (sample_params){.temperature = pick_of(random, temperatures, 10),
                           .top_p = pick_of(random, top_ps, 8),
                           .top_k = top_ks[pick(random, 13)],
                           .min_p = pick_of(random, min_ps, 7),
                           .repetition_penalty = pick_of(random, repetition, 5),
                           .presence_penalty = pick_of(random, others, 5),
                           .frequency_penalty = pick_of(random, others, 5),
                           .seed = check_random(random)};
}

/* Distinct tokens, as the engine keeps them; some outside the vocabulary. */
static void add_counts(batch *b, draw_order *o, uint64_t *random)
{
    int32_t n = pick(random, 8) ? pick(random, 100) : pick(random, MAX_LIST);
    int32_t step = 1 + pick(random, b->V / (n + 1) + 1), token = -3 + pick(random, 10);
    o->first_count = b->n_counts;
    o->n_counts = n;
    for (int32_t i = 0; i < n; i++, token += step)
        b->counts[b->n_counts++] = (sample_count){token, pick(random, 3), pick(random, 4)};
}

static void add_biases(batch *b, draw_order *o, uint64_t *random)
{
    o->first_bias = b->n_bias;
    o->n_bias = 1 + pick(random, 70);
    for (int32_t i = 0; i < o->n_bias; i++) /* some tokens more than once */
        b->bias[b->n_bias++] = (sample_bias){pick(random, b->V + 5) - 2, check_uniform(random, 12)};
}

static void add_bans(batch *b, draw_order *o, const float *row, uint64_t *random)
{
    o->first_banned = b->n_banned;
    o->n_banned = 1 + pick(random, 40);
    for (int32_t i = 0; i < o->n_banned; i++) b->banned[b->n_banned++] = pick(random, b->V + 5) - 2;
    if (pick(random, 2)) b->banned[b->n_banned - 1] = select_argmax(row, b->V);
}

/* Orders name rows and results in another order than their own. */
static batch batch_open(int32_t V, int32_t N, uint64_t *random)
{
    static const int32_t tops[] = {-1, -1, -1, 0, 1, 5, 20};
    batch b = {.V = V, .N = N, .rows = N + 1};
    b.logits = check_alloc((size_t)b.rows * (size_t)V * sizeof *b.logits);
    b.order = check_alloc((size_t)N * sizeof *b.order);
    b.counts = check_alloc((size_t)N * MAX_LIST * sizeof *b.counts);
    b.bias = check_alloc((size_t)N * MAX_LIST * sizeof *b.bias);
    b.banned = check_alloc((size_t)N * MAX_LIST * sizeof *b.banned);
    b.result = check_alloc((size_t)(N + SPARE) * sizeof *b.result);
    b.drawn = check_alloc((size_t)N * sizeof *b.drawn);
    for (int32_t r = 0; r < b.rows; r++) {
        int kind = pick(random, 3) ? pick(random, TIES + 1) : pick(random, ROWS);
        for (int32_t i = 0; i < V; i++)
            b.logits[(size_t)r * (size_t)V + (size_t)i] = logit_of(kind, random, i);
    }
    for (int32_t i = 0; i < N; i++) {
        draw_order *o = &b.order[i];
        *o = (draw_order){.params = random_params(random),
                          .step = check_random(random),
                          .logit = b.rows - 1 - i,
                          .n_top = tops[pick(random, 7)],
                          .result = (N - 1 - i) + SPARE / 2,
                          .epoch = 1 + pick(random, 1000000)};
        int edits = pick(random, 2) ? pick(random, 8) : 0;
        if (edits & 1) add_counts(&b, o, random);
        if (edits & 2) add_biases(&b, o, random);
        if (edits & 4) add_bans(&b, o, b.logits + (size_t)o->logit * (size_t)V, random);
    }
    return b;
}

static void batch_close(batch *b)
{
    free(b->logits);
    free(b->order);
    free(b->counts);
    free(b->bias);
    free(b->banned);
    free(b->result);
    free(b->drawn);
}

/* ---- The two sides ------------------------------------------------------------------------------------------- */

static op_draw_args host_args(const batch *b, void *scratch)
{
    return (op_draw_args){.logits = b->logits,
                          .V = b->V,
                          .N = b->N,
                          .order = b->order,
                          .counts = b->counts,
                          .bias = b->bias,
                          .banned = b->banned,
                          .result = b->result,
                          .drawn = b->drawn,
                          .scratch = scratch};
}

static op_draw_args device_args(const batch *b, draw_result *result)
{
    op_draw_args a = host_args(b, NULL);
    a.order = device_copy(&gpu, b->order, (size_t)b->N * sizeof *b->order);
    a.counts = device_copy(&gpu, b->counts, (size_t)(b->n_counts + 1) * sizeof *b->counts);
    a.bias = device_copy(&gpu, b->bias, (size_t)(b->n_bias + 1) * sizeof *b->bias);
    a.banned = device_copy(&gpu, b->banned, (size_t)(b->n_banned + 1) * sizeof *b->banned);
    a.drawn = device_alloc(&gpu, (size_t)b->N * sizeof *b->drawn);
    a.result = result;
    a.greedy = draws_are_greedy(b->order, b->N);
    a.logits = device_copy(&gpu, b->logits, (size_t)b->rows * (size_t)b->V * sizeof *b->logits);
    return a;
}

static void run_on_device(const batch *b, draw_result *got, int32_t *drawn)
{
    const backend_type *type = gpu.backend->type;
    size_t bytes = (size_t)(b->N + SPARE) * sizeof *got;
    nvllm_error err = {0};
    draw_result *result =
        in_host_memory ? type->host_alloc(gpu.backend, bytes) : device_copy(&gpu, got, bytes);
    assert_non_null(result);
    if (in_host_memory) memcpy(result, got, bytes);
    op_draw_args a = device_args(b, result);
    device_run(&gpu, OP_DRAW, &(op_args){.draw = a});
    if (in_host_memory) { /* the epochs say that the results are there: nothing else is waited for */
        for (int32_t i = 0; i < b->N; i++) {
            const draw_order *o = &b->order[i];
            if (type->wait(gpu.backend, &result[o->result].epoch, o->epoch, &err))
                fail_msg("%s", err.message);
        }
        memcpy(got, result, bytes);
    } else
        device_read(&gpu, got, result, bytes);
    device_read(&gpu, drawn, a.drawn, (size_t)b->N * sizeof *drawn);
    if (in_host_memory) type->host_free(gpu.backend, result);
    device_release(&gpu);
}

/* ---- Comparison ---------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Distance, as a share of the total, from the random number to the host's boundary between two tokens. `row` has been
 * edited by the host's draw. */
static double boundary_distance(const float *row, int32_t V, const draw_order *o, int32_t one, int32_t other)
{
    void *scratch = check_alloc(select_scratch(V));
    candidates c = select_candidates(scratch, row, V, &o->params);
    uint64_t random = mix(mix(o->params.seed) + (o->step + 1) * 0x9e3779b97f4a7c15u) >> 11;
    double u = (double)random * 0x1p-53, total = select_sum(c.w, c.n), mass = 0, most = 0;
    int32_t low = one < other ? one : other, high = one < other ? other : one;
    for (int32_t i = 0; i < c.n && c.id[i] < high; i++) {
        mass += (double)c.w[i];
        if (c.id[i] >= low && fabs(mass / total - u) > most) most = fabs(mass / total - u);
    }
    free(scratch);
    return most;
}

static bool same_number(float got, float want)
{
    if (isnan(want) || isinf(want)) return isnan(want) ? isnan(got) : got == want;
    return fabs((double)got - (double)want) <= 1e-5 + 1e-6 * fabs((double)want);
}

static void fail_order(const batch *b, int32_t i, const char *what, double got, double want)
{
    const draw_order *o = &b->order[i];
    const sample_params *p = &o->params;
    fail_msg("V=%d N=%d order %d: %s is %.9g, expected %.9g (T=%g k=%d p=%g min_p=%g r=%g pp=%g fp=%g, n_top "
             "%d, %d "
             "counts, %d biases, %d bans)",
             b->V, b->N, i, what, got, want, (double)p->temperature, p->top_k, (double)p->top_p,
             (double)p->min_p, (double)p->repetition_penalty, (double)p->presence_penalty,
             (double)p->frequency_penalty, o->n_top, o->n_counts, o->n_bias, o->n_banned);
}

static void compare_order(const batch *b, const draw_result *got, const int32_t *drawn, int32_t i)
{
    const draw_order *o = &b->order[i];
    const draw_result *g = &got[o->result], *w = &b->result[o->result];
    const float *row = b->logits + (size_t)o->logit * (size_t)b->V;
    int32_t listed = w->n_top < b->V ? w->n_top : b->V;
    if (g->epoch != w->epoch) fail_order(b, i, "epoch", g->epoch, w->epoch);
    if (g->failed != w->failed) fail_order(b, i, "failed", g->failed, w->failed);
    if (g->n_top != w->n_top) fail_order(b, i, "n_top", g->n_top, w->n_top);
    if (drawn[i] != g->token) fail_order(b, i, "drawn", drawn[i], g->token);
    if (g->token != w->token) {
        bool sampled = o->params.temperature > 0 && !w->failed && row[w->token] < INFINITY;
        if (!sampled || g->token < 0 || g->token >= b->V ||
            boundary_distance(row, b->V, o, g->token, w->token) > 1e-6)
            fail_order(b, i, "token", g->token, w->token);
        at_boundaries++;
    } else if (!same_number(g->logprob, w->logprob))
        fail_order(b, i, "logprob", (double)g->logprob, (double)w->logprob);
    for (int32_t k = 0; k < listed; k++) {
        if (g->top[k].token != w->top[k].token)
            fail_order(b, i, "a token of the top list", g->top[k].token, w->top[k].token);
        if (!same_number(g->top[k].logprob, w->top[k].logprob))
            fail_order(b, i, "a logprob of the top list", (double)g->top[k].logprob,
                       (double)w->top[k].logprob);
    }
    if (memcmp(g->top + listed, w->top + listed, (size_t)(DRAW_MAX_TOP - listed) * sizeof *g->top))
        fail_order(b, i, "the top list past its end (1: changed)", 1, 0);
}

/* Twice on the device: the second run finds what the first left in scratch and counters. */
/* greedy: nothing else is asked for, and the host knows it. */
static void compare_batch(int32_t V, int32_t N, bool greedy, uint64_t *random)
{
    batch b = batch_open(V, N, random);
    size_t bytes = (size_t)(N + SPARE) * sizeof *b.result;
    draw_result *got = check_alloc(bytes), *again = check_alloc(bytes);
    int32_t *drawn = check_alloc((size_t)N * sizeof *drawn),
            *drawn_again = check_alloc((size_t)N * sizeof *drawn);
    void *scratch = check_alloc(draw_scratch(V));
    for (int32_t i = 0; greedy && i < N; i++) {
        b.order[i].params.temperature = 0;
        b.order[i].n_top = -1;
    }
    assert_true(!greedy || draws_are_greedy(b.order, N));
    memset(b.result, 0x5a, bytes);
    memset(got, 0x5a, bytes);
    memset(again, 0x5a, bytes);
    run_on_device(&b, got, drawn);
    run_on_device(&b, again, drawn_again);
    op_draw_args a = host_args(&b, scratch);
    op_draw_ref(&a);
    for (int32_t i = 0; i < N; i++) compare_order(&b, got, drawn, i);
    for (int32_t i = 0; i < SPARE; i++) {
        int32_t at = i < SPARE / 2 ? i : N + i;
        if (memcmp(&got[at], &b.result[at], sizeof *got))
            fail_msg("V=%d N=%d: result %d was changed", V, N, at);
    }
    if (memcmp(got, again, bytes) || memcmp(drawn, drawn_again, (size_t)N * sizeof *drawn))
        fail_msg("V=%d N=%d: a second run gives other results", V, N);
    free(got);
    free(again);
    free(drawn);
    free(drawn_again);
    free(scratch);
    batch_close(&b);
}

/* A GPU that tests/emulator plays takes a thousand times as long: fewer batches of fewer orders there, which still find
 * every rule. */
static void compare_many(int32_t V, int batches, uint64_t seed)
{
    bool emulated = device_is_emulated(&gpu);
    const int32_t sizes[] = {1, 3, emulated ? 16 : 64};
    uint64_t random = seed;
    if (emulated) batches = (batches + 1) / 2;
    for (int i = 0; i < batches; i++) {
        in_host_memory = i / 3 % 2;
        compare_batch(V, sizes[i % 3], i % 7 == 6, &random);
    }
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

static void draws_from_small_vocabularies_equal_the_host(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 2, 31, 256, 1000};
    for (int i = 0; i < 5; i++) compare_many(sizes[i], 30, 100 + (uint64_t)i);
}

static void draws_from_some_tiles_equal_the_host(void **state)
{
    (void)state;
    static const int32_t sizes[] = {4095, 4096, 4097, 8200, 32000};
    for (int i = 0; i < 5; i++) compare_many(sizes[i], 12, 200 + (uint64_t)i);
}

static void draws_from_large_vocabularies_equal_the_host(void **state)
{
    (void)state;
    compare_many(151936, 12, 300);
    compare_many(262144, 5, 301);
    compare_many(262208, 2, 302);
}

static void draws_of_many_orders_equal_the_host(void **state)
{
    (void)state;
    uint64_t random = 400;
    bool emulated = device_is_emulated(&gpu);
    in_host_memory = true;
    compare_batch(50, emulated ? 200 : 4096, false, &random);
    compare_batch(9001, emulated ? 50 : 1100, false, &random);
    compare_batch(9001, emulated ? 50 : 1100, true, &random);
}

/* ---- Speed --------------------------------------------------------------------------------------------------- */

enum { PERF_V = 151936, RECORDED = 64, REPLAYS = 20 };

static void time_case(const char *what, int32_t key, int32_t N, sample_params params, int32_t n_top)
{
    const backend_type *type = gpu.backend->type;
    uint64_t random = 1;
    batch b = batch_open(PERF_V, N, &random);
    b.n_counts = b.n_bias = b.n_banned = 0;
    for (int32_t i = 0; i < N; i++) {
        draw_order *o = &b.order[i];
        *o = (draw_order){
            .params = params, .logit = i, .n_top = n_top, .result = i, .epoch = 1, .step = (uint64_t)i};
        o->params.seed = check_random(&random);
        for (int32_t v = 0; v < PERF_V; v++)
            b.logits[(size_t)i * PERF_V + (size_t)v] =
                logit_of(WIDE, &random, v) + (pick(&random, 2000) ? 0.0f : 8.0f);
    }
    draw_result *result = type->host_alloc(gpu.backend, (size_t)N * sizeof *result);
    op_args args = {.draw = device_args(&b, result)};
    nvllm_error err = {0};
    device_run(&gpu, OP_DRAW, &args);
    type->record(gpu.backend);
    for (int i = 0; i < RECORDED; i++) device_run(&gpu, OP_DRAW, &args);
    if (type->record_end(gpu.backend, key, &err)) fail_msg("%s", err.message);
    double best = 1e9;
    for (int i = 0; i < REPLAYS; i++) {
        double start = check_seconds();
        type->replay(gpu.backend, key);
        device_read(&gpu, b.drawn, args.draw.drawn, sizeof *b.drawn);
        double took = check_seconds() - start;
        if (took < best) best = took;
    }
    printf("draw V=%d N=%-4d %-36s %8.2f us per step\n", PERF_V, N, what, best / RECORDED * 1e6);
    type->host_free(gpu.backend, result);
    device_release(&gpu);
    batch_close(&b);
}

static void time_all(void)
{
    static const int32_t sizes[] = {1, 8, 128};
    sample_params greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1}, plain = greedy;
    plain.temperature = 1;
    sample_params top_k = plain, top_p = plain, min_p = plain;
    top_k.top_k = 50;
    top_k.top_p = 0.9f;
    top_p.top_p = 0.95f;
    min_p.min_p = 0.05f;
    for (int i = 0; i < 3; i++) {
        int32_t N = sizes[i], key = 1 + i * 8;
        time_case("greedy", key, N, greedy, -1);
        time_case("temperature 1", key + 1, N, plain, -1);
        time_case("top-k 50, top-p 0.9", key + 2, N, top_k, -1);
        time_case("top-p 0.95", key + 3, N, top_p, -1);
        time_case("min-p 0.05", key + 4, N, min_p, -1);
        time_case("greedy, 20 log-probabilities", key + 5, N, greedy, 20);
        time_case("temperature 1, 20 log-probabilities", key + 6, N, plain, 20);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws_from_small_vocabularies_equal_the_host),
                                       cmocka_unit_test(draws_from_some_tiles_equal_the_host),
                                       cmocka_unit_test(draws_from_large_vocabularies_equal_the_host),
                                       cmocka_unit_test(draws_of_many_orders_equal_the_host)};
    if (!device_open(&gpu)) return 77;
    device_reserve(&gpu, &(backend_shape){.max_tokens = 1,
                                          .max_logits = 4096,
                                          .widest_input = 64,
                                          .max_rows = 4096,
                                          .H = 1,
                                          .C = 64,
                                          .F = 64,
                                          .V = 262208,
                                          .max_context = 64});
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("tokens that differ, at boundaries: %d\n", at_boundaries);
    if (argc > 1 && strcmp(argv[1], "--perf") == 0) time_all();
    device_close(&gpu);
    return failed;
}
