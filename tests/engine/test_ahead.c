/* Steps started before the tokens of the one before are known, as on a GPU: the same answers, ends and pages as without.
 *
 * The device of these tests is the CPU backend, with draws that become visible only when they are waited for: who reads
 * a token too early reads the last step's. */
#include "support/family.h"
#include "support/test.h"

/* ---- A device whose results come late ------------------------------------------------------------------------ */

enum { ROWS = 6, IDS = 24, MOST = 64, SCORE_ONLY = 7 };

static draw_result late[2 * ROWS]; /* what the steps in flight have drawn, by place in the runner's array */
static draw_result *visible;       /* the runner's array */
static int waits, fail_at; /* fail_at: the number of the wait that finds the device failed; 0: never */
static bool seen_ahead;    /* a token of a step in flight was named in a batch */

static void late_draw(backend *b, const op_args *args)
{
    op_args shadow = *args;
    (void)b;
    visible = args->draw.result;
    shadow.draw.result = late;
    op_draw_ref(&shadow.draw);
}

static void watched_embed(backend *b, const op_args *args)
{
    for (int32_t t = 0; t < args->embed.T; t++) seen_ahead = seen_ahead || args->embed.tokens[t] < 0;
    backend_cpu.op[OP_EMBED](b, args);
}

static nvllm_status late_wait(backend *b, const volatile int32_t *flag, int32_t value, nvllm_error *err)
{
    (void)b;
    if (++waits == fail_at) return error_set(err, NVLLM_ERR_UNSUPPORTED, "the device fell over");
    for (int i = 0; i < 2 * ROWS; i++)
        if (late[i].epoch == value) visible[i] = late[i];
    assert_int_equal(*flag, value);
    return NVLLM_OK;
}

static backend_type late_type;

static backend *open_late(void)
{
    backend *b = family_backend("cpu", NULL, 1);
    late_type = backend_cpu;
    late_type.op[OP_DRAW] = late_draw;
    late_type.op[OP_EMBED] = watched_embed;
    late_type.wait = late_wait;
    b->type = &late_type;
    memset(late, 0, sizeof late);
    waits = fail_at = 0;
    seen_ahead = false;
    return b;
}

static void close_late(backend *b)
{
    b->type = &backend_cpu;
    backend_close(b);
}

/* ---- Answers ------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t tokens[MOST];
    float logprobs[MOST];
    int n;
    engine_event_kind end; /* ENGINE_TOKEN: none yet */
} answer;

static answer answers[IDS];

static void take(const engine_event *events, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        answer *a = &answers[events[i].id];
        bool goes_on = events[i].kind == ENGINE_SCORED && events[i].id != SCORE_ONLY;
        if (events[i].kind == ENGINE_STARTED || goes_on) continue;
        assert_int_equal(a->end, ENGINE_TOKEN); /* nothing comes after the end */
        if (events[i].token >= 0) {
            assert_true(a->n < MOST);
            a->tokens[a->n] = events[i].token;
            a->logprobs[a->n++] = events[i].n_top > 0 ? events[i].logprob : 0;
        }
        if (events[i].kind != ENGINE_TOKEN) a->end = events[i].kind;
    }
}

static void run(engine *e)
{
    const engine_event *events;
    for (int steps = 0; !engine_idle(e); steps++) {
        assert_true(steps < 4000);
        int32_t n = engine_step(e, &events, NULL);
        assert_true(n >= 0);
        take(events, n);
    }
    assert_int_equal(engine_count(e).pages_used, 0);
}

static engine *open_engine(const family_model *f, backend *b, int64_t kv_tokens)
{
    engine *e;
    nvllm_error err = {0};
    engine_options o = {.context = 192,
                        .max_sequences = ROWS,
                        .step_tokens = 40,
                        .kv_tokens = kv_tokens,
                        .kv_type = model_default_kv_type(f->model)};
    if (engine_open(&e, f->model, b, &o, &err)) fail_msg("%s", err.message);
    return e;
}

static family_model open_model(void)
{
    static family_case cases[FAMILY_MAX];
    int n = family_cases(cases);
    family_model f = {0};
    for (int i = 0; i < n; i++)
        if (strcmp(cases[i].name, "families/qwen3-tied-bf16") == 0) family_open(&f, &cases[i]);
    assert_non_null(f.model);
    return f;
}

