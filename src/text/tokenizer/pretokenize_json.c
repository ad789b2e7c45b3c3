/* Pre-tokenizers: reading them from tokenizer.json; see pretokenize.h. */
#include "text/tokenizer/json.h"
#include "text/tokenizer/pretokenize.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

const char tok_gpt2_regex[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

void tok_pretokenizer_free(tok_pretokenizer *p)
{
    for (size_t i = 0; i < p->count; i++) tok_pattern_close(p->step[i].pattern);
    free(p->step);
    *p = (tok_pretokenizer){0};
}

nvllm_status tok_pretokenizer_add(tok_pretokenizer *p, tok_pre_step step, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    tok_pre_step *grown = NULL;
    if (p->count >= TOK_MAX_STEPS)
        st = error_set(err, NVLLM_ERR_LIMIT, "pre_tokenizer: more than %d steps", TOK_MAX_STEPS);
    else if (!(grown = realloc(p->step, (p->count + 1) * sizeof *grown)))
        st = error_memory(err, sizeof *grown, "a pre-tokenizer");
    if (!grown) {
        tok_pattern_close(step.pattern);
        return st;
    }
    p->step = grown;
    p->step[p->count++] = step;
    return NVLLM_OK;
}

static nvllm_status read_behavior(const json_t *json, const char *where, const char *missing,
                                  tok_behavior *out, nvllm_error *err)
{
    static const struct {
        const char *name;
        tok_behavior value;
    } known[] = {{"Removed", TOK_REMOVED},
                 {"Isolated", TOK_ISOLATED},
                 {"MergedWithPrevious", TOK_MERGED_WITH_PREVIOUS},
                 {"MergedWithNext", TOK_MERGED_WITH_NEXT},
                 {"Contiguous", TOK_CONTIGUOUS}};
    const json_t *value = json_object_get(json, "behavior");
    const char *name = value ? json_string_value(value) : missing;
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) != 0) continue;
        *out = known[i].value;
        return NVLLM_OK;
    }
    return error_set(err, NVLLM_ERR_UNSUPPORTED, "%s: behavior \"%.60s\" is not known", where,
                     name ? name : "(not a string)");
}

static nvllm_status read_split(tok_pre_step *s, const json_t *json, nvllm_error *err)
{
    const char *where = "pre_tokenizer Split";
    s->kind = TOK_SPLIT;
    nvllm_status st = read_behavior(json, where, NULL, &s->behavior, err);
    if (st == NVLLM_OK) st = tok_json_bool(json, "invert", where, TOK_REQUIRED, &s->invert, err);
    if (st == NVLLM_OK) st = tok_pattern_from_json(&s->pattern, json_object_get(json, "pattern"), where, err);
    return st;
}

static nvllm_status read_byte_level(tok_pre_step *s, const json_t *json, nvllm_error *err)
{
    const char *where = "pre_tokenizer ByteLevel";
    bool use_regex;
    s->kind = TOK_BYTE_LEVEL;
    nvllm_status st = tok_json_bool(json, "add_prefix_space", where, TOK_REQUIRED, &s->add_prefix_space, err);
    if (st == NVLLM_OK) st = tok_json_bool(json, "use_regex", where, TOK_DEFAULT_TRUE, &use_regex, err);
    if (st == NVLLM_OK && use_regex)
        st = tok_pattern_regex(&s->pattern, tok_gpt2_regex, strlen(tok_gpt2_regex), err);
    return st;
}

