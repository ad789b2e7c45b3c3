/* The sampler against a naive one (double, full sort), its distribution by chi-square, and golden draws.
 * --perf prints times at V = 151,936. */
#include "ops/op_check.h"
#include "ops/sample.h"
#include "ops/sample_select.h"

static const sample_params greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};
static const sample_params plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

static int32_t sample_row(float *logits, int32_t V, const sample_params *p, uint64_t step)
{
    void *scratch = check_alloc(sample_scratch(V));
    sample_args a = {.logits = logits, .V = V, .params = p, .step = step, .scratch = scratch};
    int32_t token = sample_token(&a);
    free(scratch);
    return token;
}

/* ---- the naive sampler's candidates ---- */

typedef struct {
    int32_t id;
    double x, p;
} entry;

static int larger_first(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->x != y->x) return x->x < y->x ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Marks the candidates in kept[V]; returns how many. Float weights, so that both sides see the same ties of mass;
 * the double sums differ in order only. */
static int32_t naive_candidates(uint8_t *kept, const float *logits, int32_t V, const sample_params *p)
{
    entry *e = check_alloc((size_t)V * sizeof *e);
    int32_t n = 0, m = 0;
    for (int32_t i = 0; i < V; i++)
        if (logits[i] > -INFINITY) e[n++] = (entry){i, (double)logits[i], 0};
    qsort(e, (size_t)n, sizeof *e, larger_first);
    double total = 0, mass = 0;
    for (int32_t i = 0; i < n; i++) e[i].p = exp((e[i].x - e[0].x) / (double)p->temperature);
    while (m < n && e[m].p >= (double)p->min_p) m++;
    if (p->top_k > 0 && p->top_k < m) m = p->top_k;
    for (int32_t i = 0; i < m; i++) total += e[i].p;
    memset(kept, 0, (size_t)V);
    int32_t used = 0;
    for (; used < m && (p->top_p >= 1 || mass < (double)p->top_p * total); used++) {
        mass += e[used].p;
        kept[e[used].id] = 1;
    }
    free(e);
    return used;
}

/* The set itself, and some draws through sample_token. */
static void compare_candidates(const float *logits, int32_t V, const sample_params *p)
{
    uint8_t *kept = check_alloc((size_t)V);
    float *copy = check_alloc((size_t)V * sizeof *copy);
    int32_t want = naive_candidates(kept, logits, V, p);
    void *scratch = check_alloc(sample_scratch(V));
    candidates c = select_candidates(scratch, logits, V, p);
    for (int32_t i = 0; i < c.n; i++) assert_true(kept[c.id[i]] && (i == 0 || c.id[i] > c.id[i - 1]));
    if (c.n != want)
        fail_msg("V=%d T=%g k=%d p=%g min_p=%g: %d candidates, expected %d", V, (double)p->temperature,
                 p->top_k, (double)p->top_p, (double)p->min_p, c.n, want);
    sample_params q = *p;
    for (q.seed = 0; q.seed < 20; q.seed++) {
        memcpy(copy, logits, (size_t)V * sizeof *copy);
        assert_true(kept[sample_row(copy, V, &q, q.seed)]);
    }
    free(kept);
    free(copy);
    free(scratch);
}

static void candidates_of_random_logits_equal_the_full_sort(void **state)
{
    (void)state;
    static const float temperatures[] = {0.05f, 0.7f, 1, 3}, top_ps[] = {1e-6f, 0.1f, 0.5f, 0.95f, 0.999f, 1};
    static const int32_t top_ks[] = {0, 1, 2, 20, 500, 100000};
    static const float min_ps[] = {0, 0.05f, 0.5f};
    uint64_t seed = 42;
    for (int32_t V = 1; V <= 3000; V = V * 3 + 1) {
        float *logits = check_alloc((size_t)V * sizeof *logits);
        for (int kind = 0; kind < 3; kind++) {
            for (int32_t i = 0; i < V; i++) {
                float x = 8 * (check_uniform(&seed, 1) + check_uniform(&seed, 1) + check_uniform(&seed, 1));
                logits[i] = kind == 0   ? x
                            : kind == 1 ? roundf(x)
                            : x < 5     ? -INFINITY
                                        : x; /* kind 1: many ties */
            }
            logits[V / 2] = 4;
            for (int i = 0; i < 4 * 6 * 6 * 3; i++) {
                sample_params p = {.temperature = temperatures[i % 4],
                                   .top_p = top_ps[i / 4 % 6],
                                   .top_k = top_ks[i / 24 % 6],
                                   .min_p = min_ps[i / 144],
                                   .repetition_penalty = 1};
                compare_candidates(logits, V, &p);
            }
        }
        free(logits);
    }
}

