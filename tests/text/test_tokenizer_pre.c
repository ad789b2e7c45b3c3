/* The pre-tokenizers that GGUF files name: every name against the ids of the reference (tools/make_pre_fixtures.py),
 * and real vocabularies as a GGUF has them against their tokenizer.json. */
#define _POSIX_C_SOURCE 200809L /* popen */

#include "support/tokenizers.h"

#include <jansson.h>

static tokenizer_text text_of(const json_t *string)
{
    return (tokenizer_text){json_string_value(string), json_string_length(string)};
}

static void *must(void *p)
{
    assert_non_null(p);
    return p;
}

static tokenizer_text *texts_of(const json_t *list)
{
    size_t count = json_array_size(list);
    tokenizer_text *texts = must(malloc((count + 1) * sizeof *texts));
    for (size_t i = 0; i < count; i++) texts[i] = text_of(json_array_get(list, i));
    return texts;
}

static void check_ids(const tokenizer *t, const char *name, size_t which, tokenizer_text text,
                      const json_t *want)
{
    int32_t *ids;
    size_t count;
    assert_int_equal(tokenizer_encode(t, text.data, text.len, 0, &ids, &count, NULL), NVLLM_OK);
    for (size_t i = 0; i < count; i++)
        if (ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s, text %zu: id %zu is %d", name, which, i, (int)ids[i]);
    if (count != json_array_size(want)) fail_msg("%s, text %zu: %zu ids", name, which, count);
    free(ids);
}

static void spec_of_each_pre_name_gives_the_ids_of_the_reference(void **state)
{
    (void)state;
    json_t *doc = must(json_load_file(TEST_FIXTURES "/gguf-pre/pre.json", JSON_ALLOW_NUL, NULL));
    json_t *texts = json_object_get(doc, "texts"), *scheme, *name;
    tokenizer_text *tokens = texts_of(json_object_get(doc, "tokens"));
    tokenizer_text *merges = texts_of(json_object_get(doc, "merges"));
    tokenizer_spec spec = {.model = "gpt2",
                           .tokens = tokens,
                           .token_count = json_array_size(json_object_get(doc, "tokens")),
                           .merges = merges,
                           .merge_count = json_array_size(json_object_get(doc, "merges")),
                           .bos_id = -1,
                           .eos_id = -1,
                           .unk_id = -1};
    size_t i, k, names = 0;
    json_array_foreach(json_object_get(doc, "schemes"), i, scheme)
    {
        json_array_foreach(json_object_get(scheme, "names"), k, name)
        {
            tokenizer *t;
            nvllm_error err = {0};
            spec.pre = json_string_value(name);
            if (tokenizer_from_spec(&t, &spec, &err) != NVLLM_OK) fail_msg("%s: %s", spec.pre, err.message);
            for (size_t j = 0; j < json_array_size(texts); j++)
                check_ids(t, spec.pre, j, text_of(json_array_get(texts, j)),
                          json_array_get(json_object_get(scheme, "ids"), j));
            assert_int_equal(tokenizer_pre_adds_bos(spec.pre), json_is_true(json_object_get(scheme, "bos")));
            assert_null(tokenizer_note(t));
            tokenizer_close(t);
            names++;
        }
    }
    assert_true(names > 70);
    free(tokens);
    free(merges);
    json_decref(doc);
}

static void pre_names_that_need_more_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {"gemma4",     "whitespace", "kimi-k2", "afmoe",  "tiny_aya",
                                        "sarvam-moe", "Qwen2",      "qwen",    "qwen2 ", "gpt-2 phi-2"};
    tokenizer_text token = {"a", 1};
    tokenizer_spec spec = {
        .model = "gpt2", .tokens = &token, .token_count = 1, .bos_id = -1, .eos_id = -1, .unk_id = -1};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tokenizer *t;
        nvllm_error err;
        char want[100];
        spec.pre = names[i];
        snprintf(want, sizeof want, "pre-tokenizer \"%s\" is not known", names[i]);
        assert_int_equal(tokenizer_from_spec(&t, &spec, &err), NVLLM_ERR_UNSUPPORTED);
        assert_string_equal(err.message, want);
        assert_false(tokenizer_pre_adds_bos(names[i]));
    }
    spec.pre = NULL;
    tokenizer *t;
    assert_int_equal(tokenizer_from_spec(&t, &spec, NULL), NVLLM_OK);
    assert_non_null(strstr(tokenizer_note(t), "names no pre-tokenizer"));
    assert_false(tokenizer_pre_adds_bos(NULL));
    tokenizer_close(t);
}

