/* GGUF keys into model_config: small files made in memory, and the real stories260k. */
#include "support/test.h"

#include "formats/gguf_builder.h"
#include "model/config.h"

#include <math.h>

static model_config config;
static nvllm_error err;

/* A llama of D 32, H 4, K 2, V 10 with `more` keys after it; the embedding table is the only tensor. */
static nvllm_status read_with(const char *arch, uint64_t more, const buffer *keys)
{
    static const struct {
        const char *suffix;
        uint32_t value;
    } sizes[] = {{"block_count", 2},          {"context_length", 128},     {"embedding_length", 32},
                 {"feed_forward_length", 64}, {"attention.head_count", 4}, {"attention.head_count_kv", 2}};
    buffer b = {0};
    gguf *file;
    char key[128];
    put_header(&b, 3, 1, 7 + more);
    put_text(&b, "general.architecture", arch);
    for (size_t i = 0; i < 6; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].suffix);
        put_u32(&b, key, sizes[i].value);
    }
    if (keys) buffer_append(&b, keys->data, keys->len);
    put_tensor(&b, "token_embd.weight", 32, 10, 1, 0);
    put_data(&b, 32 * 10 * 2);
    err = (nvllm_error){0};
    if (gguf_parse(&file, (const uint8_t *)b.data, b.len, "x.gguf", &err)) fail_msg("%s", err.message);
    nvllm_status st = config_read_gguf(&config, file, &err);
    gguf_close(file);
    buffer_free(&b);
    return st;
}

/* Frees keys. */
static void check_refused(buffer *keys, nvllm_status code, const char *sentence)
{
    assert_int_equal(read_with("llama", 1, keys), code);
    if (strcmp(err.message, sentence) != 0) fail_msg("got:    %s\nwanted: %s", err.message, sentence);
    buffer_free(keys);
}

static void gguf_config_reads_sizes_and_defaults(void **state)
{
    (void)state;
    assert_int_equal(read_with("llama", 0, NULL), NVLLM_OK);
    assert_true(config.L == 2 && config.D == 32 && config.H == 4 && config.K == 2 && config.C == 8);
    assert_true(config.F == 64 && config.V == 10 && config.max_context == 128 && config.tied);
    assert_true(config.rope.pairing == ROPE_PAIRS && config.rope.theta == 10000.0f && config.window == 0);
    assert_true(config.bos == -1 && config.n_eos == 0 && !config.q_bias && !config.qk_norm);
    assert_int_equal(read_with("qwen3", 0, NULL), NVLLM_OK);
    assert_true(config.rope.pairing == ROPE_HALVES && config.qk_norm);
    assert_int_equal(read_with("qwen2", 0, NULL), NVLLM_OK);
    assert_true(config.rope.pairing == ROPE_HALVES && config.q_bias);
    assert_int_equal(read_with("ernie4_5", 0, NULL), NVLLM_OK);
    assert_true(config.rope.pairing == ROPE_PAIRS);
}

static void gguf_config_reads_ids_and_scaling(void **state)
{
    (void)state;
    buffer keys = {0};
    put_u32(&keys, "tokenizer.ggml.bos_token_id", 1);
    put_u32(&keys, "tokenizer.ggml.eos_token_id", 2);
    put_u32(&keys, "tokenizer.ggml.eot_token_id", 9);
    put_u32(&keys, "tokenizer.ggml.eom_token_id", UINT32_MAX);
    put_u32(&keys, "llama.attention.key_length", 16);
    put_u32(&keys, "llama.rope.dimension_count", 16);
    put_f32(&keys, "llama.rope.freq_base", 500000);
    put_text(&keys, "llama.rope.scaling.type", "yarn");
    put_f32(&keys, "llama.rope.scaling.factor", 4);
    put_u32(&keys, "llama.rope.scaling.original_context_length", 32);
    if (read_with("llama", 10, &keys)) fail_msg("%s", err.message);
    assert_true(config.bos == 1 && config.n_eos == 2 && config.eos[0] == 2 && config.eos[1] == 9);
    assert_int_equal(config.C, 16);
    assert_true(config.rope.scaling == ROPE_YARN && config.rope.factor == 4 &&
                config.rope.original_context == 32);
    assert_true(config.rope.theta == 500000.0f && config.rope.beta_fast == 32 && config.rope.truncate);
    assert_true(config.rope.attention_factor > 1.1386f && config.rope.attention_factor < 1.1387f);
    buffer_free(&keys);
}

