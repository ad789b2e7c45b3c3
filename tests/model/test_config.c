/* config.json: one good file per family, changed one field at a time. */
#include "support/test.h"

#include "model/config.h"

#include <jansson.h>

static const char *const base = "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"hidden_size\":64,"
                                "\"intermediate_size\":128,\"num_hidden_layers\":4,\"num_attention_heads\":8,"
                                "\"num_key_value_heads\":2,\"head_dim\":16,\"vocab_size\":100,"
                                "\"max_position_embeddings\":512}";

static model_config config;
static nvllm_error err;

/* Reads the base config of a family with the fields of `changes` put over it; a field that is "-" is removed. */
static nvllm_status read_changed(const char *architecture, const char *model_type, const char *changes)
{
    char text[512];
    const char *key;
    json_t *value, *object, *over = json_loads(changes, 0, NULL);
    snprintf(text, sizeof text, base, architecture, model_type);
    object = json_loads(text, 0, NULL);
    assert_true(object && over);
    json_object_foreach(over, key, value)
    {
        if (json_is_string(value) && !strcmp(json_string_value(value), "-"))
            json_object_del(object, key);
        else
            json_object_set(object, key, value);
    }
    char *all = json_dumps(object, 0);
    err = (nvllm_error){0};
    nvllm_status st = config_read_json(&config, all, strlen(all), "config.json", &err);
    free(all);
    json_decref(object);
    json_decref(over);
    return st;
}

static void read_llama(const char *changes)
{
    if (read_changed("LlamaForCausalLM", "llama", changes)) fail_msg("%s", err.message);
}

static void read_qwen2(const char *changes)
{
    if (read_changed("Qwen2ForCausalLM", "qwen2", changes)) fail_msg("%s", err.message);
}

static void check_refused(const char *changes, nvllm_status code, const char *sentence)
{
    nvllm_status st = read_changed("LlamaForCausalLM", "llama", changes);
    if (strcmp(err.message, sentence) != 0) fail_msg("got:    %s\nwanted: %s", err.message, sentence);
    assert_int_equal(st, code);
}

static void config_of_llama_reads_sizes_and_defaults(void **state)
{
    (void)state;
    read_llama("{}");
    assert_string_equal(config.family->architecture, "LlamaForCausalLM");
    assert_true(config.L == 4 && config.D == 64 && config.H == 8 && config.K == 2 && config.C == 16);
    assert_true(config.F == 128 && config.V == 100 && config.max_context == 512);
    assert_true(config.norm_eps == 1e-6f && config.rope.theta == 10000.0f &&
                config.rope.scaling == ROPE_PLAIN);
    assert_true(config.rope.attention_factor == 1.0f && config.rope.pairing == ROPE_HALVES);
    assert_true(!config.tied && !config.q_bias && !config.o_bias && !config.mlp_bias && !config.qk_norm);
    assert_true(config.window == 0 && config.type == DTYPE_F32 && config.bos == 1);
    assert_true(config.n_eos == 1 && config.eos[0] == 2);
    read_llama("{\"num_key_value_heads\":\"-\",\"head_dim\":\"-\"}");
    assert_true(config.K == 8 && config.C == 8);
    read_llama("{\"num_key_value_heads\":null,\"head_dim\":null}");
    assert_true(config.K == 8 && config.C == 8);
    read_llama("{\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true,\"torch_dtype\":"
               "\"bfloat16\","
               "\"rms_norm_eps\":0.001,\"rope_theta\":500000,\"sliding_window\":16}");
    assert_true(config.q_bias && config.o_bias && config.mlp_bias && config.tied &&
                config.type == DTYPE_BF16);
    assert_true(config.norm_eps == 0.001f && config.rope.theta == 500000.0f && config.window == 0);
    read_llama("{\"dtype\":\"float16\",\"torch_dtype\":\"bfloat16\",\"hidden_act\":\"silu\"}");
    assert_int_equal(config.type, DTYPE_F16);
}

