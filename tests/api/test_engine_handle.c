/* The public engine: streams, stop strings, limits, cancellation, scores - on a tiny GGUF that carries a tokenizer. */
#include "support/test.h"
#include "nanovllm.h"

#include <math.h>

#define MODEL TEST_FIXTURES "/gguf/qwen3-bf16.gguf"

typedef struct {
    char text[4096];
    size_t len;
    int32_t ids[256];
    float logprobs[256];
    int n;
    nvllm_event last;
} answer;

static nvllm_model *model;

static int open_model(void **state)
{
    (void)state;
    nvllm_error err;
    if (nvllm_model_open(&model, &(nvllm_model_options){.source = MODEL}, &err)) fail_msg("%s", err.message);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    nvllm_model_close(model);
    return 0;
}

static nvllm_engine *open_engine(int32_t sequences)
{
    nvllm_engine *e;
    nvllm_error err;
    nvllm_engine_options o = {.device = "cpu", .threads = 2, .max_sequences = sequences, .queue = 4};
    if (nvllm_engine_open(&e, model, &o, &err)) fail_msg("%s", err.message);
    return e;
}

static nvllm_request base_request(void)
{
    nvllm_request q = nvllm_request_defaults(model);
    q.text = "ab cab";
    q.max_tokens = 40;
    q.temperature = 1;
    q.seed = 3;
    q.ignore_eos = true;
    q.logprobs = 2;
    return q;
}

static void take(answer *a, const nvllm_event *event)
{
    assert_true(a->len + event->text_len < sizeof a->text);
    memcpy(a->text + a->len, event->text, event->text_len);
    a->len += event->text_len;
    a->text[a->len] = '\0';
    a->last = *event;
    if (event->kind != NVLLM_EVENT_TOKEN) return;
    a->ids[a->n] = event->token;
    a->logprobs[a->n++] = event->logprob;
}

static answer ask(nvllm_engine *e, const nvllm_request *q)
{
    answer a = {.n = 0};
    nvllm_error err;
    if (nvllm_submit(e, q, NULL, &err)) fail_msg("%s", err.message);
    nvllm_event event = {0};
    while (event.kind < NVLLM_EVENT_DONE && nvllm_poll(e, &event, 1, -1)) take(&a, &event);
    return a;
}

static void stream_of_pieces_equals_the_detokenized_whole(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(1);
    nvllm_request q = base_request();
    answer a = ask(e, &q);
    const nvllm_tokenizer *t;
    char *whole;
    size_t len;
    assert_int_equal(nvllm_model_tokenizer(model, &t, NULL), NVLLM_OK);
    assert_int_equal(nvllm_detokenize(t, a.ids, (size_t)a.n, NVLLM_SKIP_SPECIAL, &whole, &len, NULL),
                     NVLLM_OK);
    assert_int_equal(a.n, 40);
    assert_int_equal(a.last.kind, NVLLM_EVENT_DONE);
    assert_int_equal(a.last.finish, NVLLM_FINISH_LENGTH);
    assert_int_equal(a.last.usage.generated_tokens, 40);
    assert_true(len > 10);
    assert_string_equal(a.text, whole);
    nvllm_free(whole);
    nvllm_engine_close(e);
}

/* Every substring of the answer as a stop string: the text ends just before its first occurrence. */
static void stop_string_ends_the_text_before_itself(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(1);
    nvllm_request q = base_request();
    answer whole = ask(e, &q);
    for (size_t from = 1; from + 4 < whole.len; from += 3) {
        if ((whole.text[from] & 0xc0) == 0x80) continue; /* inside a character */
        size_t size = 1;
        while ((whole.text[from + size] & 0xc0) == 0x80 || size < 4) size++;
        char stop[16] = "";
        memcpy(stop, whole.text + from, size);
        const char *stops[] = {"never to be seen", stop};
        q.stop = stops;
        q.n_stop = 2;
        answer a = ask(e, &q);
        size_t want = (size_t)(strstr(whole.text, stop) - whole.text);
        if (a.len != want) fail_msg("stop \"%s\" in \"%s\" gave \"%s\"", stop, whole.text, a.text);
        assert_memory_equal(a.text, whole.text, want);
        assert_int_equal(a.last.finish, NVLLM_FINISH_STOP);
        q.include_stop = true;
        a = ask(e, &q);
        assert_int_equal(a.len, want + strlen(stop));
        q.include_stop = false;
    }
    nvllm_engine_close(e);
}