/* As in llama.cpp, for each architecture that we know: the key says neither which layers nor whether. */
static void gguf_config_with_sliding_window_sees_everything(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "ernie4_5"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        buffer keys = {0};
        char key[64];
        snprintf(key, sizeof key, "%s.attention.sliding_window", archs[i]);
        put_u32(&keys, key, 16);
        if (read_with(archs[i], 1, &keys)) fail_msg("%s", err.message);
        assert_true(config.window == 0 && !config.slides[0] && !config.slides[1]);
        buffer_free(&keys);
    }
}

static void gguf_config_finds_ends_of_text_by_their_strings(void **state)
{
    (void)state;
    static const char *const tokens[10] = {"a",         "<|endoftext|>", "b", "<|im_end|>",   "",
                                           "<|im_end|", "im_end",        "c", "<|im_start|>", "</s>"};
    buffer keys = {0};
    put_u32(&keys, "tokenizer.ggml.eos_token_id", 3);
    put_key(&keys, "tokenizer.ggml.tokens", GGUF_ARRAY);
    put_number(&keys, GGUF_STRING, 4);
    put_number(&keys, 10, 8);
    for (size_t i = 0; i < 10; i++) put_string(&keys, tokens[i]);
    if (read_with("qwen2", 2, &keys)) fail_msg("%s", err.message);
    assert_int_equal(config.n_eos, 3);
    assert_true(config.eos[0] == 3 && config.eos[1] == 1 && config.eos[2] == 9);
    buffer_free(&keys);
}

static void gguf_config_with_bad_key_is_refused_by_name(void **state)
{
    (void)state;
    buffer keys = {0};
    put_u32(&keys, "llama.rope.dimension_count", 4);
    check_refused(&keys, NVLLM_ERR_UNSUPPORTED,
                  "x.gguf: llama.rope.dimension_count differs from the head dimension (partial rotation)");
    put_u32(&keys, "llama.expert_count", 8);
    check_refused(&keys, NVLLM_ERR_UNSUPPORTED,
                  "x.gguf: llama.expert_count is not zero: mixtures of experts are not supported");
    put_text(&keys, "llama.rope.scaling.type", "longrope");
    check_refused(&keys, NVLLM_ERR_UNSUPPORTED,
                  "x.gguf: llama.rope.scaling.type longrope is not supported; none, linear, yarn are");
    put_f32(&keys, "llama.rope.freq_base", -1);
    check_refused(&keys, NVLLM_ERR_FORMAT, "x.gguf: llama.rope.freq_base -1 is not in 1.001..1e+15");
    put_u32(&keys, "llama.attention.key_length", 0);
    check_refused(&keys, NVLLM_ERR_FORMAT, "x.gguf: llama.attention.key_length 0 is not in 1..256");
    put_text(&keys, "llama.attention.key_length", "8");
    check_refused(&keys, NVLLM_ERR_FORMAT,
                  "x.gguf: key llama.attention.key_length is of type string, expected an unsigned integer");
    put_key(&keys, "tokenizer.ggml.tokens", GGUF_ARRAY);
    put_number(&keys, GGUF_STRING, 4);
    put_number(&keys, 1, 8);
    put_string(&keys, "a");
    check_refused(&keys, NVLLM_ERR_FORMAT,
                  "x.gguf: tokenizer.ggml.tokens has 1 entries, token_embd.weight 10 rows");
}

static void check_header_refused(buffer *b, nvllm_status code, const char *sentence)
{
    gguf *file;
    assert_int_equal(gguf_parse(&file, (const uint8_t *)b->data, b->len, "x.gguf", &err), NVLLM_OK);
    assert_int_equal(config_read_gguf(&config, file, &err), code);
    assert_string_equal(err.message, sentence);
    gguf_close(file);
    buffer_free(b);
}

