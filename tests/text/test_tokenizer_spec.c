/* Tokenizers built from a GGUF's arrays: the same ids as from tokenizer.json, and unknown names refused. */
#include "support/tokenizers.h"

#include <jansson.h>

#define MAX_TOKENS 600

static tokenizer_text text_of(const char *s)
{
    return (tokenizer_text){s, strlen(s)};
}

/* The llama3 fixture's vocabulary, added tokens and merges as a GGUF has them; strings live in `doc`. */
typedef struct {
    tokenizer_text token[MAX_TOKENS], merge[MAX_TOKENS];
    int32_t type[MAX_TOKENS];
    tokenizer_spec spec;
} arrays;

static void fill(arrays *a, json_t *doc)
{
    json_t *model = json_object_get(doc, "model"), *value;
    const char *key;
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), key, value)
    {
        a->token[json_integer_value(value)] = text_of(key);
        a->type[json_integer_value(value)] = TOKENIZER_NORMAL;
        a->spec.token_count++;
    }
    json_array_foreach(json_object_get(doc, "added_tokens"), i, value)
    {
        json_int_t id = json_integer_value(json_object_get(value, "id"));
        if ((size_t)id >= a->spec.token_count) a->spec.token_count = (size_t)id + 1;
        a->token[id] = text_of(json_string_value(json_object_get(value, "content")));
        a->type[id] =
            json_is_true(json_object_get(value, "special")) ? TOKENIZER_CONTROL : TOKENIZER_USER_DEFINED;
    }
    json_array_foreach(json_object_get(model, "merges"), i, value)
    {
        a->merge[a->spec.merge_count++] = text_of(json_string_value(value));
    }
    a->spec.model = "gpt2";
    a->spec.tokens = a->token;
    a->spec.types = a->type;
    a->spec.merges = a->merge;
    a->spec.bos_id = 1;
    a->spec.eos_id = 2;
    a->spec.unk_id = -1;
    a->spec.add_bos = a->spec.add_eos = true;
}

static void spec_of_gpt2_kind_gives_the_ids_of_tokenizer_json(void **state)
{
    (void)state;
    json_t *file = json_load_file(TEST_FIXTURES "/tokenizers/llama3.json", JSON_ALLOW_NUL, NULL), *one;
    assert_non_null(file);
    static arrays a;
    fill(&a, json_object_get(file, "tokenizer"));
    a.spec.pre = "llama-bpe";
    char *text = json_dumps(json_object_get(file, "tokenizer"), 0);
    tokenizer *json, *gguf;
    nvllm_error err = {0};
    assert_int_equal(tokenizer_from_json(&json, text, strlen(text), &err), NVLLM_OK);
    if (tokenizer_from_spec(&gguf, &a.spec, &err) != NVLLM_OK) fail_msg("%s", err.message);
    size_t i, compared = 0;
    json_array_foreach(json_object_get(file, "cases"), i, one)
    {
        const json_t *t = json_object_get(one, "text");
        if (strstr(json_string_value(t), "<mask>"))
            continue; /* GGUF keeps no lstrip, rstrip or single_word */
        check_same_tokens(json, gguf, json_string_value(t), json_string_length(t),
                          TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, TOKENIZER_SKIP_SPECIAL);
        compared++;
    }
    assert_true(compared > 15);
    assert_int_equal(tokenizer_bos(gguf), 1);
    assert_int_equal(tokenizer_eos(gguf), 2);
    tokenizer_close(json);
    tokenizer_close(gguf);
    free(text);
    json_decref(file);
}

