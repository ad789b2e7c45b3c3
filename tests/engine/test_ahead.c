/* Steps started before the tokens of the one before are known, as on a GPU: the same answers, ends and pages as without.
 *
 * The device of these tests is the CPU backend, with draws that become visible only when they are waited for: who reads
 * a token too early reads the last step's. It may also have memory of its own and record op lists, as a GPU does: what it
 * replays are the ops with the pointers and numbers of the step that was recorded. */
#include "support/fake_device.h"
#include "support/family.h"
#include "support/test.h"

/* ---- A device whose results come late ------------------------------------------------------------------------ */

enum { ROWS = 11, IDS = 36, MOST = 80, SCORE_ONLY = 7, KEYS = BACKEND_MAX_RECORDED + 1, LIST = 512 };

static draw_result late[2 * ROWS]; /* what the steps in flight have drawn, by place in the runner's array */
static draw_result *visible;       /* the runner's array */
static int waits, fail_at; /* fail_at: the number of the wait that finds the device failed; 0: never */
static int steps_run;
static bool seen_ahead; /* a token of a step in flight was named in a batch */

static void run_op(backend *b, op_kind kind, const op_args *args)
{
    static double scratch[1 << 14];
    op_args a = *args;
    steps_run += kind == OP_EMBED;
    if (kind == OP_EMBED)
        for (int32_t t = 0; t < a.embed.T; t++) seen_ahead = seen_ahead || a.embed.tokens[t] < 0;
    if (kind != OP_DRAW) {
        backend_cpu.op[kind](b, args);
        return;
    }
    assert_true(draw_scratch(a.draw.V) <= sizeof scratch);
    visible = a.draw.result;
    a.draw.result = late;
    a.draw.scratch = scratch;
    op_draw_ref(&a.draw);
}

/* ---- Recording ----------------------------------------------------------------------------------------------- */

typedef struct {
    op_kind kind;
    op_args args;
} recorded_op;

static recorded_op *lists[KEYS]; /* [LIST] by key */
static int list_length[KEYS];
static recorded_op *recording; /* NULL: ops run */
static int n_recorded, replays,
    padded; /* padded: replays with more rows than the step had draws to wait for */

static void take_op(backend *b, op_kind kind, const op_args *args)
{
    if (!recording) {
        run_op(b, kind, args);
        return;
    }
    assert_true(n_recorded < LIST);
    recording[n_recorded++] = (recorded_op){kind, *args};
}

/* clang-format off */
static void op_0(backend *b, const op_args *a) { take_op(b, OP_EMBED, a); }
static void op_1(backend *b, const op_args *a) { take_op(b, OP_ROPE_TABLE, a); }
static void op_2(backend *b, const op_args *a) { take_op(b, OP_RMSNORM, a); }
static void op_3(backend *b, const op_args *a) { take_op(b, OP_LINEAR, a); }
static void op_4(backend *b, const op_args *a) { take_op(b, OP_ROPE, a); }
static void op_5(backend *b, const op_args *a) { take_op(b, OP_KV_WRITE, a); }
static void op_6(backend *b, const op_args *a) { take_op(b, OP_ATTENTION, a); }
static void op_7(backend *b, const op_args *a) { take_op(b, OP_SILU_MUL, a); }
static void op_8(backend *b, const op_args *a) { take_op(b, OP_GATHER, a); }
static void op_9(backend *b, const op_args *a) { take_op(b, OP_DRAW, a); }
/* clang-format on */

static void begin_list(backend *b)
{
    (void)b;
    recording = calloc(LIST, sizeof *recording);
    n_recorded = 0;
}

static nvllm_status end_list(backend *b, int32_t key, nvllm_error *err)
{
    (void)b;
    (void)err;
    assert_true(key > 0 && key < KEYS && !lists[key]);
    lists[key] = recording;
    list_length[key] = n_recorded;
    recording = NULL;
    return NVLLM_OK;
}

static bool replay_list(backend *b, int32_t key)
{
    assert_true(key > 0 && key < KEYS);
    if (!lists[key]) return false;
    for (int i = 0; i < list_length[key]; i++) run_op(b, lists[key][i].kind, &lists[key][i].args);
    replays++;
    padded += lists[key][0].args.rope_table.T > 8;
    return true;
}

static void forget_lists(void)
{
    for (int i = 0; i < KEYS; i++) {
        free(lists[i]);
        lists[i] = NULL;
    }
}

/* ---- The device ---------------------------------------------------------------------------------------------- */

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