nvllm_status tok_metaspace_from_json(tok_pre_step *s, const json_t *json, const char *where, nvllm_error *err)
{
    s->kind = TOK_METASPACE;
    nvllm_status st = tok_json_char(json, "replacement", where, s->mark, &s->mark_len, err);
    if (st != NVLLM_OK) return st;
    if ((st = tok_json_bool(json, "split", where, TOK_DEFAULT_TRUE, &s->split, err)) != NVLLM_OK) return st;
    bool prefix;
    if ((st = tok_json_bool(json, "add_prefix_space", where, TOK_DEFAULT_TRUE, &prefix, err)) != NVLLM_OK)
        return st;
    const json_t *scheme = json_object_get(json, "prepend_scheme");
    const char *name = scheme ? json_string_value(scheme) : prefix ? "always" : "never";
    if (name && strcmp(name, "always") == 0)
        s->prepend = TOK_PREPEND_ALWAYS;
    else if (name && strcmp(name, "first") == 0)
        s->prepend = TOK_PREPEND_FIRST;
    else if (name && strcmp(name, "never") == 0)
        s->prepend = TOK_PREPEND_NEVER;
    else
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "%s: prepend_scheme \"%.60s\" is not known", where,
                         name ? name : "(not a string)");
    if (!prefix && s->prepend != TOK_PREPEND_NEVER)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: add_prefix_space is false, but prepend_scheme is \"%s\"",
                         where, name);
    return NVLLM_OK;
}

static nvllm_status read_step(tok_pre_step *s, const json_t *json, const char *type, nvllm_error *err)
{
    if (strcmp(type, "Split") == 0) return read_split(s, json, err);
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(s, json, err);
    if (strcmp(type, "Metaspace") == 0)
        return tok_metaspace_from_json(s, json, "pre_tokenizer Metaspace", err);
    if (strcmp(type, "Digits") == 0) {
        bool individual;
        s->kind = TOK_DIGITS;
        nvllm_status st =
            tok_json_bool(json, "individual_digits", "pre_tokenizer Digits", TOK_REQUIRED, &individual, err);
        s->behavior = st == NVLLM_OK && individual ? TOK_ISOLATED : TOK_CONTIGUOUS;
        return st;
    }
    if (strcmp(type, "Punctuation") == 0) {
        s->kind = TOK_PUNCTUATION;
        return read_behavior(json, "pre_tokenizer Punctuation", "Isolated", &s->behavior, err);
    }
    if (strcmp(type, "Whitespace") == 0) {
        s->kind = TOK_WORDS;
        return NVLLM_OK;
    }
    if (strcmp(type, "WhitespaceSplit") == 0) {
        s->kind = TOK_SPACE_SPLIT;
        s->behavior = TOK_REMOVED;
        return NVLLM_OK;
    }
    return error_set(
        err, NVLLM_ERR_UNSUPPORTED,
        "pre_tokenizer \"%.60s\" is not supported (Split, ByteLevel, Digits, Metaspace, Punctuation, "
        "Whitespace, WhitespaceSplit, Sequence)",
        type);
}

static nvllm_status read_into(tok_pretokenizer *p, const json_t *json, int depth, nvllm_error *err)
{
    const char *type;
    nvllm_status st = tok_json_type(json, "pre_tokenizer", depth, &type, err);
    if (st != NVLLM_OK) return st;
    if (strcmp(type, "Sequence") != 0) {
        tok_pre_step step = {0};
        st = read_step(&step, json, type, err);
        if (st == NVLLM_OK) return tok_pretokenizer_add(p, step, err);
        tok_pattern_close(step.pattern);
        return st;
    }
    const json_t *list = json_object_get(json, "pretokenizers");
    if (!json_is_array(list))
        return error_set(err, NVLLM_ERR_FORMAT, "pre_tokenizer Sequence: \"pretokenizers\" is not a list");
    for (size_t i = 0; i < json_array_size(list); i++)
        if ((st = read_into(p, json_array_get(list, i), depth + 1, err)) != NVLLM_OK) return st;
    return NVLLM_OK;
}

nvllm_status tok_pretokenizer_from_json(tok_pretokenizer *p, const json_t *json, nvllm_error *err)
{
    return !json || json_is_null(json) ? NVLLM_OK : read_into(p, json, 0, err);
}
