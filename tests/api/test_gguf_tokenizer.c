/* A GGUF's tokenizer and chat templates from its keys: which defaults hold where a key is missing, which names are
 * refused. Small files made in memory. */
#include "support/test.h"

#include "api/handles.h"
#include "formats/gguf_builder.h"

static nvllm_error err;

static void put_flag(buffer *b, const char *key, bool value)
{
    put_key(b, key, GGUF_BOOL);
    put_number(b, value, 1);
}

static void put_texts(buffer *b, const char *key, const char *const *texts, size_t count)
{
    put_key(b, key, GGUF_ARRAY);
    put_number(b, GGUF_STRING, 4);
    put_number(b, count, 8);
    for (size_t i = 0; i < count; i++) put_string(b, texts[i]);
}

/* `b` holds `keys` keys without a header; freed. */
static gguf *file_of(buffer *b, uint64_t keys, buffer *bytes)
{
    gguf *file;
    put_header(bytes, 3, 0, keys);
    buffer_append(bytes, b->data ? b->data : "", b->len);
    buffer_free(b);
    if (gguf_parse(&file, (const uint8_t *)bytes->data, bytes->len, "x.gguf", &err))
        fail_msg("%s", err.message);
    return file;
}

enum { TOKENS = 5 };
static const char *const tokens[TOKENS] = {"<unk>", "<s>", "</s>", "a", "\xE2\x96\x81"};

/* A tokenizer of `kind` ("gpt2": `pre`, unless NULL) for `arch`, with `more` keys after those that it needs. */
static nvllm_status open_with(tokenizer **t, const char *arch, const char *kind, const char *pre,
                              uint64_t more, buffer *keys)
{
    buffer b = {0}, bytes = {0};
    bool spm = strcmp(kind, "llama") == 0;
    put_text(&b, "general.architecture", arch);
    put_text(&b, "tokenizer.ggml.model", kind);
    put_texts(&b, "tokenizer.ggml.tokens", tokens, TOKENS);
    if (spm) {
        put_key(&b, "tokenizer.ggml.scores", GGUF_ARRAY);
        put_number(&b, GGUF_F32, 4);
        put_number(&b, TOKENS, 8);
        for (size_t i = 0; i < TOKENS; i++) put_number(&b, 0, 4);
    } else {
        put_texts(&b, "tokenizer.ggml.merges", NULL, 0);
    }
    put_key(&b, "tokenizer.ggml.token_type", GGUF_ARRAY);
    put_number(&b, GGUF_I32, 4);
    put_number(&b, TOKENS, 8);
    static const int32_t types[TOKENS] = {TOKENIZER_UNKNOWN, TOKENIZER_CONTROL, TOKENIZER_CONTROL, 1, 1};
    for (size_t i = 0; i < TOKENS; i++) put_number(&b, (uint64_t)types[i], 4);
    if (pre) put_text(&b, "tokenizer.ggml.pre", pre);
    if (keys) buffer_append(&b, keys->data, keys->len);
    gguf *file = file_of(&b, 5 + (pre != NULL) + more, &bytes);
    err = (nvllm_error){0};
    nvllm_status st = tokenizer_of_gguf(t, file, &err);
    gguf_close(file);
    buffer_free(&bytes);
    if (keys) buffer_free(keys);
    return st;
}

static void check_a(tokenizer *t, const int32_t *want, size_t want_count)
{
    int32_t *ids;
    size_t count;
    assert_int_equal(tokenizer_encode(t, "a", 1, TOKENIZER_ADD_SPECIAL, &ids, &count, &err), NVLLM_OK);
    if (count != want_count) fail_msg("%zu ids, expected %zu", count, want_count);
    assert_memory_equal(ids, want, count * sizeof *ids);
    free(ids);
    tokenizer_close(t);
}

static void gguf_of_llama_kind_has_bos_and_a_space_in_front_unless_it_says_otherwise(void **state)
{
    (void)state;
    tokenizer *t;
    buffer keys = {0};
    if (open_with(&t, "llama", "llama", NULL, 0, NULL)) fail_msg("%s", err.message);
    assert_true(tokenizer_bos(t) == 1 && tokenizer_eos(t) == 2 && !tokenizer_note(t));
    check_a(t, (const int32_t[]){1, 4, 3}, 3);
    put_flag(&keys, "tokenizer.ggml.add_bos_token", false);
    put_flag(&keys, "tokenizer.ggml.add_eos_token", true);
    put_flag(&keys, "tokenizer.ggml.add_space_prefix", false);
    if (open_with(&t, "llama", "llama", NULL, 3, &keys)) fail_msg("%s", err.message);
    check_a(t, (const int32_t[]){3, 2}, 2);
}