/* --- real vocabularies ---------------------------------------------------------------------------------- */

/* Strings live in `doc`, merges in `merged`. Ids without a token keep an empty string, as in some files. */
typedef struct {
    json_t *doc;
    tokenizer_text *tokens, *merges;
    float *scores;
    int32_t *types;
    buffer merged;
    tokenizer_spec spec;
} real;

static char *output_of(const char *command, size_t *len)
{
    buffer b = {0};
    char chunk[65536];
    FILE *f = must(popen(command, "r"));
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;) buffer_append(&b, chunk, n);
    assert_int_equal(pclose(f), 0);
    *len = b.len;
    return must(buffer_take(&b));
}

static void put_token(real *r, size_t size, const json_t *id, tokenizer_text text, int32_t type)
{
    size_t at = (size_t)json_integer_value(id);
    assert_true(at < size);
    r->tokens[at] = text;
    r->types[at] = type;
    if (at >= r->spec.token_count) r->spec.token_count = at + 1;
}

static void fill_tokens(real *r)
{
    json_t *vocab = json_object_get(json_object_get(r->doc, "model"), "vocab"), *value;
    json_t *added = json_object_get(r->doc, "added_tokens");
    size_t size = json_object_size(vocab) + json_array_size(added) + 4096, i;
    const char *key;
    r->tokens = must(calloc(size, sizeof *r->tokens));
    r->types = must(calloc(size, sizeof *r->types));
    r->scores = must(calloc(size, sizeof *r->scores));
    json_object_foreach(vocab, key, value)
    {
        bool byte = strlen(key) == 6 && strncmp(key, "<0x", 3) == 0;
        put_token(r, size, value, (tokenizer_text){key, strlen(key)},
                  byte ? TOKENIZER_BYTE : TOKENIZER_NORMAL);
    }
    json_array_foreach(added, i, value)
    {
        put_token(r, size, json_object_get(value, "id"), text_of(json_object_get(value, "content")),
                  json_is_true(json_object_get(value, "special")) ? TOKENIZER_CONTROL
                                                                  : TOKENIZER_USER_DEFINED);
    }
}

/* SentencePiece merges by score what the other merges by rank. */
static void fill_scores(real *r)
{
    json_t *vocab = json_object_get(json_object_get(r->doc, "model"), "vocab");
    for (size_t i = 0; i < r->spec.token_count; i++) r->scores[i] = -1e9f;
    for (size_t i = r->spec.merge_count; i-- > 0;) {
        char joined[256];
        size_t n = 0;
        for (size_t k = 0; k < r->merges[i].len && n + 1 < sizeof joined; k++)
            if (r->merges[i].data[k] != ' ') joined[n++] = r->merges[i].data[k];
        joined[n] = '\0';
        const json_t *id = json_object_get(vocab, joined);
        if (id) r->scores[json_integer_value(id)] = -(float)i;
    }
}

/* Merges are "a b", or pairs. */
static void fill_merges(real *r)
{
    json_t *list = json_object_get(json_object_get(r->doc, "model"), "merges"), *one;
    size_t i;
    r->merges = must(calloc(json_array_size(list) + 1, sizeof *r->merges));
    json_array_foreach(list, i, one)
    {
        size_t start = r->merged.len;
        if (json_is_array(one)) {
            buffer_puts(&r->merged, json_string_value(json_array_get(one, 0)));
            buffer_putc(&r->merged, ' ');
            buffer_puts(&r->merged, json_string_value(json_array_get(one, 1)));
        } else {
            buffer_puts(&r->merged, json_string_value(one));
        }
        r->merges[i].len = r->merged.len - start;
    }
    const char *at = r->merged.data;
    for (i = 0; i < json_array_size(list); at += r->merges[i++].len) r->merges[i].data = at;
    r->spec.merge_count = json_array_size(list);
}

static void free_real(real *r)
{
    json_decref(r->doc);
    free(r->tokens);
    free(r->types);
    free(r->scores);
    free(r->merges);
    buffer_free(&r->merged);
}