static void config_of_other_families_has_their_defaults(void **state)
{
    (void)state;
    const char *bare = "{\"head_dim\":\"-\",\"num_key_value_heads\":\"-\",\"num_attention_heads\":32}";
    assert_int_equal(read_changed("Qwen3ForCausalLM", "qwen3", bare), NVLLM_OK);
    assert_true(config.C == 128 && config.K == 32 && config.qk_norm && !config.q_bias);
    assert_int_equal(read_changed("MistralForCausalLM", "mistral", bare), NVLLM_OK);
    assert_true(config.C == 2 && config.K == 8 && config.window == 4096 && config.slides[0] &&
                config.slides[3]);
    assert_int_equal(read_changed("Ernie4_5ForCausalLM", "ernie4_5", bare), NVLLM_OK);
    assert_true(config.C == 128 && config.K == 2 && config.tied && config.rope.theta == 500000.0f);
    assert_true(config.rope.pairing == ROPE_PAIRS && config.norm_eps == 1e-5f);
    assert_int_equal(read_changed("Ernie4_5_ForCausalLM", "ernie4_5", "{\"use_bias\":true}"), NVLLM_OK);
    assert_true(config.q_bias && config.o_bias && config.mlp_bias);
    read_qwen2("{}");
    assert_true(config.q_bias && !config.o_bias && config.window == 0);
    assert_true(config.bos == -1 && config.n_eos == 0);
    assert_int_equal(read_changed("x", "qwen3", "{\"architectures\":null}"), NVLLM_OK);
    assert_string_equal(config.family->architecture, "Qwen3ForCausalLM");
}

static void config_window_follows_the_family_rule(void **state)
{
    (void)state;
    assert_int_equal(read_changed("MistralForCausalLM", "mistral", "{\"sliding_window\":null}"), NVLLM_OK);
    assert_true(config.window == 0 && !config.slides[0]);
    assert_int_equal(read_changed("MistralForCausalLM", "mistral", "{\"sliding_window\":16}"), NVLLM_OK);
    assert_true(config.window == 16 && config.slides[0] && config.slides[3]);
    read_qwen2("{\"sliding_window\":16,\"max_window_layers\":1}");
    assert_true(config.window == 0 && !config.slides[2]);
    read_qwen2("{\"use_sliding_window\":true,\"sliding_window\":16,\"max_window_layers\":1}");
    assert_true(config.window == 16 && !config.slides[0] && config.slides[1] && config.slides[3]);
    read_qwen2("{\"use_sliding_window\":true,\"sliding_window\":16}"); /* max_window_layers 28 */
    assert_true(config.window == 0);
    read_qwen2("{\"use_sliding_window\":true,\"max_window_layers\":0}");
    assert_true(config.window == 4096 && config.slides[0]);
    read_qwen2("{\"use_sliding_window\":true,\"sliding_window\":16,\"max_window_layers\":0,\"layer_types\":"
               "[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\"]}");
    assert_true(config.window == 16 && !config.slides[0] && config.slides[1] && !config.slides[2]);
    assert_int_equal(read_changed("Qwen2ForCausalLM", "qwen2",
                                  "{\"layer_types\":[\"full_attention\",\"sliding_attention\",\"x\",\"x\"]}"),
                     NVLLM_ERR_FORMAT);
    assert_string_equal(err.message,
                        "config.json: layer_types entry 1 slides, but there is no sliding_window in use");
    assert_int_equal(read_changed("Qwen2ForCausalLM", "qwen2", "{\"layer_types\":[\"full_attention\"]}"),
                     NVLLM_ERR_FORMAT);
    assert_int_equal(
        read_changed("Qwen2ForCausalLM", "qwen2", "{\"layer_types\":[\"chunked\",\"\",\"\",\"\"]}"),
        NVLLM_ERR_UNSUPPORTED);
    assert_int_equal(read_changed("MistralForCausalLM", "mistral", "{\"sliding_window\":0}"),
                     NVLLM_ERR_FORMAT);
}

static void config_eos_may_be_one_id_a_list_or_null(void **state)
{
    (void)state;
    read_llama("{\"eos_token_id\":7,\"bos_token_id\":1}");
    assert_true(config.n_eos == 1 && config.eos[0] == 7 && config.bos == 1);
    read_llama("{\"eos_token_id\":[7,9,7],\"bos_token_id\":null}");
    assert_true(config.n_eos == 2 && config.eos[1] == 9 && config.bos == -1);
    read_llama("{\"eos_token_id\":[7,100000],\"bos_token_id\":100000}"); /* beyond the vocabulary of 100 */
    assert_true(config.n_eos == 1 && config.bos == -1);
    read_llama("{\"eos_token_id\":null}");
    assert_int_equal(config.n_eos, 0);
    check_refused("{\"eos_token_id\":\"</s>\"}", NVLLM_ERR_FORMAT,
                  "config.json: eos_token_id is not a non-negative integer or a list of them");
    check_refused("{\"eos_token_id\":[-1]}", NVLLM_ERR_FORMAT,
                  "config.json: eos_token_id is not a non-negative integer or a list of them");
    check_refused("{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}", NVLLM_ERR_UNSUPPORTED,
                  "config.json: more than 16 end-of-sequence ids");
}

