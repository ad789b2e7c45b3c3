/* Tokenizers from bad or hostile input: refused with a sentence that names the part, or run within limits. */
#include "support/test.h"
#include "text/detokenizer.h"
#include "text/tokenizer/pattern.h"

/* A whole tokenizer.json around a model. */
#define FILE_OF(parts, model) "{" parts "\"model\":" model "}"
#define VOCAB                 "{\"a\":0,\"b\":1,\"ab\":2,\"<unk>\":3}"
#define MODEL                 "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[\"a b\"]}"

static void refuses(const char *json, nvllm_status code, const char *part_of_sentence)
{
    tokenizer *t;
    nvllm_error err = {0};
    nvllm_status st = tokenizer_from_json(&t, json, strlen(json), &err);
    if (st == NVLLM_OK) fail_msg("accepted: %s", json);
    if (st != code || err.code != code || !strstr(err.message, part_of_sentence))
        fail_msg("%s\ngives %d \"%s\", not \"%s\"", json, (int)st, err.message, part_of_sentence);
    assert_null(t);
    assert_int_equal(tokenizer_from_json(&t, json, strlen(json), NULL), code);
}

static void accepts(const char *json)
{
    tokenizer *t;
    nvllm_error err = {0};
    if (tokenizer_from_json(&t, json, strlen(json), &err) != NVLLM_OK) fail_msg("%s: %s", json, err.message);
    tokenizer_close(t);
}

static void tokenizer_json_with_unknown_part_is_refused_by_name(void **state)
{
    (void)state;
    accepts(FILE_OF("", MODEL));
    refuses(FILE_OF("\"normalizer\":{\"type\":\"BertNormalizer\"},", MODEL), NVLLM_ERR_UNSUPPORTED,
            "BertNormalizer");
    refuses(FILE_OF("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]},", MODEL),
            NVLLM_ERR_UNSUPPORTED, "\"Nmt\"");
    refuses(FILE_OF("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},", MODEL), NVLLM_ERR_UNSUPPORTED,
            "UnicodeScripts");
    refuses(FILE_OF("\"post_processor\":{\"type\":\"RobertaProcessing\"},", MODEL), NVLLM_ERR_UNSUPPORTED,
            "RobertaProcessing");
    refuses(FILE_OF("\"decoder\":{\"type\":\"WordPiece\"},", MODEL), NVLLM_ERR_UNSUPPORTED, "WordPiece");
    refuses(FILE_OF("", "{\"type\":\"WordLevel\",\"vocab\":{}}"), NVLLM_ERR_UNSUPPORTED, "WordLevel");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}"),
            NVLLM_ERR_UNSUPPORTED, "dropout");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"end_of_word_suffix\":\"x\",\"vocab\":{},\"merges\":[]}"),
            NVLLM_ERR_UNSUPPORTED, "end_of_word_suffix");
}

static void tokenizer_json_of_wrong_types_is_refused(void **state)
{
    (void)state;
    refuses("", NVLLM_ERR_FORMAT, "expected an object");
    refuses("[]", NVLLM_ERR_FORMAT, "expected an object");
    refuses("{}", NVLLM_ERR_FORMAT, "\"model\" is missing");
    refuses("{\"model\":", NVLLM_ERR_FORMAT, "expected a value");
    refuses("{\"model\":{\"vocab\":{\"a\":0", NVLLM_ERR_FORMAT, "expected the end");
    refuses(FILE_OF("", MODEL) "x", NVLLM_ERR_FORMAT, "end of the file");
    refuses(FILE_OF("", MODEL ","
                              "\"model\":" MODEL),
            NVLLM_ERR_FORMAT, "same name");
    refuses(FILE_OF("\"normalizer\":7,", MODEL), NVLLM_ERR_FORMAT, "normalizer is not an object");
    refuses(FILE_OF("\"normalizer\":nul,", MODEL), NVLLM_ERR_FORMAT, "normalizer");
    refuses(FILE_OF("\"normalizer\":{\"type\":\"Strip\",\"strip_left\":1},", MODEL), NVLLM_ERR_FORMAT,
            "strip_left");
    refuses(FILE_OF("\"decoder\":{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0},", MODEL),
            NVLLM_ERR_FORMAT, "one character");
    refuses(FILE_OF("\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0},", MODEL),
            NVLLM_ERR_FORMAT, "start");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "expected an object");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{}}"), NVLLM_ERR_FORMAT, "merges");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "integer");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"a\":0.5},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "integer");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"\xFF\":0},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "valid UTF-8");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "surrogate");
    refuses(FILE_OF("", "{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"x\"]]}"), NVLLM_ERR_FORMAT, "number");
    refuses(FILE_OF("", "{\"type\":\"Unigram\",\"vocab\":[[\"a\",1e999]]}"), NVLLM_ERR_FORMAT, "finite");
    refuses(FILE_OF("", "{\"type\":\"Unigram\",\"vocab\":[]}"), NVLLM_ERR_FORMAT, "empty");
    refuses(FILE_OF("", "{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",-1.5]]}"), NVLLM_ERR_FORMAT,
            "unk_id");
}