static backend *open_late(bool records)
{
    backend *b = family_backend("cpu", NULL, 1);
    late_type = backend_cpu;
    void (*const ops[OP_FIRST_FUSED])(backend * b, const op_args *args) = {op_0, op_1, op_2, op_3, op_4,
                                                                           op_5, op_6, op_7, op_8, op_9};
    memcpy(late_type.op, ops, sizeof ops);
    late_type.wait = late_wait;
    if (records) {
        fake_device(&late_type);
        late_type.record = begin_list;
        late_type.record_end = end_list;
        late_type.replay = replay_list;
    }
    forget_lists();
    replays = padded = 0;
    b->type = &late_type;
    memset(late, 0, sizeof late);
    waits = fail_at = 0;
    seen_ahead = false;
    return b;
}

static void close_late(backend *b)
{
    forget_lists();
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

static bool plain; /* no penalties, biases and least lengths: such steps are not recorded */

/* Every kind of request: greedy and drawn, with log-probabilities, penalties, biases, least lengths; some are scored. */
static void add_all(engine *e, const family_model *f, const int32_t *stops, float *score)
{
    static const sample_bias bias[2] = {{5, 3.0f}, {9, -4.0f}};
    for (int32_t i = 1; i < IDS; i++) {
        sequence_request q = {.prompt = f->prompt + i % 3,
                              .n_prompt = 3 + 29 * (i % 4),
                              .max_tokens = i == SCORE_ONLY ? 0 : 1 + i * 2,
                              .min_tokens = i % 5 == 0 && !plain ? 6 : 0,
                              .top_logprobs = i % 4 == 1 ? 3 : -1,
                              .stop_ids = &stops[i],
                              .n_stop_ids = stops[i] >= 0 ? 1 : 0,
                              .bias = bias,
                              .n_bias = i % 6 == 2 && !plain ? 2 : 0,
                              .priority = i % 7 == 0 ? -1 : 0,
                              .score = i == SCORE_ONLY || i == 13 ? score : NULL,
                              .sampling = {.temperature = i % 3 ? 0.9f : 0,
                                           .top_p = 0.95f,
                                           .top_k = 50,
                                           .seed = (uint64_t)i,
                                           .repetition_penalty = i % 8 == 3 && !plain ? 1.3f : 1}};
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

static void compare_with_sync(int64_t kv_tokens, bool records)
{
    family_model f = open_model();
    int32_t stops[IDS];
    static answer want[IDS];
    backend *sync = family_backend("cpu", NULL, 1), *late_one = open_late(records);
    for (int i = 0; i < IDS; i++) stops[i] = -1;
    run_all(&f, sync, stops, kv_tokens);
    for (int i = 1; i < IDS; i += 2) /* every other sequence is to stop at a token from its middle */
        if (answers[i].n > 4) stops[i] = answers[i].tokens[answers[i].n / 2];
    run_all(&f, sync, stops, kv_tokens);
    memcpy(want, answers, sizeof want);
    run_all(&f, late_one, stops, kv_tokens);
    assert_true(seen_ahead);
    if (records && plain) assert_true(replays > 50 && padded > 10);
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
    compare_with_sync(192 * ROWS, false);
}

static void steps_ahead_give_the_same_answers_when_pages_run_out(void **state)
{
    (void)state;
    compare_with_sync(64 * 5, false);
}

static void recorded_steps_give_the_same_answers(void **state)
{
    (void)state;
    compare_with_sync(192 * ROWS, true);
    plain = true;
    compare_with_sync(192 * ROWS, true);
    compare_with_sync(64 * 24, true);
    plain = false;
}

static void cancel_acts_within_a_step(void **state)
{
    (void)state;
    family_model f = open_model();
    backend *b = open_late(false);
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

static void sequence_that_ends_by_its_length_is_computed_no_further(void **state)
{
    (void)state;
    family_model f = open_model();
    backend *b = open_late(false);
    engine *e = open_engine(&f, b, 192 * ROWS);
    sequence_request q = {.prompt = f.prompt,
                          .n_prompt = 3,
                          .max_tokens = 5,
                          .top_logprobs = -1,
                          .sampling = {.top_p = 1, .repetition_penalty = 1}};
    answers[1] = (answer){.end = ENGINE_TOKEN};
    steps_run = 0;
    assert_int_equal(engine_add(e, &q, 1, NULL), NVLLM_OK);
    run(e);
    assert_int_equal(answers[1].end, ENGINE_LENGTH);
    assert_int_equal(steps_run, 5); /* the prompt, and four more tokens */
    engine_close(e);
    close_late(b);
    family_close(&f);
}

static void failed_device_is_reported(void **state)
{
    (void)state;
    family_model f = open_model();
    backend *b = open_late(false);
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
        cmocka_unit_test(recorded_steps_give_the_same_answers),
        cmocka_unit_test(cancel_acts_within_a_step),
        cmocka_unit_test(sequence_that_ends_by_its_length_is_computed_no_further),
        cmocka_unit_test(failed_device_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
