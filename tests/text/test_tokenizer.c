/* Tokenizers against the reference: our own fixtures (tools/make_tokenizer_fixtures.py), and the real ones with the
 * 46 strings of llama.cpp's vocabulary tests. Every decode is done whole and as a stream. */
#define _POSIX_C_SOURCE 200809L /* popen */

#include "support/test.h"
#include "text/detokenizer.h"

#include <dirent.h>
#include <jansson.h>

static void *must(void *pointer)
{
    assert_non_null(pointer);
    return pointer;
}

/* --- fixtures ------------------------------------------------------------------------------------------- */

static int32_t *ids_of(const json_t *list, size_t *count)
{
    *count = json_array_size(list);
    int32_t *ids = must(calloc(*count + 1, sizeof *ids));
    for (size_t i = 0; i < *count; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

static void check_encode(const char *name, const tokenizer *t, const json_t *one, const char *key,
                         unsigned flags)
{
    const json_t *text = json_object_get(one, "text");
    size_t count, want_count;
    int32_t *ids, *want = ids_of(json_object_get(one, key), &want_count);
    nvllm_error err = {0};
    nvllm_status st =
        tokenizer_encode(t, json_string_value(text), json_string_length(text), flags, &ids, &count, &err);
    if (st != NVLLM_OK) fail_msg("%s: \"%s\": %s", name, json_string_value(text), err.message);
    if (count != want_count || memcmp(ids, want, count * sizeof *ids) != 0) {
        for (size_t i = 0; i < count || i < want_count; i++)
            print_message("%d %d\n", i < count ? ids[i] : -1, i < want_count ? want[i] : -1);
        fail_msg("%s: \"%s\" (%s) differs", name, json_string_value(text), key);
    }
    free(ids);
    free(want);
}

static void decode_stream(const tokenizer *t, const int32_t *ids, size_t count, unsigned flags, buffer *out)
{
    detokenizer *d;
    assert_int_equal(detokenizer_open(&d, t, flags, NULL), NVLLM_OK);
    for (int round = 0; round < 2; round++) { /* the second time after finish: as new */
        buffer_clear(out);
        for (size_t i = 0; i < count; i++) assert_int_equal(detokenizer_push(d, ids[i], out, NULL), NVLLM_OK);
        assert_int_equal(detokenizer_finish(d, out, NULL), NVLLM_OK);
    }
    detokenizer_close(d);
}

static void check_decode(const char *name, const tokenizer *t, const json_t *one, const char *key,
                         unsigned flags)
{
    size_t count;
    int32_t *ids = ids_of(json_object_get(one, "ids"), &count);
    const json_t *want = json_object_get(one, key);
    buffer whole = {0}, stream = {0};
    assert_int_equal(tokenizer_decode(t, ids, count, flags, &whole, NULL), NVLLM_OK);
    decode_stream(t, ids, count, flags, &stream);
    if (whole.len != json_string_length(want) ||
        memcmp(whole.len ? whole.data : "", json_string_value(want), whole.len))
        fail_msg("%s: ids give \"%s\", not \"%s\" (%s)", name, whole.data, json_string_value(want), key);
    if (whole.len != stream.len || (whole.len && memcmp(whole.data, stream.data, whole.len)))
        fail_msg("%s: streamed \"%s\", whole \"%s\"", name, stream.data, whole.data);
    buffer_free(&whole);
    buffer_free(&stream);
    free(ids);
}

static void check_fixture(const char *path, const char *name)
{
    nvllm_error err = {0};
    tokenizer *t;
    size_t i;
    json_t *one, *file = must(json_load_file(path, JSON_ALLOW_NUL, NULL));
    char *text = must(json_dumps(json_object_get(file, "tokenizer"), JSON_COMPACT));
    if (tokenizer_from_json(&t, text, strlen(text), &err) != NVLLM_OK) fail_msg("%s: %s", name, err.message);
    json_array_foreach(json_object_get(file, "cases"), i, one)
    {
        check_encode(name, t, one, "plain", 0);
        check_encode(name, t, one, "special", TOKENIZER_PARSE_SPECIAL);
        check_encode(name, t, one, "added", TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL);
    }
    json_array_foreach(json_object_get(file, "decodes"), i, one)
    {
        check_decode(name, t, one, "text", 0);
        check_decode(name, t, one, "skipped", TOKENIZER_SKIP_SPECIAL);
    }
    tokenizer_close(t);
    free(text);
    json_decref(file);
}

static void tokenizer_of_every_part_gives_the_references_ids_and_text(void **state)
{
    (void)state;
    DIR *folder = must(opendir(TEST_FIXTURES "/tokenizers"));
    struct dirent *entry;
    int count = 0;
    while ((entry = readdir(folder))) {
        char path[1024];
        size_t len = strlen(entry->d_name);
        if (len < 5 || strcmp(entry->d_name + len - 5, ".json") != 0) continue;
        snprintf(path, sizeof path, TEST_FIXTURES "/tokenizers/%s", entry->d_name);
        check_fixture(path, entry->d_name);
        count++;
    }
    closedir(folder);
    assert_true(count >= 20);
}

/* --- the real tokenizers -------------------------------------------------------------------------------- */

static char *slurp(FILE *f, size_t *len)
{
    buffer b = {0};
    char chunk[65536];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;) buffer_append(&b, chunk, n);
    *len = b.len;
    return must(buffer_take(&b));
}

static char *read_xz(const char *path, size_t *len)
{
    char command[1100];
    snprintf(command, sizeof command, "xz -dc '%s'", path);
    FILE *f = must(popen(command, "r"));
    char *text = slurp(f, len);
    pclose(f);
    return text;
}

static tokenizer *open_real(const char *name)
{
    char path[1024];
    size_t len;
    nvllm_error err = {0};
    tokenizer *t;
    snprintf(path, sizeof path, TEST_SHARED "/tokenizers/%s", name);
    test_need(path);
    if (!strstr(name, ".xz")) {
        assert_int_equal(tokenizer_open(&t, path, &err), NVLLM_OK);
        return t;
    }
    char *json = read_xz(path, &len);
    if (tokenizer_from_json(&t, json, len, &err) != NVLLM_OK) fail_msg("%s: %s", name, err.message);
    free(json);
    return t;
}

static char *read_case_file(const char *cases, const char *ending)
{
    char path[1024];
    size_t len;
    snprintf(path, sizeof path, TEST_SHARED "/tokenizers/cases/%s.%s", cases, ending);
    FILE *f = must(fopen(path, "rb"));
    char *text = slurp(f, &len);
    fclose(f);
    return text;
}

static void check_ids(const tokenizer *t, const char *text, const char *want)
{
    size_t count, i = 0;
    int32_t *ids;
    assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &ids, &count, NULL), NVLLM_OK);
    for (char *end; i < count; i++, want = end) {
        long id = strtol(want, &end, 10);
        if (end == want || id != ids[i]) fail_msg("\"%s\": token %zu is %d", text, i, ids[i]);
    }
    if (strspn(want, " ") != strlen(want)) fail_msg("\"%s\": %zu tokens, then expected%s", text, count, want);
    buffer out = {0};
    assert_int_equal(tokenizer_decode(t, ids, count, 0, &out, NULL), NVLLM_OK);
    assert_string_equal(out.data ? out.data : "", text);
    buffer_free(&out);
    free(ids);
}

