/* The step loop on tiny models: what a sequence says never depends on how it was fed or on its neighbours;
 * pages come back; a step allocates nothing; limits and cancellation. */
#include "support/test.h"
#include "support/family.h"

#include <math.h>
#include <stdlib.h>

/* ---- Counting allocations ------------------------------------------------------------------------------------ */

/* Our own malloc family in front of glibc's, counting while `counting` is set. Sanitizers bring theirs: then the
 * count stays zero and the test on it is skipped. */
#if defined(__SANITIZE_ADDRESS__)
#define COUNTS_ALLOCATIONS 0
static long allocations;
static int counting;
#else
#define COUNTS_ALLOCATIONS 1
static volatile long allocations;
static volatile int counting;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    allocations += counting;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations += counting;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    allocations += counting;
    return __libc_realloc(old, size);
}
#endif

/* ---- A small harness ----------------------------------------------------------------------------------------- */

#define MADE 24

typedef struct {
    int32_t tokens[MADE];
    float logprobs[MADE]; /* of the tokens: equal bits mean equal logits, as far as anyone can see */
    sample_logprob top[MADE][4];
    int n;
} answer;

static family_model open_named(const char *name)
{
    static family_case cases[FAMILY_MAX];
    int n = family_cases(cases);
    for (int i = 0; i < n; i++) {
        if (strcmp(cases[i].name, name) != 0) continue;
        family_model f;
        family_open(&f, &cases[i]);
        return f;
    }
    fail_msg("no fixture %s", name);
    return (family_model){0};
}

static engine *open_engine(const family_model *f, backend *b, int32_t sequences, int32_t step_tokens,
                           int32_t row_tokens)
{
    engine *e;
    nvllm_error err = {0};
    engine_options o = {.context = 128,
                        .max_sequences = sequences,
                        .step_tokens = step_tokens,
                        .row_tokens = row_tokens,
                        .kv_tokens = (int64_t)128 * sequences,
                        .kv_type = model_default_kv_type(f->model)};
    if (engine_open(&e, f->model, b, &o, &err)) fail_msg("%s", err.message);
    return e;
}

static sequence_request request_of(const family_model *f, int32_t from, int32_t n_prompt, int32_t max_tokens)
{
    return (sequence_request){
        .prompt = f->prompt + from,
        .n_prompt = n_prompt,
        .max_tokens = max_tokens,
        .top_logprobs = 4,
        .sampling = {
            .temperature = 0.8f, .top_p = 0.95f, .top_k = 40, .seed = 42, .repetition_penalty = 1.1f}};
}

static void collect(answer *a, const engine_event *event)
{
    if (event->token < 0) return;
    a->tokens[a->n] = event->token;
    a->logprobs[a->n] = event->logprob;
    memcpy(a->top[a->n], event->top, sizeof a->top[0]);
    a->n++;
}

/* Runs until idle; the answer of request 1 goes to *a. */
static void run(engine *e, answer *a)
{
    const engine_event *events;
    while (!engine_idle(e)) {
        int32_t n = engine_step(e, &events, NULL);
        for (int32_t i = 0; i < n; i++)
            if (events[i].id == 1) collect(a, &events[i]);
    }
}

