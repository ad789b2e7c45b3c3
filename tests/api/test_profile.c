/* Profiles of the public engine, and check_layers: what their documents say, and what is refused. */
#define _GNU_SOURCE
#include "support/test.h"
#include "nanovllm.h"

#include <jansson.h>
#include <time.h>

#define MODEL TEST_FIXTURES "/gguf/qwen3-bf16.gguf"

static nvllm_model *model;
static nvllm_engine *engine;

static int open_all(void **state)
{
    (void)state;
    nvllm_error err;
    nvllm_engine_options o = {.device = "cpu", .threads = 2, .max_sequences = 2, .step_tokens = 8};
    if (nvllm_model_open(&model, &(nvllm_model_options){.source = MODEL}, &err)) fail_msg("%s", err.message);
    if (nvllm_engine_open(&engine, model, &o, &err)) fail_msg("%s", err.message);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    nvllm_engine_close(engine);
    nvllm_model_close(model);
    return 0;
}

/* A prompt of n_prompt tokens and n_gen tokens of answer; returns the time of the last. */
static double run_request(int32_t n_prompt, int32_t n_gen)
{
    int32_t ids[64];
    double last = 0;
    nvllm_error err;
    for (int32_t i = 0; i < n_prompt; i++) ids[i] = 3 + (i * 7 + n_gen) % 40;
    nvllm_request q = nvllm_request_defaults(model);
    q.ids = ids;
    q.n_ids = (size_t)n_prompt;
    q.max_tokens = n_gen;
    q.ignore_eos = true;
    if (nvllm_submit(engine, &q, NULL, &err)) fail_msg("%s", err.message);
    for (nvllm_event event = {0}; event.kind < NVLLM_EVENT_DONE;) {
        assert_int_equal(nvllm_poll(engine, &event, 1, -1), 1);
        if (event.kind != NVLLM_EVENT_TOKEN) continue;
        assert_true(event.seconds > last);
        last = event.seconds;
    }
    return last;
}

static json_t *stop(void)
{
    nvllm_error err;
    char *text;
    if (nvllm_profile_stop(engine, &text, &err)) fail_msg("%s", err.message);
    json_t *document = json_loads(text, 0, NULL);
    assert_non_null(document);
    nvllm_free(text);
    return document;
}

static json_int_t whole(const json_t *o, const char *key)
{
    assert_true(json_is_integer(json_object_get(o, key)));
    return json_integer_value(json_object_get(o, key));
}

static void profile_lists_every_step_between_start_and_stop(void **state)
{
    (void)state;
    static const json_int_t tokens[] = {8, 8, 4, 1, 1}, kv[] = {8, 16, 20, 21, 22};
    run_request(5, 2); /* before: not listed */
    assert_int_equal(nvllm_profile_start(engine, NULL), NVLLM_OK);
    run_request(20, 3);
    json_t *document = stop(), *steps = json_object_get(document, "steps"), *step;
    run_request(5, 2); /* after */
    assert_int_equal(json_array_size(steps), 5);
    assert_int_equal(whole(document, "dropped_steps"), 0);
    size_t i, n_ops = json_array_size(json_object_get(document, "ops"));
    double before = 0;
    json_array_foreach(steps, i, step)
    {
        assert_int_equal(whole(step, "tokens"), tokens[i]);
        assert_int_equal(whole(step, "kv_tokens"), kv[i]);
        assert_int_equal(whole(step, "logits"), i >= 2);
        double begin = json_number_value(json_object_get(step, "begin_us"));
        double launch = json_number_value(json_object_get(step, "launch_us"));
        double launched = json_number_value(json_object_get(step, "launched_us"));
        double end = json_number_value(json_object_get(step, "end_us"));
        assert_true(before <= begin && begin <= launch && launch < launched && launched <= end);
        before = end;
        size_t ran = json_array_size(json_object_get(step, "times"));
        assert_true(i >= 2 ? ran == n_ops : ran < n_ops); /* without the head's */
    }
    json_decref(document);
}