static void spec_with_unknown_names_or_ids_is_refused(void **state)
{
    (void)state;
    tokenizer_text tokens[] = {text_of("a"), text_of("b")};
    tokenizer_spec good = {
        .model = "gpt2", .tokens = tokens, .token_count = 2, .bos_id = -1, .eos_id = -1, .unk_id = -1};
    tokenizer_spec s = good;
    tokenizer *t;
    nvllm_error err;
    s.pre = "no-such-pre";
    assert_int_equal(tokenizer_from_spec(&t, &s, &err), NVLLM_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no-such-pre"));
    s.pre = "gpt-2 gpt2";
    assert_int_equal(tokenizer_from_spec(&t, &s, &err), NVLLM_ERR_UNSUPPORTED);
    s = good;
    s.model = "bert";
    assert_int_equal(tokenizer_from_spec(&t, &s, &err), NVLLM_ERR_UNSUPPORTED);
    s = good;
    s.eos_id = 2;
    assert_int_equal(tokenizer_from_spec(&t, &s, &err), NVLLM_ERR_FORMAT);
    s = good;
    s.token_count = 0;
    assert_int_equal(tokenizer_from_spec(&t, &s, &err), NVLLM_ERR_FORMAT);
    s = good;
    s.model = "llama"; /* without scores */
    assert_int_equal(tokenizer_from_spec(&t, &s, &err), NVLLM_ERR_FORMAT);
    s = good;
    tokenizer_text merge = text_of("a b"); /* "ab" is no token */
    s.merges = &merge;
    s.merge_count = 1;
    assert_int_equal(tokenizer_from_spec(&t, &s, &err), NVLLM_ERR_FORMAT);
    tokens[1] = text_of("\xFF");
    assert_int_equal(tokenizer_from_spec(&t, &good, &err), NVLLM_ERR_FORMAT);
    assert_null(t);
}

static void spec_of_llama_kind_merges_by_score_and_falls_back_to_bytes(void **state)
{
    (void)state;
    static char names[256][8];
    tokenizer_text tokens[263] = {text_of("<unk>"), text_of("<s>"), text_of("</s>"), text_of("\xE2\x96\x81"),
                                  text_of("a"),     text_of("b"),   text_of("ab")};
    int32_t types[263] = {TOKENIZER_UNKNOWN, TOKENIZER_CONTROL, TOKENIZER_CONTROL, 1, 1, 1, 1};
    float scores[263] = {0};
    for (int b = 0; b < 256; b++) {
        snprintf(names[b], sizeof names[b], "<0x%02X>", (unsigned)b);
        tokens[7 + b] = text_of(names[b]);
        types[7 + b] = TOKENIZER_BYTE;
    }
    tokenizer_spec s = {.model = "llama",
                        .tokens = tokens,
                        .token_count = 263,
                        .scores = scores,
                        .types = types,
                        .bos_id = 1,
                        .eos_id = 2,
                        .unk_id = 0,
                        .add_bos = true,
                        .add_space_prefix = true};
    tokenizer *t;
    int32_t *ids;
    size_t count;
    assert_int_equal(tokenizer_from_spec(&t, &s, NULL), NVLLM_OK);
    const char text[] = "ab  \xC3\xA9</s>";
    static const int32_t parsed[] = {1, 3, 6, 3, 3, 7 + 0xC3, 7 + 0xA9, 2};
    assert_int_equal(tokenizer_encode(t, text, strlen(text), TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL,
                                      &ids, &count, NULL),
                     NVLLM_OK);
    assert_int_equal(count, sizeof parsed / sizeof *parsed);
    assert_memory_equal(ids, parsed, sizeof parsed);
    buffer out = {0};
    assert_int_equal(tokenizer_decode(t, ids, count, TOKENIZER_SKIP_SPECIAL, &out, NULL), NVLLM_OK);
    assert_string_equal(out.data, "ab  \xC3\xA9");
    buffer_free(&out);
    free(ids);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &ids, &count, NULL), NVLLM_OK);
    assert_int_equal(ids[6], 7 + '<'); /* </s> in a user's text is text */
    free(ids);
    tokenizer_close(t);
}

static void check_small(const tokenizer_spec *s, const char *text, const int32_t *want, size_t want_count)
{
    tokenizer *t;
    int32_t *ids;
    size_t count;
    nvllm_error err = {0};
    if (tokenizer_from_spec(&t, s, &err) != NVLLM_OK) fail_msg("%s", err.message);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &ids, &count, &err), NVLLM_OK);
    assert_int_equal(count, want_count);
    assert_memory_equal(ids, want, count * sizeof *ids);
    free(ids);
    tokenizer_close(t);
}

