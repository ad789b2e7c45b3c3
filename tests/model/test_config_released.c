/* The configs of released models: the right values, or a refusal that names the architecture. And the tiny models of
 * tests/fixtures/families, whose config.json spell everything in both styles. */
#include "support/test.h"

#include "base/file.h"
#include "model/config.h"
#include "model/generation_config.h"

#include <dirent.h>

static model_config config;

static nvllm_status read_config(const char *folder, nvllm_error *err)
{
    size_t len;
    char *text, *path = file_join(folder, "config.json");
    nvllm_status st = file_read(&text, &len, path, 1 << 20, err);
    if (!st) st = config_read_json(&config, text, len, "config.json", err);
    free(text);
    free(path);
    return st;
}

typedef struct {
    const char *folder;
    int32_t L, D, H, K, C, F, V, max_context;
    float theta, eps;
    bool tied;
    rope_scaling scaling;
    int32_t n_eos;
} expected;

static const expected released[] = {
    {"Qwen3-4B", 36, 2560, 32, 8, 128, 9728, 151936, 40960, 1e6f, 1e-6f, true, ROPE_PLAIN, 1},
    {"Qwen3-8B", 36, 4096, 32, 8, 128, 12288, 151936, 40960, 1e6f, 1e-6f, false, ROPE_PLAIN, 1},
    {"Qwen3-14B", 40, 5120, 40, 8, 128, 17408, 151936, 40960, 1e6f, 1e-6f, false, ROPE_PLAIN, 1},
    {"Qwen3-32B", 64, 5120, 64, 8, 128, 25600, 151936, 40960, 1e6f, 1e-6f, false, ROPE_PLAIN, 1},
    {"qwen3_0.6b", 28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6f, 1e-6f, true, ROPE_PLAIN, 1},
    {"qwen3_1.7b", 28, 2048, 16, 8, 128, 6144, 151936, 40960, 1e6f, 1e-6f, true, ROPE_PLAIN, 1},
    {"Qwen2.5-3B", 36, 2048, 16, 2, 128, 11008, 151936, 32768, 1e6f, 1e-6f, true, ROPE_PLAIN, 1},
    {"Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064, 131072, 1e6f, 1e-6f, false, ROPE_PLAIN, 1},
    {"Llama-3.1-8B", 32, 4096, 32, 8, 128, 14336, 128256, 131072, 5e5f, 1e-5f, false, ROPE_LLAMA3, 1},
    {"Llama-3.2-3B", 28, 3072, 24, 8, 128, 8192, 128256, 131072, 5e5f, 1e-5f, true, ROPE_LLAMA3, 1},
    {"llama3_2_1b", 16, 2048, 32, 8, 64, 8192, 128256, 131072, 5e5f, 1e-5f, true, ROPE_LLAMA3, 3},
    {"smollm2_135m", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5f, 1e-5f, true, ROPE_PLAIN, 1},
    {"tinyllama_1b_chat_v1.0", 22, 2048, 32, 4, 64, 5632, 32000, 2048, 1e4f, 1e-5f, false, ROPE_PLAIN, 1},
    {"mistral_7b_v03", 32, 4096, 32, 8, 128, 14336, 32768, 32768, 1e6f, 1e-5f, false, ROPE_PLAIN, 1},
    {"ERNIE-4.5-0.3B-Base", 18, 1024, 16, 2, 128, 3072, 103424, 131072, 5e5f, 1e-5f, true, ROPE_PLAIN, 1},
};

static void check_released(const expected *e)
{
    nvllm_error err = {0};
    char folder[512];
    snprintf(folder, sizeof folder, "%s/configs/%s", TEST_SHARED, e->folder);
    if (read_config(folder, &err)) fail_msg("%s: %s", e->folder, err.message);
    bool sizes = config.L == e->L && config.D == e->D && config.H == e->H && config.K == e->K &&
                 config.C == e->C && config.F == e->F && config.V == e->V &&
                 config.max_context == e->max_context;
    bool rest = config.rope.theta == e->theta && config.norm_eps == e->eps && config.tied == e->tied &&
                config.rope.scaling == e->scaling && config.n_eos == e->n_eos && config.type == DTYPE_BF16;
    if (!sizes || !rest || config.window) fail_msg("%s: a value is wrong", e->folder);
}

static void configs_of_released_models_have_their_values(void **state)
{
    (void)state;
    test_need(TEST_SHARED "/configs");
    for (size_t i = 0; i < sizeof released / sizeof *released; i++) check_released(&released[i]);
    assert_true(config.rope.pairing == ROPE_PAIRS && !config.q_bias); /* ERNIE, the last */
}

static void configs_of_other_architectures_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const others[][2] = {{"Mixtral-8x7B-v0.1", "MixtralForCausalLM"},
                                            {"Qwen3-30B-A3B", "Qwen3MoeForCausalLM"},
                                            {"SmolLM3-3B", "SmolLM3ForCausalLM"},
                                            {"gemma-3-270m", "gemma3_text"},
                                            {"gemma2_2b", "Gemma2ForCausalLM"},
                                            {"gemma3_1b_it", "Gemma3ForCausalLM"},
                                            {"gpt-oss-20b", "GptOssForCausalLM"},
                                            {"gpt2", "GPT2LMHeadModel"},
                                            {"olmo2_7b", "Olmo2ForCausalLM"},
                                            {"phi-3_5", "Phi3ForCausalLM"}};
    test_need(TEST_SHARED "/configs");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        nvllm_error err = {0};
        char folder[512], wanted[128];
        snprintf(folder, sizeof folder, "%s/configs/%s", TEST_SHARED, others[i][0]);
        snprintf(wanted, sizeof wanted, "config.json: architecture %s is not supported", others[i][1]);
        assert_int_equal(read_config(folder, &err), NVLLM_ERR_UNSUPPORTED);
        if (strncmp(err.message, wanted, strlen(wanted)) != 0)
            fail_msg("%s\nis not: %s", err.message, wanted);
    }
}