static void profile_counts_bytes_of_weights_and_cache(void **state)
{
    (void)state;
    nvllm_model_info info = nvllm_model_describe(model);
    nvllm_stats stats = nvllm_engine_stats(engine);
    assert_int_equal(nvllm_profile_start(engine, NULL), NVLLM_OK);
    run_request(6, 2);
    json_t *document = stop(), *step = json_array_get(json_object_get(document, "steps"), 1), *time;
    json_int_t bytes = 0;
    size_t i;
    json_array_foreach(json_object_get(step, "times"), i, time) bytes +=
        json_integer_value(json_array_get(time, 3));
    /* All weights once, seven positions read and one written. */
    assert_int_equal(bytes, info.bytes_per_token + 8 * stats.kv_bytes_per_token);
    json_decref(document);
}

static void profile_twice_or_never_started_is_refused(void **state)
{
    (void)state;
    nvllm_error err;
    char *text = NULL;
    assert_int_equal(nvllm_profile_stop(engine, &text, &err), NVLLM_ERR_USAGE);
    assert_string_equal(err.message, "no profile is being taken");
    assert_null(text);
    assert_int_equal(nvllm_profile_start(engine, &err), NVLLM_OK);
    assert_int_equal(nvllm_profile_start(engine, &err), NVLLM_ERR_USAGE);
    assert_string_equal(err.message, "a profile is being taken already");
    json_decref(stop());
}

static void profile_left_running_is_closed_with_the_engine(void **state)
{
    (void)state;
    nvllm_engine *other;
    assert_int_equal(
        nvllm_engine_open(&other, model, &(nvllm_engine_options){.device = "cpu", .threads = 1}, NULL),
        NVLLM_OK);
    assert_int_equal(nvllm_profile_start(other, NULL), NVLLM_OK);
    nvllm_engine_close(other); /* the sanitizer's to judge */
}

static void token_events_carry_the_time_of_the_step(void **state)
{
    (void)state;
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    double last = run_request(5, 4);
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true(last > (double)before.tv_sec + (double)before.tv_nsec * 1e-9);
    assert_true(last < (double)after.tv_sec + (double)after.tv_nsec * 1e-9);
}

static void check_refused(const int32_t *ids, size_t n, const nvllm_check_options *o, nvllm_status code,
                          const char *sentence)
{
    nvllm_error err = {0};
    char *text = NULL;
    assert_int_equal(nvllm_check_layers(model, ids, n, o, &text, &err), code);
    assert_null(text);
    assert_non_null(strstr(err.message, sentence));
}

static void check_layers_refuses_wrong_arguments(void **state)
{
    (void)state;
    int32_t ids[4] = {3, 4, 5, 1 << 20};
    nvllm_check_options plain = {.device = "cpu"}, other = plain;
    check_refused(ids, 0, &plain, NVLLM_ERR_USAGE, "no tokens");
    check_refused(ids, 4, &plain, NVLLM_ERR_USAGE, "not in the vocabulary");
    ids[3] = -1;
    check_refused(ids, 4, &plain, NVLLM_ERR_USAGE, "token -1");
    check_refused(ids, (size_t)1 << 33, &plain, NVLLM_ERR_LIMIT, "at most");
    other.step_tokens = -1;
    check_refused(ids, 3, &other, NVLLM_ERR_USAGE, "step_tokens is -1");
    other = plain;
    other.bound = -1;
    check_refused(ids, 3, &other, NVLLM_ERR_USAGE, "bound is -1");
    other = plain;
    other.against = "abacus";
    check_refused(ids, 3, &other, NVLLM_ERR_USAGE, "abacus");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profile_lists_every_step_between_start_and_stop),
        cmocka_unit_test(profile_counts_bytes_of_weights_and_cache),
        cmocka_unit_test(profile_twice_or_never_started_is_refused),
        cmocka_unit_test(profile_left_running_is_closed_with_the_engine),
        cmocka_unit_test(token_events_carry_the_time_of_the_step),
        cmocka_unit_test(check_layers_refuses_wrong_arguments),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