static void check_flags(const tokenizer *t, const char *text, unsigned flags, const int32_t *want,
                        size_t want_count)
{
    int32_t *ids;
    size_t count;
    nvllm_error err = {0};
    if (tokenizer_encode(t, text, strlen(text), flags, &ids, &count, &err)) fail_msg("%s", err.message);
    if (count != want_count) fail_msg("\"%s\": %zu ids", text, count);
    for (size_t i = 0; i < count; i++)
        if (ids[i] != want[i]) fail_msg("\"%s\": id %zu is %d", text, i, (int)ids[i]);
    free(ids);
}

/* Types as converters write them, wrong ones included. */
static void spec_of_gpt2_kind_obeys_the_types_of_tokens(void **state)
{
    (void)state;
    const tokenizer_text tokens[] = {text_of("a"),        text_of("b"),      text_of("<|im_end|>"),
                                     text_of(""),         text_of("[user]"), text_of("[control]"),
                                     text_of("ab"),       text_of(""),       text_of("[odd]"),
                                     text_of("[unused]"), text_of("[")};
    const int32_t types[] = {1, 1,  TOKENIZER_NORMAL, 1, TOKENIZER_USER_DEFINED, TOKENIZER_CONTROL, 1,
                             1, 77, TOKENIZER_UNUSED, 1};
    const tokenizer_text merges[] = {text_of("a b")};
    const tokenizer_spec s = {.model = "gpt2",
                              .pre = "gpt-2",
                              .tokens = tokens,
                              .token_count = 11,
                              .types = types,
                              .merges = merges,
                              .merge_count = 1,
                              .bos_id = -1,
                              .eos_id = -1,
                              .unk_id = -1};
    tokenizer *t;
    nvllm_error err = {0};
    size_t len;
    if (tokenizer_from_spec(&t, &s, &err)) fail_msg("%s", err.message);
    check_flags(t, "ab[user]a", 0, (const int32_t[]){6, 4, 0}, 3); /* user-defined: always */
    check_flags(t, "ab[control]a", TOKENIZER_PARSE_SPECIAL, (const int32_t[]){6, 5, 0}, 3);
    check_flags(t, "a<|im_end|>", TOKENIZER_PARSE_SPECIAL, (const int32_t[]){0, 2},
                2);                                                /* known by its string */
    check_flags(t, "[control]ab", 0, (const int32_t[]){10, 6}, 2); /* its letters are no tokens here */
    check_flags(t, "[odd][unused]", TOKENIZER_PARSE_SPECIAL, (const int32_t[]){10, 10}, 2);
    assert_true(tokenizer_is_special(t, 2) && tokenizer_is_special(t, 5));
    assert_false(tokenizer_is_special(t, 4) || tokenizer_is_special(t, 8) || tokenizer_is_special(t, 9));
    assert_int_equal(tokenizer_vocab_size(t), 11);
    assert_non_null(tokenizer_id_to_piece(t, 3, &len)); /* empty strings are tokens that no text becomes */
    assert_int_equal(tokenizer_token_to_id(t, "[EMPTY_7]", 9), 7);
    tokenizer_close(t);
}