static void check_cases(const char *name, const char *cases)
{
    tokenizer *t = open_real(name);
    char *texts = read_case_file(cases, "inp"), *wants = read_case_file(cases, "out");
    static const char separator[] = "\n__ggml_vocab_test__\n";
    int count = 0;
    for (char *text = texts, *want = wants; text && want; count++) {
        char *text_end = strstr(text, separator), *want_end = strchr(want, '\n');
        if (!text_end || !want_end) break;
        *text_end = *want_end = '\0';
        check_ids(t, text, want);
        text = text_end + strlen(separator);
        want = want_end + 1;
    }
    assert_true(count >= 46);
    free(texts);
    free(wants);
    tokenizer_close(t);
}

static void tokenizer_of_qwen3_gives_the_ids_of_46_strings(void **state)
{
    (void)state;
    check_cases("qwen3/tokenizer.json.xz", "qwen2");
}

static void tokenizer_of_llama31_gives_the_ids_of_46_strings(void **state)
{
    (void)state;
    check_cases("llama3.1/tokenizer.json.xz", "llama-bpe");
}

static void tokenizer_json_of_tinyllama_gives_the_ids_of_46_strings(void **state)
{
    (void)state;
    check_cases("tinyllama/tokenizer.json.xz", "llama-spm");
}