static void candidates_of_equal_logits_are_the_lowest_ids(void **state)
{
    (void)state;
    float logits[100];
    for (int i = 0; i < 100; i++) logits[i] = i % 2 ? 1.5f : -0.0f;
    logits[10] = 0.0f; /* equal to -0 */
    sample_params p = plain;
    p.top_k = 53; /* the 50 odd ids, then 0, 2, 4 */
    compare_candidates(logits, 100, &p);
    for (int i = 0; i < 100; i++) logits[i] = 7;
    p.top_k = 0;
    p.top_p = 0.25f; /* exactly 25 of 100 */
    compare_candidates(logits, 100, &p);
    for (p.seed = 0; p.seed < 300; p.seed++) assert_true(sample_row(logits, 100, &p, 1) < 25);
}

static void sampling_at_extreme_temperatures_stays_in_the_vocabulary(void **state)
{
    (void)state;
    static const float temperatures[] = {1e-45f, 1e-30f, 1e-3f, 1e4f, 1e30f, 3e38f};
    float logits[5] = {-3e38f, 2, 3e38f, 1e-40f, NAN}, copy[5];
    for (size_t i = 0; i < sizeof temperatures / sizeof *temperatures; i++)
        for (uint64_t seed = 0; seed < 50; seed++) {
            sample_params p = plain;
            p.temperature = temperatures[i];
            p.seed = seed;
            p.top_p = seed % 2 ? 0.9f : 1;
            p.min_p = seed % 3 ? 0 : 1;
            memcpy(copy, logits, sizeof copy);
            int32_t token = sample_row(copy, 5, &p, seed);
            assert_in_range(token, 0, 3);
            if (p.temperature < 1 || p.min_p == 1) assert_int_equal(token, 2);
        }
}

static void greedy_takes_the_largest_and_the_lowest_id_on_ties(void **state)
{
    (void)state;
    uint64_t seed = 3;
    float logits[1000];
    for (int32_t V = 1; V <= 1000; V += 37)
        for (int round = 0; round < 20; round++) {
            int32_t want = 0;
            for (int32_t i = 0; i < V; i++) {
                logits[i] = roundf(check_uniform(&seed, 20));
                if (logits[i] > logits[want]) want = i;
            }
            assert_int_equal(sample_row(logits, V, &greedy, 0), want);
        }
}

static void greedy_passes_over_nan_and_minus_infinity(void **state)
{
    (void)state;
    float a[4] = {NAN, -INFINITY, -5, NAN}, none[3] = {NAN, -INFINITY, NAN}, huge[3] = {NAN, INFINITY, 3};
    assert_int_equal(sample_row(a, 4, &greedy, 0), 2);
    assert_int_equal(sample_row(a, 4, &plain, 0), 2);
    assert_in_range(sample_row(none, 3, &greedy, 0), 0, 2);
    assert_in_range(sample_row(none, 3, &plain, 0), 0, 2);
    assert_int_equal(sample_row(huge, 3, &plain, 0), 1);
}

/* ---- distribution ---- */

/* Chi-square of 100,000 draws against p[n]; the caller compares with a quantile of n - 1 degrees of freedom. */
static double chi_square(const float *logits, const double *p, int32_t n, const sample_params *params,
                         uint64_t step_of)
{
    enum { DRAWS = 100000 };
    double seen[64] = {0}, sum = 0;
    float copy[64];
    sample_params q = *params;
    for (uint64_t i = 0; i < DRAWS; i++) {
        memcpy(copy, logits, (size_t)n * sizeof *copy);
        q.seed = step_of ? 7 : i;
        seen[sample_row(copy, n, &q, step_of ? i : 3)]++;
    }
    for (int32_t i = 0; i < n; i++) {
        double expected = p[i] * DRAWS;
        if (expected == 0)
            assert_true(seen[i] == 0);
        else
            sum += (seen[i] - expected) * (seen[i] - expected) / expected;
    }
    return sum;
}

static void draws_follow_the_softmax_at_the_temperature(void **state)
{
    (void)state;
    enum { N = 20 };
    float logits[N];
    double p[N], total = 0;
    sample_params params = plain;
    params.temperature = 1.7f;
    for (int i = 0; i < N; i++) {
        logits[i] = (float)((i * 7) % N) * 0.3f;
        total += p[i] = exp((double)logits[i] / (double)params.temperature);
    }
    for (int i = 0; i < N; i++) p[i] /= total;
    /* 19 degrees of freedom: 43.8 is the 99.9 % quantile */
    assert_true(chi_square(logits, p, N, &params, 0) < 43.8);
    assert_true(chi_square(logits, p, N, &params, 1) < 43.8);
}