static void answers_do_not_depend_on_what_runs_beside_them(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(4);
    nvllm_request q = base_request(), other = base_request();
    answer alone = ask(e, &q), a = {.n = 0};
    uint64_t id, ids[3];
    static const char *const prompts[] = {"c", "a longer prompt of other words", "xyz xyz"};
    assert_int_equal(nvllm_submit(e, &q, &id, NULL), NVLLM_OK);
    for (int i = 0; i < 3; i++) {
        other.text = prompts[i];
        other.seed = (uint64_t)i;
        other.max_tokens = 10 + i;
        assert_int_equal(nvllm_submit(e, &other, &ids[i], NULL), NVLLM_OK);
    }
    nvllm_event events[7];
    size_t n;
    int ends = 0;
    while ((n = nvllm_poll(e, events, 7, -1)) > 0)
        for (size_t i = 0; i < n; i++) {
            if (events[i].request == id) take(&a, &events[i]);
            ends += events[i].kind == NVLLM_EVENT_DONE;
        }
    assert_int_equal(ends, 4);
    assert_string_equal(a.text, alone.text);
    assert_memory_equal(a.ids, alone.ids, sizeof a.ids);
    assert_memory_equal(a.logprobs, alone.logprobs, sizeof a.logprobs);
    nvllm_engine_close(e);
}

static void cancel_ends_a_request_and_others_go_on(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(2);
    nvllm_request q = base_request();
    uint64_t first, second;
    q.max_tokens = 0;
    assert_int_equal(nvllm_submit(e, &q, &first, NULL), NVLLM_OK);
    assert_int_equal(nvllm_submit(e, &q, &second, NULL), NVLLM_OK);
    nvllm_cancel(e, first);
    nvllm_cancel(e, 999);
    nvllm_event event;
    nvllm_finish ends[2] = {NVLLM_FINISH_NONE, NVLLM_FINISH_NONE};
    while (nvllm_poll(e, &event, 1, -1))
        if (event.kind == NVLLM_EVENT_DONE) ends[event.request == second] = event.finish;
    assert_int_equal(ends[0], NVLLM_FINISH_CANCELLED);
    assert_int_equal(ends[1], NVLLM_FINISH_LENGTH);
    assert_int_equal(nvllm_engine_stats(e).kv_tokens_used, 0);
    nvllm_engine_close(e);
}

static void score_equals_the_log_probabilities_of_the_stream(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(1);
    nvllm_request q = base_request();
    int32_t ids[64] = {1, 5, 9};
    float scores[64];
    q.text = NULL;
    q.ids = ids;
    q.n_ids = 3;
    answer a = ask(e, &q);
    memcpy(ids + 3, a.ids, (size_t)a.n * sizeof *ids);
    assert_int_equal(nvllm_score(e, ids, 3 + (size_t)a.n, scores, NULL), NVLLM_OK);
    for (int i = 0; i < a.n; i++) assert_float_equal(scores[3 + i], a.logprobs[i], 0); /* the same bits */
    assert_true(isfinite(scores[1]) && scores[1] < 0);
    nvllm_engine_close(e);
}

static void prompt_logprobs_come_first_and_equal_the_score(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(2);
    nvllm_request q = base_request();
    int32_t ids[100];
    float scores[100];
    for (int i = 0; i < 100; i++) ids[i] = 1 + i % 90;
    q.text = NULL;
    q.ids = ids;
    q.n_ids = 100;
    q.prompt_logprobs = true;
    q.max_tokens = 2;
    assert_int_equal(nvllm_score(e, ids, 100, scores, NULL), NVLLM_OK);
    for (int again = 0; again < 2; again++) { /* the second time the prompt's pages are in the prefix cache */
        nvllm_event event = {0};
        int prompt = 0, tokens = 0;
        assert_int_equal(nvllm_submit(e, &q, NULL, NULL), NVLLM_OK);
        while (event.kind < NVLLM_EVENT_DONE && nvllm_poll(e, &event, 1, -1)) {
            if (event.kind == NVLLM_EVENT_TOKEN) tokens++;
            if (event.kind != NVLLM_EVENT_PROMPT) continue;
            assert_int_equal(tokens, 0);
            assert_int_equal(event.token, ids[prompt]);
            assert_float_equal(event.logprob, scores[prompt], 0);
            assert_int_equal(event.n_top, prompt ? 2 : 0);
            if (prompt)
                assert_true(event.top[0].logprob >= event.top[1].logprob &&
                            event.top[0].logprob >= event.logprob);
            prompt++;
        }
        assert_int_equal(prompt, 100);
        assert_int_equal(tokens, 2);
    }
    nvllm_engine_close(e);
}