static void tokenizer_model_of_tinyllama_gives_the_ids_of_46_strings(void **state)
{
    (void)state;
    check_cases("tinyllama/tokenizer.model", "llama-spm");
}

static void tokenizer_of_gpt2_gives_the_ids_of_46_strings(void **state)
{
    (void)state;
    check_cases("gpt2/tokenizer.json.xz", "gpt-2");
}

static void tokenizer_of_qwen3_knows_its_special_tokens(void **state)
{
    (void)state;
    tokenizer *t = open_real("qwen3/tokenizer.json.xz");
    size_t count, len;
    int32_t *ids;
    const char text[] = "<|im_start|>a<think>";
    assert_int_equal(tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE_SPECIAL, &ids, &count, NULL),
                     NVLLM_OK);
    assert_int_equal(count, 3);
    assert_int_equal(ids[0], 151644);
    assert_int_equal(ids[2], 151667);
    free(ids);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &ids, &count, NULL), NVLLM_OK);
    assert_int_equal(ids[0], 27); /* text of a user stays text; <think> is added, but not special */
    assert_int_equal(ids[count - 1], 151667);
    free(ids);
    assert_int_equal(tokenizer_vocab_size(t), 151669);
    assert_int_equal(tokenizer_token_to_id(t, "<|im_end|>", 10), 151645);
    assert_true(tokenizer_is_special(t, 151645));
    assert_false(tokenizer_is_special(t, 151667));
    assert_non_null(tokenizer_id_to_piece(t, 151645, &len));
    assert_int_equal(len, 10);
    assert_null(tokenizer_id_to_piece(t, 151669, &len));
    tokenizer_close(t);
}

static void tokenizer_of_a_folder_reads_its_config(void **state)
{
    (void)state;
    test_need(TEST_SHARED "/stories260k/hf/tokenizer.model");
    tokenizer *t;
    size_t count;
    int32_t *ids;
    assert_int_equal(tokenizer_open(&t, TEST_SHARED "/stories260k/hf", NULL), NVLLM_OK);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_vocab_size(t), 512);
    const char text[] = "  Once upon a time,  ";
    static const int32_t want[] = {1, 403, 407, 261, 378, 432};
    assert_int_equal(tokenizer_encode(t, text, strlen(text), TOKENIZER_ADD_SPECIAL, &ids, &count, NULL),
                     NVLLM_OK);
    assert_int_equal(count, sizeof want / sizeof *want);
    assert_memory_equal(ids, want, sizeof want);
    free(ids);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_of_every_part_gives_the_references_ids_and_text),
        cmocka_unit_test(tokenizer_of_qwen3_gives_the_ids_of_46_strings),
        cmocka_unit_test(tokenizer_of_llama31_gives_the_ids_of_46_strings),
        cmocka_unit_test(tokenizer_json_of_tinyllama_gives_the_ids_of_46_strings),
        cmocka_unit_test(tokenizer_model_of_tinyllama_gives_the_ids_of_46_strings),
        cmocka_unit_test(tokenizer_of_gpt2_gives_the_ids_of_46_strings),
        cmocka_unit_test(tokenizer_of_qwen3_knows_its_special_tokens),
        cmocka_unit_test(tokenizer_of_a_folder_reads_its_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