/* Every kind of request: greedy and drawn, with log-probabilities, penalties, biases, least lengths; some are scored. */
static void add_all(engine *e, const family_model *f, const int32_t *stops, float *score)
{
    static const sample_bias bias[2] = {{5, 3.0f}, {9, -4.0f}};
    for (int32_t i = 1; i < IDS; i++) {
        sequence_request q = {.prompt = f->prompt + i % 3,
                              .n_prompt = 3 + 29 * (i % 4),
                              .max_tokens = i == SCORE_ONLY ? 0 : 1 + i * 2,
                              .min_tokens = i % 5 == 0 ? 6 : 0,
                              .top_logprobs = i % 4 == 1 ? 3 : -1,
                              .stop_ids = &stops[i],
                              .n_stop_ids = stops[i] >= 0 ? 1 : 0,
                              .bias = bias,
                              .n_bias = i % 6 == 2 ? 2 : 0,
                              .priority = i % 7 == 0 ? -1 : 0,
                              .score = i == SCORE_ONLY || i == 13 ? score : NULL,
                              .sampling = {.temperature = i % 3 ? 0.9f : 0,
                                           .top_p = 0.95f,
                                           .top_k = 50,
                                           .seed = (uint64_t)i,
                                           .repetition_penalty = i % 8 == 3 ? 1.3f : 1}};
        assert_int_equal(engine_add(e, &q, (uint64_t)i, NULL), NVLLM_OK);
        memset(&answers[i], 0, sizeof answers[i]);
        answers[i].end = ENGINE_TOKEN;
    }
}

static void run_all(const family_model *f, backend *b, const int32_t *stops, int64_t kv_tokens)
{
    static float score[128];
    engine *e = open_engine(f, b, kv_tokens);
    add_all(e, f, stops, score);
    run(e);
    engine_close(e);
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

static void compare_with_sync(int64_t kv_tokens)
{
    family_model f = open_model();
    int32_t stops[IDS];
    static answer want[IDS];
    backend *sync = family_backend("cpu", NULL, 1), *late_one = open_late();
    for (int i = 0; i < IDS; i++) stops[i] = -1;
    run_all(&f, sync, stops, kv_tokens);
    for (int i = 1; i < IDS; i += 2) /* every other sequence is to stop at a token from its middle */
        if (answers[i].n > 4) stops[i] = answers[i].tokens[answers[i].n / 2];
    run_all(&f, sync, stops, kv_tokens);
    memcpy(want, answers, sizeof want);
    run_all(&f, late_one, stops, kv_tokens);
    assert_true(seen_ahead);
    int stopped = 0;
    for (int i = 1; i < IDS; i++) {
        stopped += want[i].end == ENGINE_STOP;
        assert_int_equal(answers[i].n, want[i].n);
        assert_memory_equal(&answers[i], &want[i], sizeof want[i]);
    }
    assert_true(stopped > 4);
    close_late(late_one);
    backend_close(sync);
    family_close(&f);
}

static void steps_ahead_give_the_same_answers(void **state)
{
    (void)state;
    compare_with_sync(192 * ROWS);
}

static void steps_ahead_give_the_same_answers_when_pages_run_out(void **state)
{
    (void)state;
    compare_with_sync(64 * 5);
}

static void cancel_acts_within_a_step(void **state)
{
    (void)state;
    family_model f = open_model();
    backend *b = open_late();
    engine *e = open_engine(&f, b, 192 * ROWS);
    int32_t stops[IDS];
    static float score[128];
    const engine_event *events;
    for (int i = 0; i < IDS; i++) stops[i] = -1;
    add_all(e, &f, stops, score);
    while (answers[22].n < 5) take(events, engine_step(e, &events, NULL));
    engine_cancel(e, 22);
    engine_cancel(e, 23);
    take(events, engine_step(e, &events, NULL));
    assert_true(answers[22].n <= 6);
    assert_int_equal(answers[22].end, ENGINE_CANCELLED);
    assert_int_equal(answers[23].end, ENGINE_CANCELLED);
    run(e);
    engine_close(e);
    close_late(b);
    family_close(&f);
}

static void failed_device_is_reported(void **state)
{
    (void)state;
    family_model f = open_model();
    backend *b = open_late();
    engine *e = open_engine(&f, b, 192 * ROWS);
    int32_t stops[IDS], n = 0;
    static float score[128];
    const engine_event *events;
    nvllm_error err = {0};
    for (int i = 0; i < IDS; i++) stops[i] = -1;
    add_all(e, &f, stops, score);
    fail_at = 20;
    for (int i = 0; i < 100 && n >= 0; i++) n = engine_step(e, &events, &err);
    assert_int_equal(n, -1);
    assert_non_null(strstr(err.message, "fell over"));
    engine_close(e);
    close_late(b);
    family_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_ahead_give_the_same_answers),
        cmocka_unit_test(steps_ahead_give_the_same_answers_when_pages_run_out),
        cmocka_unit_test(cancel_acts_within_a_step),
        cmocka_unit_test(failed_device_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
