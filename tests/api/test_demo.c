/* models/demo against transformers in float32: prompts as its template renders them, their ids, 128 greedy tokens, and
 * the perplexity of a held-out text. Through the public interface only, as a user of the library would.
 * `test_demo cuda`: the same on the GPU; skipped (77) where there is none. One that tests/emulator plays takes a second
 * for a token, so it makes the first tokens of every other prompt. */
#define _GNU_SOURCE /* strdup */
#include "support/test.h"
#include "nanovllm.h"

#include <jansson.h>
#include <math.h>

#define DEMO    TEST_SOURCE "/models/demo"
#define FIXTURE TEST_FIXTURES "/demo/reference.json"

static nvllm_model *model;
static nvllm_engine *engine;
static json_t *reference;
static const char *device = "cpu";
static bool emulated;

static bool open_all(nvllm_error *err)
{
    nvllm_engine_options options = {.device = device, .context = 512, .max_sequences = 1};
    reference = json_load_file(FIXTURE, 0, NULL);
    return reference && !nvllm_model_open(&model, &(nvllm_model_options){.source = DEMO}, err) &&
           !nvllm_engine_open(&engine, model, &options, err);
}

static void close_all(void)
{
    nvllm_engine_close(engine);
    nvllm_model_close(model);
    json_decref(reference);
}

static const nvllm_tokenizer *tokenizer(void)
{
    const nvllm_tokenizer *t;
    assert_int_equal(nvllm_model_tokenizer(model, &t, NULL), NVLLM_OK);
    return t;
}

/* The first n_want of `want`. */
static void assert_ids(const int32_t *ids, size_t n, const json_t *want, size_t n_want, const char *prompt)
{
    if (n != n_want) fail_msg("%s: %zu ids, expected %zu", prompt, n, n_want);
    assert_true(n_want <= json_array_size(want));
    for (size_t i = 0; i < n; i++)
        if (ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s: id %zu is %d, expected %d", prompt, i, ids[i],
                     (int)json_integer_value(json_array_get(want, i)));
}

/* The prompt's text: rendered by the chat template, or as it is. */
static char *rendered(const json_t *one)
{
    const char *prompt = json_string_value(json_object_get(one, "prompt"));
    if (!json_is_true(json_object_get(one, "chat"))) return strdup(prompt);
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", prompt);
    char *json = json_dumps(messages, 0), *text;
    nvllm_error err;
    if (nvllm_chat_render(model, json, NULL, &text, &err)) fail_msg("%s", err.message);
    assert_string_equal(text, json_string_value(json_object_get(one, "rendered")));
    free(json);
    json_decref(messages);
    return text;
}

static void demo_prompts_and_greedy_tokens_equal_transformers(void **state)
{
    (void)state;
    size_t i;
    json_t *one;
    assert_int_equal(json_array_size(json_object_get(reference, "cases")), 10);
    json_array_foreach(json_object_get(reference, "cases"), i, one)
    {
        if (emulated && i % 2 != 0) continue;
        const char *prompt = json_string_value(json_object_get(one, "prompt"));
        char *text = rendered(one);
        const json_t *prompt_ids = json_object_get(one, "prompt_ids");
        int32_t *ids, made[128];
        size_t n_ids, n = 0, most = emulated ? 3 : 128;
        nvllm_event event = {0};
        assert_int_equal(
            nvllm_tokenize(tokenizer(), text, strlen(text), NVLLM_PARSE_SPECIAL, &ids, &n_ids, NULL),
            NVLLM_OK);
        assert_ids(ids, n_ids, prompt_ids, json_array_size(prompt_ids), prompt);
        nvllm_request q = nvllm_request_defaults(model);
        q.ids = ids;
        q.n_ids = n_ids;
        q.temperature = 0;
        q.max_tokens = (int32_t)most;
        q.ignore_eos = true;
        assert_int_equal(nvllm_submit(engine, &q, NULL, NULL), NVLLM_OK);
        while (event.kind < NVLLM_EVENT_DONE && nvllm_poll(engine, &event, 1, -1))
            if (event.kind == NVLLM_EVENT_TOKEN && n < most) made[n++] = event.token;
        assert_ids(made, n, json_object_get(one, "greedy_ids"), most, prompt);
        nvllm_free(ids);
        free(text);
    }
}

/* Windows do not overlap, and the second half of each is scored; this tokenizer has no BOS to put in front. */
static void demo_perplexity_equals_transformers(void **state)
{
    (void)state;
    if (emulated) skip();
    const json_t *p = json_object_get(reference, "perplexity");
    char path[512], text[65536];
    snprintf(path, sizeof path, "%s/demo/%s", TEST_FIXTURES, json_string_value(json_object_get(p, "text")));
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t len = fread(text, 1, sizeof text, f), n, scored = 0;
    fclose(f);
    assert_true(len > 1000 && len < sizeof text);
    int32_t *ids;
    double sum = 0;
    float logprobs[512];
    size_t window = (size_t)json_integer_value(json_object_get(p, "window"));
    assert_int_equal(nvllm_tokenize(tokenizer(), text, len, 0, &ids, &n, NULL), NVLLM_OK);
    assert_int_equal(n, json_integer_value(json_object_get(p, "tokens")));
    for (size_t at = 0; at + window <= n; at += window) {
        assert_int_equal(nvllm_score(engine, ids + at, window, logprobs, NULL), NVLLM_OK);
        for (size_t i = window / 2 + 1; i < window; i++, scored++) sum -= (double)logprobs[i];
    }
    nvllm_free(ids);
    assert_int_equal(scored, json_integer_value(json_object_get(p, "scored")));
    assert_float_equal(exp(sum / (double)scored), json_real_value(json_object_get(p, "value")), 1e-3);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_prompts_and_greedy_tokens_equal_transformers),
        cmocka_unit_test(demo_perplexity_equals_transformers),
    };
    nvllm_error err = {0};
    if (argc > 1) device = argv[1];
    if (!open_all(&err)) {
        printf("%s: %s\n", argc > 1 ? "skipped" : "failed", err.message);
        close_all();
        return argc > 1 ? 77 : 1;
    }
    emulated = strncmp(nvllm_engine_stats(engine).isa, "emulated", 8) == 0;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_all();
    return failed;
}