static void assert_same(const answer *a, const answer *b)
{
    assert_int_equal(a->n, MADE);
    assert_memory_equal(a, b, sizeof *a);
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

static answer alone(const family_model *f, backend *b, int32_t row_tokens)
{
    answer a = {0};
    engine *e = open_engine(f, b, 1, 64, row_tokens);
    sequence_request q = request_of(f, 0, 77, MADE);
    assert_int_equal(engine_add(e, &q, 1, NULL), NVLLM_OK);
    run(e, &a);
    engine_close(e);
    return a;
}

static answer among_others(const family_model *f, backend *b)
{
    answer a = {0};
    engine *e = open_engine(f, b, 8, 50, 0);
    for (int i = 0; i < 8; i++) {
        sequence_request q = i == 3 ? request_of(f, 0, 77, MADE) : request_of(f, i, 5 + 9 * i, 10 + 3 * i);
        assert_int_equal(engine_add(e, &q, i == 3 ? 1 : 100 + (uint64_t)i, NULL), NVLLM_OK);
    }
    run(e, &a);
    engine_close(e);
    return a;
}

static void check_invariance(const char *name, const char *isa)
{
    family_model f = open_named(name);
    backend *b = family_backend("cpu", isa, 2), *one = family_backend("cpu", isa, 1);
    answer whole = alone(&f, b, 0), by_1 = alone(&f, b, 1), by_7 = alone(&f, b, 7), by_64 = alone(&f, b, 64);
    answer crowd = among_others(&f, b), one_thread = alone(&f, one, 0);
    assert_same(&by_1, &whole);
    assert_same(&by_7, &whole);
    assert_same(&by_64, &whole);
    assert_same(&crowd, &whole);
    assert_same(&one_thread, &whole);
    backend_close(b);
    backend_close(one);
    family_close(&f);
}

static void engine_answer_is_bit_identical_whatever_the_chunks_and_neighbours(void **state)
{
    (void)state;
    static const char *const names[] = {"families/qwen3-tied-bf16", "families/llama-gqa8-llama3-bf16",
                                        "families/mistral-window-f32", "families/qwen2-yarn-f16",
                                        "gguf/llama-linear-q8_0.gguf"};
    static const char *const isas[] = {"scalar", "avx2", "avx512"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int isa = 0; isa <= (int)cpu_isa_detect(); isa++) check_invariance(names[i], isas[isa]);
}

static void engine_score_equals_the_references_log_softmax(void **state)
{
    (void)state;
    family_model f = open_named("families/qwen3-untied-f32");
    backend *b = family_backend("cpu", NULL, 2);
    engine *e = open_engine(&f, b, 2, 32, 13);
    float score[128];
    sequence_request q = {.prompt = f.prompt,
                          .n_prompt = f.n_prompt,
                          .score = score,
                          .top_logprobs = -1,
                          .sampling.repetition_penalty = 1};
    assert_int_equal(engine_add(e, &q, 5, NULL), NVLLM_OK);
    const engine_event *events = NULL;
    int32_t n = 0;
    while (!engine_idle(e)) n = engine_step(e, &events, NULL);
    assert_int_equal(n, 1);
    assert_int_equal(events[0].kind, ENGINE_SCORED);
    int32_t V = f.model->config.V;
    for (int32_t t = 1; t < f.n_prompt; t++) {
        float want = sample_logprobs(f.logits + (size_t)(t - 1) * (size_t)V, V, f.prompt[t], NULL, 0);
        assert_float_equal(score[t], want, 1e-5f * f.max_logit);
    }
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

static void engine_gives_all_pages_back_after_ends_and_cancellations(void **state)
{
    (void)state;
    family_model f = open_named("families/llama-gqa2-f32");
    backend *b = family_backend("cpu", NULL, 1);
    engine *e = open_engine(&f, b, 3, 16, 0);
    const engine_event *events;
    int ended = 0, cancelled = 0;
    for (uint64_t id = 1; id <= 20; id++) {
        sequence_request q = request_of(&f, 0, 10 + (int32_t)id, 10);
        assert_int_equal(engine_add(e, &q, id, NULL), NVLLM_OK);
    }
    for (int steps = 0; !engine_idle(e); steps++) {
        if (steps % 3 == 0) engine_cancel(e, (uint64_t)steps); /* some run, some wait, some are gone */
        int32_t n = engine_step(e, &events, NULL);
        for (int32_t i = 0; i < n; i++) {
            ended += events[i].kind == ENGINE_LENGTH || events[i].kind == ENGINE_STOP;
            cancelled += events[i].kind == ENGINE_CANCELLED;
        }
        engine_counts c = engine_count(e);
        assert_true(c.running <= 3 && c.pages_used <= c.pages);
    }
    assert_int_equal(ended + cancelled, 20);
    assert_true(cancelled >= 3 && ended >= 3);
    assert_int_equal(engine_count(e).pages_used, 0);
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

/* A pool for little more than one sequence, four that want to run: they take turns by preemption, and say what they
 * say alone. */
static void engine_answers_survive_preemption(void **state)
{
    (void)state;
    family_model f = open_named("families/qwen3-tied-bf16");
    backend *b = family_backend("cpu", NULL, 2);
    answer whole = alone(&f, b, 0), a = {0};
    nvllm_error err = {0};
    engine *e;
    engine_options o = {.context = 192,
                        .max_sequences = 4,
                        .step_tokens = 64,
                        .kv_tokens = 4 * 64,
                        .kv_type = model_default_kv_type(f.model)};
    if (engine_open(&e, f.model, b, &o, &err)) fail_msg("%s", err.message);
    for (uint64_t id = 1; id <= 4; id++) {
        sequence_request q = id == 1 ? request_of(&f, 0, 77, MADE) : request_of(&f, (int)id, 50, 60);
        q.priority = id == 1 ? -1 : 0; /* so that it is the one to be preempted */
        assert_int_equal(engine_add(e, &q, id, &err), NVLLM_OK);
    }
    run(e, &a);
    assert_same(&a, &whole);
    assert_true(engine_count(e).preemptions > 0);
    assert_int_equal(engine_count(e).pages_used, 0);
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

static engine *open_cached(const family_model *f, backend *b, bool no_prefix_cache)
{
    engine *e;
    nvllm_error err = {0};
    engine_options o = {.context = 192,
                        .max_sequences = 2,
                        .step_tokens = 64,
                        .kv_tokens = 1024,
                        .kv_type = model_default_kv_type(f->model),
                        .no_prefix_cache = no_prefix_cache};
    if (engine_open(&e, f->model, b, &o, &err)) fail_msg("%s", err.message);
    return e;
}

/* Runs one request; returns how many of its prompt tokens came from the cache. */
static int32_t run_cached(engine *e, const sequence_request *q, answer *a)
{
    const engine_event *events;
    int32_t cached = -1;
    *a = (answer){0};
    assert_int_equal(engine_add(e, q, 1, NULL), NVLLM_OK);
    while (!engine_idle(e)) {
        int32_t n = engine_step(e, &events, NULL);
        for (int32_t i = 0; i < n; i++) {
            if (events[i].kind == ENGINE_STARTED) cached = events[i].cached_tokens;
            collect(a, &events[i]);
        }
    }
    return cached;
}

/* A prompt again, a prompt with another end, a whole turn of a chat: hits, and the answers of an empty cache. */
static void engine_prefix_hits_change_no_answer(void **state)
{
    (void)state;
    family_model f = open_named("families/mistral-window-bf16");
    backend *b = family_backend("cpu", NULL, 2);
    engine *cold = open_cached(&f, b, true), *warm = open_cached(&f, b, false);
    int32_t turn[192];
    answer want, got;
    memcpy(turn, f.prompt, 80 * sizeof *turn);
    const struct {
        int32_t n_prompt, change, cached;
    } rows[] = {{80, -1, 0}, {80, -1, 64}, {80, 70, 64}, {80, 10, 0}, {64, -1, 0}, {65, -1, 64}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        memcpy(turn, f.prompt, 80 * sizeof *turn);
        if (rows[i].change >= 0) turn[rows[i].change] ^= 1;
        sequence_request q = request_of(&f, 0, rows[i].n_prompt, MADE);
        q.prompt = turn;
        assert_int_equal(run_cached(cold, &q, &want), 0);
        assert_int_equal(run_cached(warm, &q, &got), rows[i].cached);
        assert_same(&got, &want);
    }
    sequence_request q =
        request_of(&f, 0, 80, MADE); /* first turn, its answer, and more: 128 tokens are known */
    run_cached(warm, &q, &got);
    memcpy(turn, f.prompt, 80 * sizeof *turn);
    memcpy(turn + 80, got.tokens, MADE * sizeof *turn);
    memcpy(turn + 80 + MADE, f.prompt, 40 * sizeof *turn);
    q = request_of(&f, 0, 80 + MADE + 40, MADE);
    q.prompt = turn;
    run_cached(cold, &q, &want);
    assert_int_equal(run_cached(warm, &q, &got), 64);
    assert_same(&got, &want);
    assert_int_equal(run_cached(warm, &q, &got), 128);
    assert_same(&got, &want);
    assert_int_equal(engine_count(warm).pages_used, 0);
    engine_close(cold);
    engine_close(warm);
    backend_close(b);
    family_close(&f);
}

/* Many prompts over a small pool, so that pages are evicted and reused: never a stale hit. */
static void engine_evicted_pages_are_never_hit(void **state)
{
    (void)state;
    family_model f = open_named("families/llama-gqa2-f32");
    backend *b = family_backend("cpu", NULL, 1);
    engine *cold = open_cached(&f, b, true), *warm = open_cached(&f, b, false);
    uint32_t seed = 5;
    for (int i = 0; i < 60; i++) {
        int32_t prompt[160];
        answer want, got;
        seed = seed * 1664525u + 1013904223u;
        int32_t variant = (int32_t)(seed >> 10) % 12;
        for (int32_t t = 0; t < 160; t++) /* the first page is one of 3, the second one of 12 */
            prompt[t] = f.prompt[(t * 7 + (t < 64 ? variant % 3 : variant)) % 80];
        sequence_request q = request_of(&f, 0, 140 + variant, MADE);
        q.prompt = prompt;
        run_cached(cold, &q, &want);
        run_cached(warm, &q, &got);
        assert_same(&got, &want);
    }
    assert_true(engine_count(warm).prefix_hits > 1000);
    engine_close(cold);
    engine_close(warm);
    backend_close(b);
    family_close(&f);
}

static void engine_steps_allocate_nothing(void **state)
{
    (void)state;
    if (!COUNTS_ALLOCATIONS) skip();
    family_model f = open_named("families/qwen3-tied-bf16");
    backend *b = family_backend("cpu", NULL, 2);
    engine *e = open_engine(&f, b, 4, 32, 0);
    const engine_event *events;
    for (uint64_t id = 1; id <= 4; id++) {
        sequence_request q = request_of(&f, 0, 40, MADE);
        assert_int_equal(engine_add(e, &q, id, NULL), NVLLM_OK);
    }
    counting = 1;
    void *volatile control = malloc(1);
    assert_int_equal(allocations, 1); /* the counter works */
    free(control);
    allocations = 0;
    for (int steps = 0; steps < 20; steps++) engine_step(e, &events, NULL);
    counting = 0;
    assert_int_equal(allocations, 0);
    assert_int_equal(engine_count(e).running, 4);
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

static void engine_add_of_a_prompt_that_never_fits_is_refused(void **state)
{
    (void)state;
    family_model f = open_named("families/llama-gqa2-f32");
    backend *b = family_backend("cpu", NULL, 1);
    engine *e = open_engine(&f, b, 1, 16, 0);
    nvllm_error err = {0};
    int32_t many[200] = {0};
    sequence_request q = {.prompt = many, .n_prompt = 128, .max_tokens = 1};
    assert_int_equal(engine_add(e, &q, 1, &err), NVLLM_ERR_LIMIT);
    assert_non_null(strstr(err.message, "128"));
    q.n_prompt = 100;
    q.max_tokens = 29;
    assert_int_equal(engine_add(e, &q, 1, &err), NVLLM_ERR_LIMIT);
    assert_true(engine_idle(e));
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

static void engine_ends_a_sequence_whose_logits_are_not_numbers(void **state)
{
    (void)state;
    family_model f = open_named("families/llama-gqa2-f32");
    backend *b = family_backend("cpu", NULL, 1);
    float *norm = (float *)(uintptr_t)weights_get(&f.model->weights, W_FINAL_NORM, 0)->data;
    for (int32_t i = 0; i < f.model->config.D; i++) norm[i] = NAN; /* as a damaged file might hold */
    engine *e = open_engine(&f, b, 1, 16, 0);
    sequence_request q = request_of(&f, 0, 4, MADE);
    const engine_event *events = NULL;
    int32_t n = 0;
    assert_int_equal(engine_add(e, &q, 1, NULL), NVLLM_OK);
    while (!engine_idle(e)) n = engine_step(e, &events, NULL);
    assert_int_equal(events[n - 1].kind, ENGINE_FAILED);
    assert_int_equal(engine_count(e).generated_tokens, 0);
    assert_int_equal(engine_count(e).pages_used, 0);
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

static void engine_min_tokens_bans_stop_ids_until_reached(void **state)
{
    (void)state;
    family_model f = open_named("families/llama-gqa2-f32");
    backend *b = family_backend("cpu", NULL, 1);
    engine *e = open_engine(&f, b, 1, 16, 0);
    int32_t everything[512], V = f.model->config.V, made = 0;
    for (int32_t i = 0; i < V; i++) everything[i] = i;
    sequence_request q = {.prompt = f.prompt,
                          .n_prompt = 4,
                          .max_tokens = 20,
                          .min_tokens = 3,
                          .top_logprobs = -1,
                          .stop_ids = everything + 1,
                          .n_stop_ids = V - 1,
                          .sampling = {.top_p = 1, .repetition_penalty = 1}};
    assert_int_equal(engine_add(e, &q, 1, NULL), NVLLM_OK);
    const engine_event *events;
    engine_event last = {0};
    while (!engine_idle(e)) {
        int32_t n = engine_step(e, &events, NULL);
        for (int32_t i = 0; i < n; i++)
            if (events[i].token >= 0) {
                if (++made <= 3) assert_int_equal(events[i].token, 0); /* the only one that is no stop id */
                last = events[i];
            }
    }
    assert_true(made >= 4);
    assert_true(last.kind == ENGINE_STOP || made == 20);
    engine_close(e);
    backend_close(b);
    family_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_answer_is_bit_identical_whatever_the_chunks_and_neighbours),
        cmocka_unit_test(engine_score_equals_the_references_log_softmax),
        cmocka_unit_test(engine_gives_all_pages_back_after_ends_and_cancellations),
        cmocka_unit_test(engine_answers_survive_preemption),
        cmocka_unit_test(engine_prefix_hits_change_no_answer),
        cmocka_unit_test(engine_evicted_pages_are_never_hit),
        cmocka_unit_test(engine_steps_allocate_nothing),
        cmocka_unit_test(engine_add_of_a_prompt_that_never_fits_is_refused),
        cmocka_unit_test(engine_ends_a_sequence_whose_logits_are_not_numbers),
        cmocka_unit_test(engine_min_tokens_bans_stop_ids_until_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