static void config_with_bad_size_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const keys[] = {"num_hidden_layers", "hidden_size", "num_attention_heads",
                                       "intermediate_size", "vocab_size",  "max_position_embeddings"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        static const char *const bad[][2] = {{"\"-\"", "is missing"},
                                             {"null", "is missing"},
                                             {"0", "0 is not in 1.."},
                                             {"-3", "-3 is not in 1.."},
                                             {"true", "is a boolean"},
                                             {"\"8\"", "is a string"},
                                             {"8.5", "is not a whole number"},
                                             {"[8]", "is a list"},
                                             {"9000000000000", "9000000000000 is not in"}};
        for (size_t j = 0; j < sizeof bad / sizeof *bad; j++) {
            char changes[128], wanted[128];
            snprintf(changes, sizeof changes, "{\"%s\":%s}", keys[i], bad[j][0]);
            snprintf(wanted, sizeof wanted, "config.json: %s %s", keys[i], bad[j][1]);
            assert_int_equal(read_changed("LlamaForCausalLM", "llama", changes), NVLLM_ERR_FORMAT);
            if (strncmp(err.message, wanted, strlen(wanted)) != 0)
                fail_msg("%s\nis not: %s", err.message, wanted);
        }
    }
}

static void config_with_bad_field_is_refused_by_name(void **state)
{
    (void)state;
    check_refused("{\"num_attention_heads\":14,\"num_key_value_heads\":4}", NVLLM_ERR_FORMAT,
                  "config.json: num_attention_heads 14 is not a multiple of num_key_value_heads 4");
    check_refused(
        "{\"num_attention_heads\":6,\"head_dim\":\"-\"}", NVLLM_ERR_FORMAT,
        "config.json: hidden_size 64 is not a multiple of num_attention_heads 6, and there is no head_dim");
    check_refused("{\"head_dim\":15}", NVLLM_ERR_FORMAT,
                  "config.json: head_dim 15 is odd, but rotary embedding needs pairs");
    check_refused("{\"head_dim\":0}", NVLLM_ERR_FORMAT, "config.json: head_dim 0 is not in 1..256");
    check_refused("{\"num_key_value_heads\":-2}", NVLLM_ERR_FORMAT,
                  "config.json: num_key_value_heads -2 is not in 1..16384");
    check_refused("{\"num_attention_heads\":16384,\"head_dim\":128}", NVLLM_ERR_FORMAT,
                  "config.json: num_attention_heads 16384 times head_dim 128 is more than 1048576");
    check_refused("{\"hidden_size\":1048576,\"num_attention_heads\":2,\"head_dim\":null}", NVLLM_ERR_FORMAT,
                  "config.json: head_dim 524288 is more than 256");
    check_refused("{\"rms_norm_eps\":0}", NVLLM_ERR_FORMAT, "config.json: rms_norm_eps 0 is not in 1e-20..1");
    check_refused("{\"rope_theta\":-10000.0}", NVLLM_ERR_FORMAT,
                  "config.json: rope_theta -10000 is not in 1.001..1e+15");
    check_refused("{\"rope_theta\":\"1e4\"}", NVLLM_ERR_FORMAT,
                  "config.json: rope_theta is a string, expected a number");
    check_refused("{\"tie_word_embeddings\":1}", NVLLM_ERR_FORMAT,
                  "config.json: tie_word_embeddings is an integer, expected true or false");
    check_refused("{\"hidden_act\":\"gelu\"}", NVLLM_ERR_UNSUPPORTED,
                  "config.json: hidden_act gelu is not supported; silu is");
    check_refused("{\"torch_dtype\":\"float8_e4m3fn\"}", NVLLM_ERR_UNSUPPORTED,
                  "config.json: torch_dtype float8_e4m3fn is not supported; float32, float16, bfloat16 are");
    check_refused("{\"quantization_config\":{\"quant_method\":\"gptq\"}}", NVLLM_ERR_UNSUPPORTED,
                  "config.json: quantization_config (gptq) is not supported");
    check_refused("{\"partial_rotary_factor\":0.5}", NVLLM_ERR_UNSUPPORTED,
                  "config.json: partial_rotary_factor 0.5 is not supported; 1 is");
}

