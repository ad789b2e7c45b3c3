/* Draws as an op: each order's result is that of the sampler called alone on its row. */
#include "ops/op_check.h"
#include "ops/draw.h"

#include <string.h>

enum { V = 300, N = 4, ROWS = 5, RESULTS = 6 };

static const sample_params greedy = {.temperature = 0, .top_p = 1, .repetition_penalty = 1};

static const sample_count counts[] = {{7, 1, 0}, {20, 2, 3}, {299, 0, 1}};
static const sample_bias biases[] = {{-1, 9}, {11, 2.5f}, {11, 1}, {300, 9}};
static const int32_t banned[] = {40, 41};

/* Order i draws from row i + 1 and writes result 5 - i. */
static draw_order order_of(int i)
{
    draw_order o = {
        .params = greedy, .logit = i + 1, .n_top = -1, .result = 5 - i, .epoch = 100 + i, .step = 3};
    o.params.seed = 17 + (uint64_t)i;
    if (i % 2) o.params.temperature = 0.8f, o.params.top_k = 20;
    if (i == 1) o.n_top = 0;
    if (i == 2) {
        o.n_top = 5;
        o.params.repetition_penalty = 1.3f;
        o.params.frequency_penalty = 0.5f;
        o.first_count = 1, o.n_counts = 2;
        o.first_banned = 0, o.n_banned = 2;
    }
    if (i == 3) {
        o.n_top = DRAW_MAX_TOP;
        o.first_bias = 1, o.n_bias = 3;
    }
    return o;
}

typedef struct {
    float logits[ROWS * V];
    draw_order order[N];
    draw_result result[RESULTS];
    int32_t drawn[N];
    void *scratch;
} draws;

static op_draw_args args_of(draws *d)
{
    return (op_draw_args){.logits = d->logits,
                          .V = V,
                          .N = N,
                          .order = d->order,
                          .counts = counts,
                          .bias = biases,
                          .banned = banned,
                          .result = d->result,
                          .drawn = d->drawn,
                          .scratch = d->scratch};
}

static draws *draws_open(void)
{
    draws *d = check_alloc(sizeof *d);
    uint64_t random = 5;
    memset(d, 0x5a, sizeof *d);
    check_fill(d->logits, ROWS * V, 6, &random);
    for (int i = 0; i < N; i++) d->order[i] = order_of(i);
    d->scratch = check_alloc(draw_scratch(V));
    return d;
}

static void draws_close(draws *d)
{
    free(d->scratch);
    free(d);
}

static void draw_equals_the_sampler_called_alone(void **state)
{
    (void)state;
    draws *d = draws_open();
    float raw[ROWS * V], row[V];
    memcpy(raw, d->logits, sizeof raw);
    op_draw_args a = args_of(d);
    op_draw_ref(&a);
    void *scratch = check_alloc(sample_scratch(V));
    for (int i = 0; i < N; i++) {
        const draw_order *o = &d->order[i];
        const draw_result *r = &d->result[o->result];
        sample_logprob top[DRAW_MAX_TOP];
        memcpy(row, raw + o->logit * V, sizeof row);
        int32_t token = sample_token(&(sample_args){.logits = row,
                                                    .V = V,
                                                    .params = &o->params,
                                                    .step = o->step,
                                                    .counts = counts + o->first_count,
                                                    .n_counts = o->n_counts,
                                                    .bias = biases + o->first_bias,
                                                    .n_bias = o->n_bias,
                                                    .banned = banned + o->first_banned,
                                                    .n_banned = o->n_banned,
                                                    .scratch = scratch});
        assert_int_equal(r->token, token);
        assert_int_equal(d->drawn[i], token);
        assert_int_equal(r->epoch, 100 + i);
        assert_int_equal(r->failed, 0);
        assert_int_equal(r->n_top, o->n_top > 0 ? o->n_top : 0);
        if (o->n_top < 0) continue;
        float logprob = sample_logprobs(raw + o->logit * V, V, token, top, o->n_top);
        assert_memory_equal(&r->logprob, &logprob, sizeof logprob);
        for (int k = 0; k < o->n_top; k++) {
            assert_int_equal(r->top[k].token, top[k].token);
            assert_memory_equal(&r->top[k].logprob, &top[k].logprob, sizeof logprob);
        }
    }
    free(scratch);
    draws_close(d);
}

static void draw_writes_only_its_results_and_rows(void **state)
{
    (void)state;
    draws *d = draws_open();
    float first[V];
    draw_result untouched;
    memcpy(first, d->logits, sizeof first);
    memset(&untouched, 0x5a, sizeof untouched);
    op_draw_args a = args_of(d);
    op_draw_ref(&a);
    assert_memory_equal(d->logits, first, sizeof first); /* no order names row 0 */
    assert_memory_equal(&d->result[0], &untouched, sizeof untouched);
    assert_memory_equal(&d->result[1], &untouched, sizeof untouched);
    assert_memory_equal(d->result[3].top + 5, untouched.top + 5, (DRAW_MAX_TOP - 5) * sizeof *untouched.top);
    draws_close(d);
}

static void draw_from_no_numbers_fails_and_goes_on(void **state)
{
    (void)state;
    draws *d = draws_open();
    for (int v = 0; v < V; v++) d->logits[1 * V + v] = NAN, d->logits[2 * V + v] = -INFINITY;
    op_draw_args a = args_of(d);
    op_draw_ref(&a);
    for (int i = 0; i < N; i++) {
        assert_int_equal(d->result[5 - i].failed, i < 2);
        assert_in_range(d->drawn[i], 0, V - 1);
        assert_int_equal(d->result[5 - i].epoch, 100 + i);
    }
    draws_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(draw_equals_the_sampler_called_alone),
                                       cmocka_unit_test(draw_writes_only_its_results_and_rows),
                                       cmocka_unit_test(draw_from_no_numbers_fails_and_goes_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