static void config_of_stories260k_has_its_values(void **state)
{
    (void)state;
    nvllm_error err = {0};
    test_need(TEST_SHARED "/stories260k/hf/config.json");
    if (read_config(TEST_SHARED "/stories260k/hf", &err)) fail_msg("%s", err.message);
    assert_true(config.L == 5 && config.D == 64 && config.H == 8 && config.K == 4 && config.C == 8);
    assert_true(config.tied && config.max_context == 512 && config.bos == 1 && config.type == DTYPE_F32);
}

static void configs_of_all_family_fixtures_are_read(void **state)
{
    (void)state;
    int count = 0;
    DIR *dir = opendir(TEST_FIXTURES "/families");
    if (!dir) skip();
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        char *folder = file_join(TEST_FIXTURES "/families", e->d_name);
        nvllm_error err = {0};
        if (e->d_name[0] != '.' && file_is_directory(folder)) {
            if (read_config(folder, &err)) fail_msg("%s: %s", folder, err.message);
            if ((strstr(folder, "-window-") != NULL) != (config.window > 0)) fail_msg("%s: window", folder);
            if ((strstr(folder, "yarn") != NULL) != (config.rope.scaling == ROPE_YARN))
                fail_msg("%s: yarn", folder);
            count++;
        }
        free(folder);
    }
    closedir(dir);
    assert_true(count > 20);
}

static void generation_config_of_ernie_has_its_values(void **state)
{
    (void)state;
    const char *path = TEST_SHARED "/configs/ERNIE-4.5-0.3B-Base/generation_config.json";
    generation_config g;
    nvllm_error err = {0};
    size_t len;
    char *text;
    test_need(path);
    assert_int_equal(file_read(&text, &len, path, 1 << 20, &err), NVLLM_OK);
    if (generation_config_read(&g, text, len, path, &err)) fail_msg("%s", err.message);
    free(text);
    assert_true(g.do_sample.set && g.do_sample.value && g.top_p.set && g.top_p.value == 0.8f);
    assert_true(g.temperature.value == 0.8f && !g.top_k.set && g.n_eos == 1 && g.eos[0] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs_of_released_models_have_their_values),
        cmocka_unit_test(configs_of_other_architectures_are_refused_by_name),
        cmocka_unit_test(config_of_stories260k_has_its_values),
        cmocka_unit_test(configs_of_all_family_fixtures_are_read),
        cmocka_unit_test(generation_config_of_ernie_has_its_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