/* Metaspace puts no mark in front of a text that begins with a space; SentencePiece, and so a GGUF, does. */
static void compare_texts(const tokenizer *json, const tokenizer *gguf, bool metaspace)
{
    json_t *doc = must(json_load_file(TEST_FIXTURES "/gguf-pre/pre.json", JSON_ALLOW_NUL, NULL)), *one;
    size_t i, len;
    json_array_foreach(json_object_get(doc, "texts"), i, one)
    {
        if (metaspace && *json_string_value(one) == ' ') continue;
        check_same_tokens(json, gguf, json_string_value(one), json_string_length(one), 0, 0);
        check_same_tokens(json, gguf, json_string_value(one), json_string_length(one),
                          TOKENIZER_PARSE_SPECIAL, TOKENIZER_PARSE_SPECIAL);
    }
    json_decref(doc);
    char *cases = output_of("cat '" TEST_SHARED "'/tokenizers/cases/*.inp", &len);
    check_same_tokens(json, gguf, cases, len, 0, 0);
    free(cases);
    char *story =
        output_of("xz -dc '" TEST_SHARED "/text/tinystories.txt.xz' 2>/dev/null | head -c 300000", &len);
    check_same_tokens(json, gguf, story, len, 0, 0);
    free(story);
}

static void check_real(const char *name, const char *model, const char *pre)
{
    char path[1024], command[1100];
    size_t len;
    real r = {0};
    nvllm_error err = {0};
    tokenizer *json, *gguf;
    snprintf(path, sizeof path, TEST_SHARED "/tokenizers/%s/tokenizer.json.xz", name);
    test_need(path);
    snprintf(command, sizeof command, "xz -dc '%s'", path);
    char *text = output_of(command, &len);
    if (tokenizer_from_json(&json, text, len, &err) != NVLLM_OK) fail_msg("%s: %s", name, err.message);
    r.doc = must(json_loadb(text, len, JSON_ALLOW_NUL, NULL));
    free(text);
    fill_tokens(&r);
    fill_merges(&r);
    fill_scores(&r);
    r.spec.model = model;
    r.spec.pre = pre;
    r.spec.tokens = r.tokens;
    r.spec.types = r.types;
    r.spec.scores = r.scores;
    r.spec.merges = r.merges;
    r.spec.bos_id = r.spec.eos_id = r.spec.unk_id = -1;
    r.spec.add_space_prefix = true;
    if (tokenizer_from_spec(&gguf, &r.spec, &err) != NVLLM_OK) fail_msg("%s: %s", name, err.message);
    const json_t *pre_type = json_object_get(json_object_get(r.doc, "pre_tokenizer"), "type");
    compare_texts(json, gguf, pre_type && strcmp(json_string_value(pre_type), "Metaspace") == 0);
    tokenizer_close(json);
    tokenizer_close(gguf);
    free_real(&r);
}

static void spec_of_qwen3_gives_the_ids_of_its_tokenizer_json(void **state)
{
    (void)state;
    check_real("qwen3", "gpt2", "qwen2");
}

static void spec_of_llama31_gives_the_ids_of_its_tokenizer_json(void **state)
{
    (void)state;
    check_real("llama3.1", "gpt2", "llama-bpe");
}

static void spec_of_gpt2_gives_the_ids_of_its_tokenizer_json(void **state)
{
    (void)state;
    check_real("gpt2", "gpt2", "gpt-2");
}

static void spec_of_tinyllama_gives_the_ids_of_its_tokenizer_json(void **state)
{
    (void)state;
    check_real("tinyllama", "llama", NULL);
}

static void spec_of_mistral_gives_the_ids_of_its_tokenizer_json(void **state)
{
    (void)state;
    check_real("mistral-v0.3", "llama", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spec_of_each_pre_name_gives_the_ids_of_the_reference),
        cmocka_unit_test(pre_names_that_need_more_are_refused_by_name),
        cmocka_unit_test(spec_of_qwen3_gives_the_ids_of_its_tokenizer_json),
        cmocka_unit_test(spec_of_llama31_gives_the_ids_of_its_tokenizer_json),
        cmocka_unit_test(spec_of_gpt2_gives_the_ids_of_its_tokenizer_json),
        cmocka_unit_test(spec_of_tinyllama_gives_the_ids_of_its_tokenizer_json),
        cmocka_unit_test(spec_of_mistral_gives_the_ids_of_its_tokenizer_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