static void gguf_config_of_unknown_architecture_lists_the_known(void **state)
{
    (void)state;
    buffer b = {0};
    put_header(&b, 3, 0, 1);
    put_text(&b, "general.architecture", "gemma3");
    put_data(&b, 0);
    check_header_refused(
        &b, NVLLM_ERR_UNSUPPORTED,
        "x.gguf: general.architecture gemma3 is not supported; supported are llama, qwen2, qwen3, ernie4_5");
    put_header(&b, 3, 0, 0);
    check_header_refused(&b, NVLLM_ERR_FORMAT, "x.gguf: key general.architecture is missing");
    put_header(&b, 3, 0, 1);
    put_text(&b, "general.architecture", "llama");
    check_header_refused(&b, NVLLM_ERR_FORMAT, "x.gguf: key llama.block_count is missing");
}

static void gguf_config_with_indivisible_heads_is_refused(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"block_count",          "context_length",
                                           "embedding_length",     "feed_forward_length",
                                           "attention.head_count", "attention.head_count_kv"};
    buffer b = {0};
    put_header(&b, 3, 1, 7);
    put_text(&b, "general.architecture", "llama");
    for (size_t i = 0; i < 6; i++) {
        char key[64];
        snprintf(key, sizeof key, "llama.%s", suffixes[i]);
        put_u32(&b, key, i == 4 ? 14 : i == 5 ? 4 : 28);
    }
    put_tensor(&b, "token_embd.weight", 28, 10, 0, 0);
    put_data(&b, 28 * 10 * 4);
    check_header_refused(&b, NVLLM_ERR_FORMAT,
                         "x.gguf: llama.attention.head_count 14 is not a multiple of "
                         "llama.attention.head_count_kv 4");
}

static void gguf_config_of_stories260k_has_its_values(void **state)
{
    (void)state;
    const char *path = TEST_SHARED "/stories260k/stories260K.gguf";
    test_need(path);
    gguf *file;
    if (gguf_open(&file, path, &err) || config_read_gguf(&config, file, &err)) fail_msg("%s", err.message);
    assert_true(config.L == 5 && config.D == 64 && config.H == 8 && config.K == 4 && config.C == 8);
    assert_true(config.F == 172 && config.V == 512 && config.max_context == 2048 && !config.tied);
    assert_true(config.norm_eps == 1e-5f && config.rope.theta == 10000.0f && config.type == DTYPE_F32);
    assert_true(config.bos == 1 && config.n_eos == 1 && config.eos[0] == 2);
    gguf_close(file);
}

/* llama3 scaling is parameters in config.json and divisors in a GGUF: both must turn the same. */
static void gguf_config_with_rope_freqs_has_the_frequencies_of_llama3_scaling(void **state)
{
    (void)state;
    static const char json[] =
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":48,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":288,\"max_position_embeddings\":"
        "256,"
        "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":"
        "4,"
        "\"original_max_position_embeddings\":32}}";
    const char *path = TEST_FIXTURES "/gguf/llama-llama3-f32.gguf";
    float wanted[8], got[8];
    gguf *file;
    test_need(path);
    if (config_read_json(&config, json, strlen(json), "config.json", &err)) fail_msg("%s", err.message);
    config_rope_frequencies(&config, wanted);
    if (gguf_open(&file, path, &err) || config_read_gguf(&config, file, &err)) fail_msg("%s", err.message);
    assert_int_equal(config.C, 16);
    assert_non_null(config.rope.divisors);
    config_rope_frequencies(&config, got);
    for (int i = 0; i < 8; i++) assert_true(fabsf(got[i] - wanted[i]) <= 3e-7f * wanted[i]);
    gguf_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_config_reads_sizes_and_defaults),
        cmocka_unit_test(gguf_config_reads_ids_and_scaling),
        cmocka_unit_test(gguf_config_with_sliding_window_sees_everything),
        cmocka_unit_test(gguf_config_finds_ends_of_text_by_their_strings),
        cmocka_unit_test(gguf_config_with_bad_key_is_refused_by_name),
        cmocka_unit_test(gguf_config_of_unknown_architecture_lists_the_known),
        cmocka_unit_test(gguf_config_with_indivisible_heads_is_refused),
        cmocka_unit_test(gguf_config_with_rope_freqs_has_the_frequencies_of_llama3_scaling),
        cmocka_unit_test(gguf_config_of_stories260k_has_its_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