/* User-defined tokens are cut out of the plain text: what follows starts anew, with its space. */
static void spec_of_llama_kind_cuts_user_defined_tokens_out_of_plain_text(void **state)
{
    (void)state;
    enum { BYTES = 256, SIZE = BYTES + 9 };
    static char names[BYTES][8];
    tokenizer_text tokens[SIZE];
    int32_t types[SIZE];
    float scores[SIZE] = {0};
    static const char *const words[] = {"<unk>", "\xE2\x96\x81", "a", "[x]", "  ", "</s>", "", "", "\n"};
    static const int32_t kinds[] = {TOKENIZER_UNKNOWN, 1, 1, TOKENIZER_USER_DEFINED, TOKENIZER_USER_DEFINED,
                                    TOKENIZER_NORMAL,  0, 1, TOKENIZER_USER_DEFINED};
    for (int i = 0; i < SIZE; i++) {
        if (i < BYTES) snprintf(names[i], sizeof names[i], "<0x%02X>", (unsigned)i);
        tokens[i] = text_of(i < BYTES ? names[i] : words[i - BYTES]);
        types[i] = i < BYTES ? TOKENIZER_NORMAL : kinds[i - BYTES]; /* bytes without their type */
    }
    const tokenizer_spec s = {.model = "llama",
                              .tokens = tokens,
                              .token_count = SIZE,
                              .scores = scores,
                              .types = types,
                              .bos_id = -1,
                              .eos_id = -1,
                              .unk_id = -1,
                              .add_space_prefix = true};
    tokenizer *t;
    nvllm_error err = {0};
    if (tokenizer_from_spec(&t, &s, &err)) fail_msg("%s", err.message);
    const int32_t mark = BYTES + 1, a = BYTES + 2, x = BYTES + 3, two = BYTES + 4, line = BYTES + 8;
    check_flags(t, "[x]a", 0, (const int32_t[]){x, mark, a}, 3);
    check_flags(t, "a[x]", 0, (const int32_t[]){mark, a, x}, 3);
    check_flags(t, "a  a", 0, (const int32_t[]){mark, a, two, mark, a}, 5);
    check_flags(t, "\n", 0, (const int32_t[]){line}, 1);
    check_flags(t, "z</s>", TOKENIZER_PARSE_SPECIAL, (const int32_t[]){mark, 'z', BYTES + 5}, 3);
    assert_null(tokenizer_note(t));
    tokenizer_close(t);
}

static void bpe_of_equal_pairs_merges_from_the_left(void **state)
{
    (void)state;
    const tokenizer_text tokens[] = {text_of("a"), text_of("aa"), text_of("aaaa")};
    const tokenizer_text merges[] = {text_of("a a"), text_of("aa aa")};
    const tokenizer_spec s = {.model = "gpt2",
                              .pre = "gpt-2",
                              .tokens = tokens,
                              .token_count = 3,
                              .merges = merges,
                              .merge_count = 2,
                              .bos_id = -1,
                              .eos_id = -1,
                              .unk_id = -1};
    char text[72] = {0};
    int32_t want[20];
    for (int count = 1; count <= 71; count += 2) { /* beyond 32 symbols the heap takes over from the scan */
        size_t n = 0;
        memset(text, 'a', (size_t)count);
        for (int i = 0; i < count / 4; i++) want[n++] = 2;
        if (count % 4 >= 2) want[n++] = 1;
        want[n++] = 0;
        check_small(&s, text, want, n);
    }
}

static void spm_of_overlapping_pairs_takes_the_better_score(void **state)
{
    (void)state;
    const tokenizer_text tokens[] = {text_of("<unk>"), text_of("a"),  text_of("b"),
                                     text_of("c"),     text_of("ab"), text_of("bc")};
    const int32_t types[] = {TOKENIZER_UNKNOWN, 1, 1, 1, 1, 1};
    float scores[] = {0, 0, 0, 0, -1.5f, -2.5f};
    const tokenizer_spec s = {.model = "llama",
                              .tokens = tokens,
                              .token_count = 6,
                              .scores = scores,
                              .types = types,
                              .bos_id = -1,
                              .eos_id = -1,
                              .unk_id = 0};
    static const int32_t left[] = {4, 3, 0, 1}, right[] = {1, 5, 0, 1};
    check_small(&s, "abcxxa", left, 4); /* both x are one unknown token */
    scores[4] = -3.5f;
    check_small(&s, "abcxxa", right, 4);
    scores[4] = 1.5f;
    check_small(&s, "abcxxa", left, 4);
    scores[4] = -2.5f;
    check_small(&s, "abcxxa", left, 4); /* equal: from the left */
    scores[5] = 2.5f;
    check_small(&s, "abcxxa", right, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spec_of_gpt2_kind_gives_the_ids_of_tokenizer_json),
        cmocka_unit_test(spec_with_unknown_names_or_ids_is_refused),
        cmocka_unit_test(spec_of_llama_kind_merges_by_score_and_falls_back_to_bytes),
        cmocka_unit_test(spec_of_gpt2_kind_obeys_the_types_of_tokens),
        cmocka_unit_test(spec_of_llama_kind_cuts_user_defined_tokens_out_of_plain_text),
        cmocka_unit_test(bpe_of_equal_pairs_merges_from_the_left),
        cmocka_unit_test(spm_of_overlapping_pairs_takes_the_better_score),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