static void draws_after_filters_follow_the_renormalised_softmax(void **state)
{
    (void)state;
    /* p = .4 .3 .2 .1 of the top 4 (top_k cuts the rest), then top_p 0.65 of the top-4 mass keeps .4 and .3 */
    float logits[6] = {logf(0.1f), logf(0.4f), logf(0.05f), logf(0.3f), logf(0.2f), logf(0.04f)};
    double p[6] = {0, 4.0 / 7, 0, 3.0 / 7, 0, 0};
    sample_params params = plain;
    params.top_k = 4;
    params.top_p = 0.65f;
    assert_true(chi_square(logits, p, 6, &params, 0) < 10.8); /* 1 degree of freedom, 99.9 % */
}

/* Neighbouring seeds and steps must not be related: the lag-1 correlation of u over both. */
static void draws_of_neighbouring_seeds_and_steps_are_independent(void **state)
{
    (void)state;
    enum { V = 1024, N = 20000 };
    float logits[V] = {0};
    double by_seed = 0, by_step = 0;
    sample_params p = plain;
    for (uint64_t i = 0; i < N; i++) {
        double u[3];
        for (int k = 0; k < 3; k++) {
            p.seed = 1000 + i / 100 + (k == 1);
            u[k] = sample_row(logits, V, &p, i % 100 + (k == 2)) / (double)V - 0.5;
        }
        by_seed += 12 * u[0] * u[1] / N;
        by_step += 12 * u[0] * u[2] / N;
    }
    assert_true(fabs(by_seed) < 4 / sqrt(N) && fabs(by_step) < 4 / sqrt(N));
}

/* What a seed means must never change: texts are reproduced by it. From the formula in Python's integers. */
static void draws_of_a_seed_are_golden(void **state)
{
    (void)state;
    enum { V = 1000 };
    static const struct {
        uint64_t seed, step;
        int32_t token;
    } golden[] = {{0, 0, 883},  {0, 1, 431},     {1, 0, 749},          {42, 0, 596},
                  {42, 1, 160}, {42, 1000, 844}, {UINT64_MAX, 0, 646}, {123456789, 7, 692}};
    float logits[V];
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        memset(logits, 0, sizeof logits);
        sample_params p = plain;
        p.seed = golden[i].seed;
        assert_int_equal(sample_row(logits, V, &p, golden[i].step), golden[i].token);
    }
}

/* ---- penalties, bias, bans ---- */

static void penalties_follow_the_formula(void **state)
{
    (void)state;
    float logits[6] = {4, -4, 4, -4, 4, NAN};
    sample_count counts[] = {{0, 1, 0}, {1, 2, 0}, {2, 1, 3}, {3, 0, 2}, {-1, 1, 1}, {6, 1, 1}};
    sample_bias bias[] = {{4, 2.5f}, {0, 1}, {-7, 9}, {99, 9}};
    int32_t banned[] = {4, -1, 6};
    sample_params p = greedy;
    p.repetition_penalty = 2;
    p.presence_penalty = 0.5f;
    p.frequency_penalty = 0.25f;
    sample_args a = {.logits = logits,
                     .V = 6,
                     .params = &p,
                     .counts = counts,
                     .n_counts = 6,
                     .bias = bias,
                     .n_bias = 4,
                     .scratch = check_alloc(sample_scratch(6))};
    assert_int_equal(sample_token(&a), 4);
    static const float want[5] = {(4 + 1) / 2.0f, -8, 4 / 2.0f - 0.25f * 3 - 0.5f, -8 - 0.25f * 2 - 0.5f,
                                  6.5f};
    for (int i = 0; i < 5; i++) assert_true(logits[i] == want[i]);
    a.n_counts = a.n_bias = 0;
    a.banned = banned;
    a.n_banned = 3;
    assert_int_equal(sample_token(&a), 0);
    assert_true(logits[4] == -INFINITY);
    p = plain;
    for (p.seed = 0; p.seed < 200; p.seed++) assert_int_not_equal(sample_token(&a), 4);
    free(a.scratch);
}

/* ---- log-probabilities ---- */