static void tokenizer_json_with_wrong_ids_is_refused(void **state)
{
    (void)state;
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "share id 0");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "two ids");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"a\":4294967297},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "4294967297 is not in");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"), NVLLM_ERR_FORMAT,
            "integer");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":" VOCAB ",\"merges\":[]}"),
            NVLLM_ERR_FORMAT, "unk_token \"?\"");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[\"a c\"]}"), NVLLM_ERR_FORMAT,
            "\"c\"");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[\"b a\"]}"), NVLLM_ERR_FORMAT,
            "\"ba\"");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[\"ab\"]}"), NVLLM_ERR_FORMAT,
            "two parts");
    refuses(FILE_OF("", "{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[[\"a\",\"b\",\"a\"]]}"),
            NVLLM_ERR_FORMAT, "two parts");
    refuses(FILE_OF("\"added_tokens\":[{\"id\":1,\"content\":\"x\"}],", MODEL), NVLLM_ERR_FORMAT,
            "which is \"b\"");
    refuses(FILE_OF("\"added_tokens\":[{\"id\":9,\"content\":\"a\"}],", MODEL), NVLLM_ERR_FORMAT, "but 0 in");
    refuses(FILE_OF("\"added_tokens\":[{\"id\":9,\"content\":\"x\"},{\"id\":9,\"content\":\"y\"}],", MODEL),
            NVLLM_ERR_FORMAT, "share id 9");
    refuses(FILE_OF("\"added_tokens\":[{\"id\":8,\"content\":\"x\"},{\"id\":9,\"content\":\"x\"}],", MODEL),
            NVLLM_ERR_FORMAT, "twice");
    refuses(FILE_OF("\"added_tokens\":[{\"id\":8,\"content\":\"\"}],", MODEL), NVLLM_ERR_FORMAT,
            "no content");
    refuses(FILE_OF("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
                    "\"id\":\"x\"}},"
                    "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"x\":{\"ids\":[77]}}},",
                    MODEL),
            NVLLM_ERR_FORMAT, "id 77");
}

static void tokenizer_json_with_endless_nesting_is_refused(void **state)
{
    (void)state;
    buffer json = {0};
    buffer_puts(&json, "{\"normalizer\":");
    for (int i = 0; i < 20; i++) buffer_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 20; i++) buffer_puts(&json, "]}");
    buffer_puts(&json, ",\"model\":" MODEL "}");
    refuses(json.data, NVLLM_ERR_LIMIT, "Sequences inside each other");
    buffer_clear(&json);
    for (int i = 0; i < 100000; i++) buffer_puts(&json, "{\"model\":[");
    refuses(json.data, NVLLM_ERR_FORMAT, "expected the end");
    buffer_free(&json);
}

static void tokenizer_whose_normalizer_grows_the_text_without_end_stops(void **state)
{
    (void)state;
    buffer json = {0};
    tokenizer *t;
    int32_t *ids;
    size_t count;
    nvllm_error err;
    buffer_puts(&json, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 60; i++)
        buffer_printf(&json, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaa\"}",
                      i ? "," : "");
    buffer_puts(&json, "]},\"model\":" MODEL "}");
    assert_int_equal(tokenizer_from_json(&t, json.data, json.len, &err), NVLLM_OK);
    assert_int_equal(tokenizer_encode(t, "a", 1, 0, &ids, &count, &err), NVLLM_ERR_LIMIT);
    assert_null(ids);
    tokenizer_close(t);
    buffer_free(&json);
}

static void tokenizer_encode_of_invalid_utf8_names_the_byte(void **state)
{
    (void)state;
    tokenizer *t;
    int32_t *ids;
    size_t count;
    nvllm_error err;
    assert_int_equal(tokenizer_from_json(&t, FILE_OF("", MODEL), strlen(FILE_OF("", MODEL)), &err), NVLLM_OK);
    assert_int_equal(tokenizer_encode(t, "ab\xC3(", 4, 0, &ids, &count, &err), NVLLM_ERR_FORMAT);
    assert_non_null(strstr(err.message, "byte 2"));
    assert_int_equal(tokenizer_encode(t, "\xED\xA0\x80", 3, 0, &ids, &count, &err), NVLLM_ERR_FORMAT);
    assert_int_equal(tokenizer_encode(t, NULL, 0, 0, &ids, &count, &err), NVLLM_OK);
    assert_int_equal(count, 0);
    free(ids);
    buffer out = {0};
    const int32_t wild[] = {-1, INT32_MAX, INT32_MIN, 2, 4};
    assert_int_equal(tokenizer_decode(t, wild, 5, 0, &out, &err), NVLLM_OK);
    assert_string_equal(out.data, "ab");
    buffer_free(&out);
    tokenizer_close(t);
}