static void config_of_unknown_architecture_lists_the_known(void **state)
{
    (void)state;
    const char *list =
        "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Ernie4_5ForCausalLM";
    char wanted[512];
    snprintf(wanted, sizeof wanted,
             "config.json: architecture GPT2LMHeadModel is not supported; supported are %s", list);
    check_refused("{\"architectures\":[\"GPT2LMHeadModel\"]}", NVLLM_ERR_UNSUPPORTED, wanted);
    snprintf(wanted, sizeof wanted,
             "config.json: architecture gemma3_text is not supported; supported are %s", list);
    check_refused("{\"architectures\":\"-\",\"model_type\":\"gemma3_text\"}", NVLLM_ERR_UNSUPPORTED, wanted);
    check_refused("{\"architectures\":[],\"model_type\":null}", NVLLM_ERR_FORMAT,
                  "config.json: architectures is missing");
    check_refused("{\"architectures\":\"LlamaForCausalLM\"}", NVLLM_ERR_FORMAT,
                  "config.json: architectures is not a list of strings");
    check_refused(
        "{\"model_type\":\"granite\"}", NVLLM_ERR_UNSUPPORTED,
        "config.json: model_type granite does not go with architecture LlamaForCausalLM, which is llama");
}

static void config_with_bad_rope_scaling_is_refused_by_name(void **state)
{
    (void)state;
    check_refused(
        "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", NVLLM_ERR_UNSUPPORTED,
        "config.json: rope_scaling.type dynamic is not supported; default, linear, llama3, yarn are");
    check_refused("{\"rope_parameters\":{\"rope_type\":\"longrope\"}}", NVLLM_ERR_UNSUPPORTED,
                  "config.json: rope_parameters.rope_type longrope is not supported; default, linear, "
                  "llama3, yarn are");
    check_refused("{\"rope_scaling\":{\"type\":\"linear\"}}", NVLLM_ERR_FORMAT,
                  "config.json: rope_scaling.factor is missing");
    check_refused("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", NVLLM_ERR_FORMAT,
                  "config.json: rope_scaling.factor 0 is not in 1e-06..1e+06");
    check_refused("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_"
                  "freq_factor\":4}}",
                  NVLLM_ERR_FORMAT,
                  "config.json: rope_scaling.high_freq_factor 4 is not above low_freq_factor 4");
    check_refused("{\"rope_scaling\":{\"rope_type\":\"yarn\"}}", NVLLM_ERR_FORMAT,
                  "config.json: rope_scaling.factor is missing");
    check_refused("{\"rope_scaling\":2}", NVLLM_ERR_FORMAT,
                  "config.json: rope_scaling is not an object or null");
    check_refused("{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
                  NVLLM_ERR_UNSUPPORTED,
                  "config.json: rope_parameters.full_attention (RoPE per layer type) is not supported");
}

static void config_that_is_not_json_is_refused(void **state)
{
    (void)state;
    assert_int_equal(config_read_json(&config, "{\"a\":1,}", 8, "config.json", &err), NVLLM_ERR_FORMAT);
    assert_non_null(strstr(err.message, "config.json:1: not valid JSON"));
    assert_int_equal(config_read_json(&config, "{\"a\":1,\"a\":2}", 13, "config.json", &err),
                     NVLLM_ERR_FORMAT);
    assert_int_equal(config_read_json(&config, "[]", 2, "config.json", &err), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, "config.json: the top level is not an object");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_of_llama_reads_sizes_and_defaults),
        cmocka_unit_test(config_of_other_families_has_their_defaults),
        cmocka_unit_test(config_window_follows_the_family_rule),
        cmocka_unit_test(config_eos_may_be_one_id_a_list_or_null),
        cmocka_unit_test(config_with_bad_size_is_refused_by_name),
        cmocka_unit_test(config_with_bad_field_is_refused_by_name),
        cmocka_unit_test(config_of_unknown_architecture_lists_the_known),
        cmocka_unit_test(config_with_bad_rope_scaling_is_refused_by_name),
        cmocka_unit_test(config_that_is_not_json_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