static void a_prompt_again_reports_its_cached_tokens(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(2);
    nvllm_request q = base_request();
    int32_t ids[100];
    for (int i = 0; i < 100; i++) ids[i] = 1 + i % 80;
    q.text = NULL;
    q.ids = ids;
    q.n_ids = 100;
    answer first = ask(e, &q), second = ask(e, &q);
    assert_int_equal(first.last.usage.cached_tokens, 0);
    assert_int_equal(second.last.usage.cached_tokens, 64);
    assert_memory_equal(first.ids, second.ids, sizeof first.ids);
    assert_int_equal(nvllm_engine_stats(e).prefix_hits, 64);
    nvllm_engine_close(e);
}

static void submit_refuses_what_is_out_of_range_and_names_it(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(1);
    nvllm_error err;
    int32_t bad_ids[] = {3, 1000000};
    static int32_t many[5000];
    struct {
        nvllm_request q;
        const char *word;
    } cases[10];
    for (int i = 0; i < 10; i++) cases[i].q = base_request();
    cases[0].q.temperature = -1, cases[0].word = "temperature";
    cases[1].q.top_p = 0, cases[1].word = "top_p";
    cases[2].q.temperature = NAN, cases[2].word = "temperature";
    cases[3].q.logprobs = 21, cases[3].word = "logprobs";
    cases[4].q.text = NULL, cases[4].word = "no prompt";
    cases[5].q.text = NULL, cases[5].q.ids = bad_ids, cases[5].q.n_ids = 2, cases[5].word = "1000000";
    cases[6].q.text = "abc\xff", cases[6].word = "UTF-8";
    cases[7].q.text = NULL, cases[7].q.ids = many, cases[7].q.n_ids = 5000, cases[7].word = "5000";
    cases[8].q.stop = (const char *[]){""}, cases[8].q.n_stop = 1, cases[8].word = "stop";
    cases[9].q.stop_ids = bad_ids, cases[9].q.n_stop_ids = 2, cases[9].word = "stop_ids";
    for (int i = 0; i < 10; i++) {
        nvllm_status want = i == 6 ? NVLLM_ERR_FORMAT : i == 7 ? NVLLM_ERR_LIMIT : NVLLM_ERR_USAGE;
        assert_int_equal(nvllm_submit(e, &cases[i].q, NULL, &err), want);
        assert_int_equal(err.code, want);
        if (!strstr(err.message, cases[i].word)) fail_msg("case %d: %s", i, err.message);
    }
    nvllm_event event;
    assert_int_equal(nvllm_poll(e, &event, 1, -1), 0); /* nothing is left to wait for */
    nvllm_engine_close(e);
}

static void a_full_queue_is_busy_and_close_with_work_left_leaks_nothing(void **state)
{
    (void)state;
    nvllm_engine *e = open_engine(1);
    nvllm_request q = base_request();
    nvllm_error err;
    nvllm_status st = NVLLM_OK;
    q.max_tokens = 0;
    for (int i = 0; i < 50 && !st; i++) st = nvllm_submit(e, &q, NULL, &err);
    assert_int_equal(st, NVLLM_ERR_BUSY);
    nvllm_engine_close(e);
}

static void engine_open_refuses_more_memory_or_context_than_there_is(void **state)
{
    (void)state;
    nvllm_engine *e;
    nvllm_error err;
    nvllm_engine_options o = {.device = "cpu", .context = 1 << 30};
    assert_int_equal(nvllm_engine_open(&e, model, &o, &err), NVLLM_ERR_LIMIT);
    o = (nvllm_engine_options){.device = "cpu", .kv_tokens = (int64_t)1 << 40};
    assert_int_equal(nvllm_engine_open(&e, model, &o, &err), NVLLM_ERR_MEMORY);
    assert_non_null(strstr(err.message, "GB"));
    o = (nvllm_engine_options){.device = "tpu"};
    assert_int_equal(nvllm_engine_open(&e, model, &o, &err), NVLLM_ERR_USAGE);
    o = (nvllm_engine_options){.isa = "mmx"};
    assert_int_equal(nvllm_engine_open(&e, model, &o, &err), NVLLM_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_of_pieces_equals_the_detokenized_whole),
        cmocka_unit_test(stop_string_ends_the_text_before_itself),
        cmocka_unit_test(answers_do_not_depend_on_what_runs_beside_them),
        cmocka_unit_test(cancel_ends_a_request_and_others_go_on),
        cmocka_unit_test(score_equals_the_log_probabilities_of_the_stream),
        cmocka_unit_test(prompt_logprobs_come_first_and_equal_the_score),
        cmocka_unit_test(a_prompt_again_reports_its_cached_tokens),
        cmocka_unit_test(submit_refuses_what_is_out_of_range_and_names_it),
        cmocka_unit_test(a_full_queue_is_busy_and_close_with_work_left_leaks_nothing),
        cmocka_unit_test(engine_open_refuses_more_memory_or_context_than_there_is),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