static void logprobs_match_a_double_log_softmax(void **state)
{
    (void)state;
    enum { V = 5000, TOP = 20 };
    uint64_t seed = 6;
    float *logits = check_alloc(V * sizeof *logits);
    entry *e = check_alloc(V * sizeof *e);
    for (int round = 0; round < 4; round++) {
        double total = 0;
        for (int32_t i = 0; i < V; i++) {
            logits[i] = check_uniform(&seed, round == 3 ? 300 : 12);
            if (round == 1) logits[i] = roundf(logits[i]); /* ties */
            if (round == 2 && i % 3 == 0) logits[i] = i % 2 ? NAN : -INFINITY;
            e[i] = (entry){i, isnan(logits[i]) ? -INFINITY : (double)logits[i], 0};
        }
        qsort(e, V, sizeof *e, larger_first);
        for (int32_t i = 0; i < V; i++) total += exp(e[i].x - e[0].x);
        sample_logprob top[TOP];
        float got = sample_logprobs(logits, V, e[100].id, top, TOP);
        assert_true(fabs(got - (e[100].x - e[0].x - log(total))) < 2e-5);
        for (int32_t i = 0; i < TOP; i++) {
            assert_int_equal(top[i].token, e[i].id);
            assert_true(fabs(top[i].logprob - (e[i].x - e[0].x - log(total))) < 2e-6);
        }
        assert_true(sample_logprobs(logits, V, e[0].id, NULL, 0) == top[0].logprob);
    }
    free(e);
    free(logits);
}

static void logprobs_of_more_than_the_vocabulary_stop_there(void **state)
{
    (void)state;
    float logits[2] = {0, 0};
    sample_logprob top[3] = {{-1, 9}, {-1, 9}, {-1, 9}};
    assert_true(fabsf(sample_logprobs(logits, 2, 1, top, 3) + logf(2)) < 1e-6f);
    assert_true(top[0].token == 0 && top[1].token == 1 && top[2].token == -1);
}

/* ---- --perf ---- */

static void perf(const char *what, const float *logits, int32_t V, sample_params p, int32_t n_top)
{
    float *copy = check_alloc((size_t)V * sizeof *copy);
    void *scratch = check_alloc(sample_scratch(V));
    sample_logprob top[20];
    double best = 1e9;
    for (uint64_t i = 0; i < 30; i++) {
        memcpy(copy, logits, (size_t)V * sizeof *copy);
        sample_args a = {.logits = copy, .V = V, .params = &p, .step = i, .scratch = scratch};
        double start = check_seconds();
        if (n_top)
            sample_logprobs(copy, V, 5, top, n_top);
        else
            sample_token(&a);
        best = fmin(best, check_seconds() - start);
    }
    printf("%-28s %7.1f us\n", what, best * 1e6);
    free(copy);
    free(scratch);
}

static int perf_main(void)
{
    enum { V = 151936 };
    uint64_t seed = 1;
    float *typical = check_alloc(V * sizeof *typical), *flat = check_alloc(V * sizeof *flat);
    for (int32_t i = 0; i < V; i++) {
        flat[i] = check_uniform(&seed, 3) + check_uniform(&seed, 3);
        typical[i] = flat[i] + (i % 5000 == 3 ? 12 : 0);
    }
    sample_params top_p = plain, top_k = plain, min_p = plain;
    top_p.top_p = 0.95f;
    top_k.top_k = 20;
    top_k.top_p = 0.95f;
    min_p.min_p = 0.05f;
    perf("greedy", typical, V, greedy, 0);
    perf("no filter", typical, V, plain, 0);
    perf("top-p 0.95", typical, V, top_p, 0);
    perf("top-p 0.95, flat", flat, V, top_p, 0);
    perf("top-k 20, top-p 0.95", typical, V, top_k, 0);
    perf("min-p 0.05", typical, V, min_p, 0);
    perf("log-probabilities, top 20", typical, V, plain, 20);
    free(typical);
    free(flat);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--perf") == 0) return perf_main();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_of_random_logits_equal_the_full_sort),
        cmocka_unit_test(candidates_of_equal_logits_are_the_lowest_ids),
        cmocka_unit_test(sampling_at_extreme_temperatures_stays_in_the_vocabulary),
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_id_on_ties),
        cmocka_unit_test(greedy_passes_over_nan_and_minus_infinity),
        cmocka_unit_test(draws_follow_the_softmax_at_the_temperature),
        cmocka_unit_test(draws_after_filters_follow_the_renormalised_softmax),
        cmocka_unit_test(draws_of_neighbouring_seeds_and_steps_are_independent),
        cmocka_unit_test(draws_of_a_seed_are_golden),
        cmocka_unit_test(penalties_follow_the_formula),
        cmocka_unit_test(logprobs_match_a_double_log_softmax),
        cmocka_unit_test(logprobs_of_more_than_the_vocabulary_stop_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
