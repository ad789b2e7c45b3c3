/* RoPE frequencies against transformers' own, for every scaling; the fixture is made by make_rope_reference.py. */
#include "support/test.h"

#include "base/half.h"
#include "model/config.h"

#include <jansson.h>

/* Distance in representable float32 values. */
static int64_t ulps(float a, float b)
{
    int64_t x = (int32_t)float_bits(a), y = (int32_t)float_bits(b);
    return x > y ? x - y : y - x;
}

static void check_case(const char *name, const json_t *item)
{
    static model_config config;
    nvllm_error err = {0};
    char *text = json_dumps(json_object_get(item, "config"), 0);
    const json_t *expected = json_object_get(item, "inv_freq");
    if (config_read_json(&config, text, strlen(text), "config.json", &err) != NVLLM_OK)
        fail_msg("%s: %s", name, err.message);
    free(text);
    assert_int_equal(json_array_size(expected), config.C / 2);
    float *inv_freq = malloc((size_t)config.C / 2 * sizeof *inv_freq);
    config_rope_frequencies(&config, inv_freq);
    int64_t worst = 0, different = 0;
    for (int32_t i = 0; i < config.C / 2; i++) {
        int64_t d = ulps(inv_freq[i], (float)json_real_value(json_array_get(expected, (size_t)i)));
        if (d > worst) worst = d;
        different += d != 0;
    }
    print_message("%-28s worst %lld ulp, %lld of %d differ\n", name, (long long)worst, (long long)different,
                  config.C / 2);
    assert_true(worst <= 1); /* the reference's own pow is not correctly rounded */
    float attention = (float)json_real_value(json_object_get(item, "attention_factor"));
    assert_true(ulps(config.rope.attention_factor, attention) <= 1);
    free(inv_freq);
}

static void rope_frequencies_of_every_scaling_equal_transformers(void **state)
{
    (void)state;
    const char *name;
    json_t *item, *root = json_load_file(TEST_FIXTURES "/configs/rope_reference.json", 0, NULL);
    assert_true(json_object_size(root) >= 16);
    json_object_foreach(root, name, item) check_case(name, item);
    json_decref(root);
}

static void rope_frequencies_with_divisors_are_divided(void **state)
{
    (void)state;
    const float divisors[4] = {1, 2, 4, 8};
    static model_config config;
    config = (model_config){.C = 8, .rope = {.theta = 10000, .factor = 1, .divisors = divisors}};
    float inv_freq[4];
    config_rope_frequencies(&config, inv_freq);
    assert_true(inv_freq[0] == 1.0f && inv_freq[1] == 0.1f / 2 && inv_freq[2] == 0.01f / 4 &&
                inv_freq[3] == 0.001f / 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rope_frequencies_of_every_scaling_equal_transformers),
        cmocka_unit_test(rope_frequencies_with_divisors_are_divided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
