/* generation_config.json: what is set, what is not, and what is refused. */
#include "support/test.h"

#include "model/generation_config.h"

static generation_config g;
static nvllm_error err;

static nvllm_status read_text(const char *text)
{
    err = (nvllm_error){0};
    return generation_config_read(&g, text, strlen(text), "generation_config.json", &err);
}

static void generation_config_reads_what_is_there(void **state)
{
    (void)state;
    assert_int_equal(
        read_text("{\"temperature\":0.6,\"top_p\":1,\"top_k\":20,\"min_p\":null,\"eos_token_id\":[5,6],"
                  "\"max_new_tokens\":2048,\"repetition_penalty\":1.05,\"unknown\":{}}"),
        NVLLM_OK);
    assert_true(g.temperature.set && g.temperature.value == 0.6f && g.top_p.value == 1.0f);
    assert_true(g.top_k.set && g.top_k.value == 20 && !g.min_p.set && !g.do_sample.set);
    assert_true(g.max_new_tokens.value == 2048 && g.repetition_penalty.value == 1.05f);
    assert_true(g.n_eos == 2 && g.eos[0] == 5 && g.eos[1] == 6);
    assert_int_equal(read_text("{}"), NVLLM_OK);
    assert_true(!g.temperature.set && !g.top_k.set && g.n_eos == 0);
}

static void check_refused(const char *text, const char *sentence)
{
    assert_int_equal(read_text(text), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, sentence);
}

static void generation_config_with_bad_field_is_refused_by_name(void **state)
{
    (void)state;
    check_refused("{\"temperature\":-1}", "generation_config.json: temperature -1 is not in 0..1000");
    check_refused("{\"top_p\":\"0.9\"}", "generation_config.json: top_p is a string, expected a number");
    check_refused("{\"top_k\":0.5}",
                  "generation_config.json: top_k is not a whole number, expected an integer");
    check_refused("{\"max_new_tokens\":0}",
                  "generation_config.json: max_new_tokens 0 is not in 1..2147483647");
    check_refused("{\"repetition_penalty\":0}",
                  "generation_config.json: repetition_penalty 0 is not in 0.001..1000");
    check_refused("{\"eos_token_id\":{}}",
                  "generation_config.json: eos_token_id is not a non-negative integer or a list of them");
    check_refused("[]", "generation_config.json: the top level is not an object");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generation_config_reads_what_is_there),
        cmocka_unit_test(generation_config_with_bad_field_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