static void gguf_of_gpt2_kind_has_bos_where_its_pre_tokenizer_or_its_key_wants_it(void **state)
{
    (void)state;
    static const struct {
        const char *pre;
        bool bos;
    } rows[] = {{"llama-bpe", true}, {"tekken", true},  {"pixtral", true}, {"qwen2", false},
                {"gpt-2", false},    {"smollm", false}, {"gpt-4o", false}, {"deepseek-llm", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int said = -1; said <= 1; said++) {
            tokenizer *t;
            buffer keys = {0};
            put_u32(&keys, "tokenizer.ggml.bos_token_id", 1);
            put_flag(&keys, "tokenizer.ggml.add_space_prefix", true); /* llama.cpp ignores it here */
            if (said >= 0) put_flag(&keys, "tokenizer.ggml.add_bos_token", said > 0);
            if (open_with(&t, "llama", "gpt2", rows[i].pre, 2 + (said >= 0), &keys))
                fail_msg("%s: %s", rows[i].pre, err.message);
            bool bos = said < 0 ? rows[i].bos : said > 0;
            check_a(t, bos ? (const int32_t[]){1, 3} : (const int32_t[]){3}, bos ? 2 : 1);
        }
}

static void gguf_without_pre_tokenizer_is_qwen2_for_that_architecture_and_else_gets_a_note(void **state)
{
    (void)state;
    tokenizer *t;
    if (open_with(&t, "qwen2", "gpt2", NULL, 0, NULL)) fail_msg("%s", err.message);
    assert_null(tokenizer_note(t));
    tokenizer_close(t);
    if (open_with(&t, "llama", "gpt2", NULL, 0, NULL)) fail_msg("%s", err.message);
    assert_non_null(strstr(tokenizer_note(t), "names no pre-tokenizer"));
    tokenizer_close(t);
}

static void gguf_with_unknown_tokenizer_is_refused_by_name(void **state)
{
    (void)state;
    tokenizer *t = NULL;
    assert_int_equal(open_with(&t, "llama", "gpt2", "klingon", 0, NULL), NVLLM_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "x.gguf: pre-tokenizer \"klingon\" is not known");
    assert_int_equal(open_with(&t, "llama", "bert", NULL, 0, NULL), NVLLM_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "x.gguf: tokenizer model \"bert\" is not supported (llama, gpt2)");
}

/* Opens the templates in keys (freed), renders one message, with a tool or without. */
static char *render(buffer *keys, uint64_t count, bool tools)
{
    chat_template *ct;
    buffer bytes = {0};
    char *text = NULL;
    size_t len;
    gguf *file = file_of(keys, count, &bytes);
    if (chat_template_of_gguf(&ct, file, NULL, &err) == NVLLM_OK) {
        json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "hi");
        json_t *list = tools ? json_pack("[{s:s}]", "type", "function") : NULL;
        chat_template_input in = {.messages = messages, .tools = list};
        if (chat_template_render(ct, &in, &text, &len, &err)) fail_msg("%s", err.message);
        json_decref(messages);
        json_decref(list);
        chat_template_close(ct);
    }
    gguf_close(file);
    buffer_free(&bytes);
    return text;
}

static void check_render(bool usual, bool tool_use, bool tools, const char *want)
{
    buffer keys = {0};
    if (usual) put_text(&keys, "tokenizer.chat_template", "usual {{ messages[0].content }}");
    if (tool_use) put_text(&keys, "tokenizer.chat_template.tool_use", "tools {{ messages[0].content }}");
    char *text = render(&keys, (uint64_t)usual + tool_use, tools);
    if (!text) fail_msg("%s", err.message);
    assert_string_equal(text, want);
    free(text);
}

static void gguf_with_named_templates_uses_the_one_for_tools_where_there_are_tools(void **state)
{
    (void)state;
    check_render(true, false, false, "usual hi");
    check_render(true, false, true, "usual hi");
    check_render(true, true, false, "usual hi");
    check_render(true, true, true, "tools hi");
    check_render(false, true, false, "tools hi");
    check_render(false, true, true, "tools hi");
    buffer keys = {0};
    put_text(&keys, "tokenizer.chat_template.rag", "not this");
    assert_null(render(&keys, 1, false));
    assert_string_equal(err.message, "x.gguf: has no chat template (tokenizer.chat_template)");
    put_key(&keys, "tokenizer.chat_template", GGUF_STRING);
    put_number(&keys, 3, 8);
    buffer_append(&keys, "a\0b", 3);
    assert_null(render(&keys, 1, false));
    assert_string_equal(err.message, "x.gguf: tokenizer.chat_template holds a NUL byte");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_of_llama_kind_has_bos_and_a_space_in_front_unless_it_says_otherwise),
        cmocka_unit_test(gguf_of_gpt2_kind_has_bos_where_its_pre_tokenizer_or_its_key_wants_it),
        cmocka_unit_test(gguf_without_pre_tokenizer_is_qwen2_for_that_architecture_and_else_gets_a_note),
        cmocka_unit_test(gguf_with_unknown_tokenizer_is_refused_by_name),
        cmocka_unit_test(gguf_with_named_templates_uses_the_one_for_tools_where_there_are_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
