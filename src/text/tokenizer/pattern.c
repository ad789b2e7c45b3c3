/* Patterns; see pattern.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#define _GNU_SOURCE           /* memmem */

#include "text/tokenizer/pattern.h"
#include "text/utf8.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define STACK_START   (32u << 10)
#define STACK_MAX     (16u << 20) /* of the JIT; past it the interpreter takes over, with its heap limit */
#define HEAP_LIMIT_KB (64u << 10)
#define MATCH_LIMIT   5000000u /* backtracking steps of one search */

struct tok_pattern {
    pcre2_code *code; /* NULL: a literal, never empty */
    char *literal;
    size_t literal_len;
};

struct tok_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static nvllm_status compile(tok_pattern *p, const buffer *text, nvllm_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return error_memory(err, 0, "a regular expression");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int code;
    PCRE2_SIZE offset;
    /* Ruby's ^ and $ match at every line; its `.` excludes the line feed only. */
    p->code = pcre2_compile((PCRE2_SPTR)(text->data ? text->data : ""), text->len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &offset,
                            context);
    pcre2_compile_context_free(context);
    if (!p->code) {
        char why[160] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "regular expression \"%.150s\": %s", text->data, why);
    }
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* failure leaves the interpreter */
    return NVLLM_OK;
}

nvllm_status tok_pattern_regex(tok_pattern **out, const char *regex, size_t len, nvllm_error *err)
{
    *out = NULL;
    buffer text = {0};
    tok_pattern *p = calloc(1, sizeof *p);
    nvllm_status st = p ? NVLLM_OK : error_memory(err, sizeof *p, "a pattern");
    if (st == NVLLM_OK) st = tok_onig_translate(&text, regex, len, err);
    if (st == NVLLM_OK && text.failed) st = error_memory(err, len, "a pattern");
    if (st == NVLLM_OK) st = compile(p, &text, err);
    buffer_free(&text);
    if (st != NVLLM_OK) {
        tok_pattern_close(p);
        return st;
    }
    *out = p;
    return NVLLM_OK;
}

nvllm_status tok_pattern_literal(tok_pattern **out, const char *text, size_t len, nvllm_error *err)
{
    if (len == 0) return tok_pattern_regex(out, "", 0, err); /* matches between all characters */
    *out = NULL;
    tok_pattern *p = calloc(1, sizeof *p);
    if (p) p->literal = malloc(len);
    if (!p || !p->literal) {
        free(p);
        return error_memory(err, len, "a pattern");
    }
    memcpy(p->literal, text, len);
    p->literal_len = len;
    *out = p;
    return NVLLM_OK;
}

nvllm_status tok_pattern_from_json(tok_pattern **out, const json_t *json, const char *where, nvllm_error *err)
{
    *out = NULL;
    const json_t *text = json_object_get(json, "String"), *regex = json_object_get(json, "Regex");
    const json_t *value = text ? text : regex;
    if (!json_is_string(value) || (text && regex))
        return error_set(err, NVLLM_ERR_FORMAT,
                         "%s: pattern is neither {\"String\": ...} nor {\"Regex\": ...}", where);
    const char *s = json_string_value(value);
    size_t len = json_string_length(value);
    nvllm_status st = text ? tok_pattern_literal(out, s, len, err) : tok_pattern_regex(out, s, len, err);
    return st == NVLLM_OK ? st : error_prefix(err, "%s", where);
}

void tok_pattern_close(tok_pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    free(p->literal);
    free(p);
}

bool tok_pattern_is_regex(const tok_pattern *p)
{
    return p->code != NULL;
}

nvllm_status tok_matcher_open(tok_matcher **out, nvllm_error *err)
{
    tok_matcher *m = *out = calloc(1, sizeof *m);
    if (!m) return error_memory(err, sizeof *m, "a matcher");
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    m->stack = pcre2_jit_stack_create(STACK_START, STACK_MAX, NULL);
    if (!m->data || !m->context || !m->stack) {
        tok_matcher_close(m);
        *out = NULL;
        return error_memory(err, STACK_MAX, "a matcher");
    }
    pcre2_jit_stack_assign(m->context, NULL, m->stack);
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KB);
    return NVLLM_OK;
}

void tok_matcher_close(tok_matcher *m)
{
    if (!m) return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    free(m);
}

/* The first match at or after s->next. */
static nvllm_status find(tok_search *s, const tok_pattern *p, tok_matcher *m, bool *found, nvllm_error *err)
{
    *found = false;
    if (!p->code) {
        const char *at = memmem(s->text + s->next, s->len - s->next, p->literal, p->literal_len);
        if (!at) return NVLLM_OK;
        s->start = (size_t)(at - s->text);
        s->end = s->start + p->literal_len;
        *found = true;
        return NVLLM_OK;
    }
    PCRE2_SPTR text = (PCRE2_SPTR)s->text;
    int rc = pcre2_match(p->code, text, s->len, s->next, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, text, s->len, s->next, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data,
                         m->context);
    if (rc == PCRE2_ERROR_NOMATCH) return NVLLM_OK;
    if (rc < 0) {
        char why[160] = "";
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        return error_set(err, NVLLM_ERR_LIMIT, "a tokenizer pattern failed at byte %zu of the text: %s",
                         s->next, why);
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
    s->start = at[0];
    s->end = at[1];
    *found = s->start <= s->end; /* \K in a lookaround could turn them round; it is refused as well */
    return NVLLM_OK;
}

nvllm_status tok_search_next(tok_search *s, const tok_pattern *p, tok_matcher *m, bool *found,
                             nvllm_error *err)
{
    *found = false;
    while (s->next <= s->len) {
        nvllm_status st = find(s, p, m, found, err);
        if (st != NVLLM_OK || !*found) return st;
        if (s->start != s->end || !s->matched || s->last_end != s->end) {
            s->next = s->last_end = s->end;
            s->matched = true;
            return NVLLM_OK;
        }
        s->next += s->next < s->len ? utf8_length(s->text[s->next]) : 1;
    }
    *found = false;
    return NVLLM_OK;
}