static void pattern_that_backtracks_without_end_gives_an_error(void **state)
{
    (void)state;
    const char json[] = FILE_OF("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|aa|b?a)+("
                                "x|y)\"},\"behavior\":\"Isolated\","
                                "\"invert\":false},",
                                MODEL);
    tokenizer *t;
    int32_t *ids;
    size_t count;
    nvllm_error err;
    char text[400];
    memset(text, 'a', sizeof text);
    assert_int_equal(tokenizer_from_json(&t, json, strlen(json), &err), NVLLM_OK);
    assert_int_equal(tokenizer_encode(t, text, sizeof text, 0, &ids, &count, &err), NVLLM_ERR_LIMIT);
    assert_non_null(strstr(err.message, "pattern"));
    tokenizer_close(t);
}

static void pattern_that_the_reference_reads_otherwise_is_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {"[a&&b]",  "[a[bc]]", "a{1,2}+", "\\R",  "\\K",   "(?<name>a)",
                                           "(*FAIL)", "[\\W]",   "a{,3}",   "[",    "\\u12", "(",
                                           "(?R)",    "\\",      "\\p{L",   "[]a]", "x{a}",  "\\p{Zork}"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        tok_pattern *p;
        nvllm_error err;
        nvllm_status st = tok_pattern_regex(&p, patterns[i], strlen(patterns[i]), &err);
        if (st != NVLLM_ERR_UNSUPPORTED) fail_msg("%s: %d", patterns[i], (int)st);
        assert_null(p);
    }
}

static void sentencepiece_file_cut_anywhere_is_refused_or_smaller(void **state)
{
    (void)state;
    /* <unk> (unknown), <s>, </s> (control), a, b, ab; BPE */
    static const char file[] = "\x0A\x0E\x0A\x05<unk>\x15\0\0\0\0\x18\x02"
                               "\x0A\x0C\x0A\x03<s>\x15\0\0\0\0\x18\x03"
                               "\x0A\x0D\x0A\x04</s>\x15\0\0\0\0\x18\x03"
                               "\x0A\x08\x0A\x01"
                               "a\x15\0\0\x80\xBF"
                               "\x0A\x08\x0A\x01"
                               "b\x15\0\0\0\xC0"
                               "\x0A\x09\x0A\x02"
                               "ab\x15\0\0\x40\xC0"
                               "\x12\x02\x18\x02";
    size_t len = sizeof file - 1, count;
    tokenizer *t;
    int32_t *ids;
    assert_int_equal(tokenizer_from_sentencepiece(&t, file, len, NULL), NVLLM_OK);
    assert_int_equal(tokenizer_encode(t, "abba", 4, TOKENIZER_ADD_SPECIAL, &ids, &count, NULL), NVLLM_OK);
    static const int32_t want[] = {1, 0, 5, 4, 3}; /* the space in front is unknown */
    assert_int_equal(count, 5);
    assert_memory_equal(ids, want, sizeof want);
    free(ids);
    tokenizer_close(t);
    for (size_t cut = 0; cut < len; cut++) {
        nvllm_error err = {0};
        char *copy = malloc(cut + 1); /* so that the sanitizer sees a read beyond the end */
        assert_non_null(copy);
        memcpy(copy, file, cut);
        nvllm_status st = tokenizer_from_sentencepiece(&t, copy, cut, &err);
        if (st == NVLLM_OK)
            tokenizer_close(t);
        else
            assert_true(err.message[0] != '\0');
        free(copy);
    }
    char huge[] = "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F";
    assert_int_equal(tokenizer_from_sentencepiece(&t, huge, sizeof huge - 1, NULL), NVLLM_ERR_FORMAT);
}

static void tokenizer_open_of_a_missing_file_names_it(void **state)
{
    (void)state;
    tokenizer *t;
    nvllm_error err;
    assert_int_equal(tokenizer_open(&t, "/nowhere/tokenizer.json", &err), NVLLM_ERR_IO);
    assert_non_null(strstr(err.message, "/nowhere/tokenizer.json"));
    assert_int_equal(tokenizer_open(&t, TEST_FIXTURES, &err), NVLLM_ERR_IO);
    assert_non_null(strstr(err.message, "tokenizer.model"));
    tokenizer_close(NULL);
    detokenizer_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_json_with_unknown_part_is_refused_by_name),
        cmocka_unit_test(tokenizer_json_of_wrong_types_is_refused),
        cmocka_unit_test(tokenizer_json_with_wrong_ids_is_refused),
        cmocka_unit_test(tokenizer_json_with_endless_nesting_is_refused),
        cmocka_unit_test(tokenizer_whose_normalizer_grows_the_text_without_end_stops),
        cmocka_unit_test(tokenizer_encode_of_invalid_utf8_names_the_byte),
        cmocka_unit_test(pattern_that_backtracks_without_end_gives_an_error),
        cmocka_unit_test(pattern_that_the_reference_reads_otherwise_is_refused),
        cmocka_unit_test(sentencepiece_file_cut_anywhere_is_refused_or_smaller),
        cmocka_unit_test(tokenizer_open_of_a_missing_file_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
