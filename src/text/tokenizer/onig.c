/* Oniguruma (Ruby syntax) -> PCRE2: the constructs that both spell alike but read differently.
 *
 *   \s \S      White_Space; PCRE2's also matches U+180E
 *   \w \W      Alphabetic, marks, Nd, Pc, and Latin-1's superscripts and fractions; PCRE2 10.42's is letters,
 *              numbers and the underscore; \b and \B follow
 *   \h \H      a hexadecimal digit; in PCRE2 a horizontal space
 *   \v         the vertical tab; in PCRE2 a class
 *   \uHHHH     a code point; PCRE2 wants \x{HHHH}
 *   (?m:       `.` matches the line feed; in PCRE2 (?s:
 * Everything else is copied, except what is refused: set operations and nested sets in classes, possessive
 * intervals ({1,3}+ is not possessive in Ruby), subexpression calls, \G, \K, \R, \X and further letters. */
#include "text/tokenizer/pattern.h"

#include <ctype.h>
#include <string.h>

/* Inside brackets; no class contains another. U+180E is not a space. */
#define SPACE_SET                                                                                            \
    "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define WORD_SET "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
#define WORD     "[" WORD_SET "]"

typedef struct {
    const char *at, *end;
    buffer *out;
    bool in_class;
    nvllm_error *err;
} translation;

static nvllm_status refuse(translation *t, const char *what)
{
    return error_set(t->err, NVLLM_ERR_UNSUPPORTED, "regular expression: %s is not supported", what);
}

/* A shorthand as a class of its own, or as members of the class it stands in. */
static nvllm_status put_set(translation *t, const char *set, bool negated)
{
    if (t->in_class && negated) {
        /* A complement inside a class: PCRE2 has no set algebra, but two of them have a double negative. */
        return refuse(t, "\\W or \\H inside a class");
    }
    if (!t->in_class) buffer_puts(t->out, negated ? "[^" : "[");
    buffer_puts(t->out, set);
    if (!t->in_class) buffer_putc(t->out, ']');
    return NVLLM_OK;
}

/* \S inside a class: all code points between the spaces. */
static void put_not_space(translation *t)
{
    buffer_puts(t->out, "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}"
                        "\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}"
                        "\\x{2060}-\\x{2FFF}\\x{3001}-\\x{D7FF}\\x{E000}-\\x{10FFFF}");
}

/* \uHHHH -> \x{HHHH}; t->at is behind the u. */
static nvllm_status put_code_point(translation *t)
{
    if (t->end - t->at < 4) return refuse(t, "\\u without four digits");
    for (int i = 0; i < 4; i++)
        if (!isxdigit((unsigned char)t->at[i])) return refuse(t, "\\u without four digits");
    buffer_puts(t->out, "\\x{");
    buffer_append(t->out, t->at, 4);
    buffer_putc(t->out, '}');
    t->at += 4;
    return NVLLM_OK;
}

static nvllm_status translate_escape(translation *t)
{
    if (t->at == t->end) return refuse(t, "a trailing backslash");
    char c = *t->at++;
    switch (c) {
    case 's': return put_set(t, SPACE_SET, false);
    case 'S':
        if (!t->in_class) return put_set(t, SPACE_SET, true);
        put_not_space(t);
        return NVLLM_OK;
    case 'w':
    case 'W': return put_set(t, WORD_SET, c == 'W');
    case 'h':
    case 'H': return put_set(t, "0-9A-Fa-f", c == 'H');
    case 'v': buffer_puts(t->out, "\\x0B"); return NVLLM_OK;
    case 'u': return put_code_point(t);
    default: break;
    }
    if (isalpha((unsigned char)c) && !strchr("ntrfaedDpPxAzZ", c)) {
        char what[] = {'\\', c, '\0'};
        return refuse(t, what);
    }
    buffer_putc(t->out, '\\');
    buffer_putc(t->out, c);
    return NVLLM_OK;
}

/* Inside brackets, after '[' or later; the closing bracket is copied by the caller's loop. */
static nvllm_status translate_in_class(translation *t, char c)
{
    if (c == '&' && t->at < t->end && *t->at == '&') return refuse(t, "&& inside a class");
    if (c == '[') {
        if (t->at < t->end && *t->at == ':') {
            const char *close = memchr(t->at, ']', (size_t)(t->end - t->at));
            if (!close) return refuse(t, "an unclosed class");
            buffer_putc(t->out, '[');
            buffer_append(t->out, t->at, (size_t)(close + 1 - t->at));
            t->at = close + 1;
            return NVLLM_OK;
        }
        return refuse(t, "a class inside a class");
    }
    if (c == ']') t->in_class = false;
    buffer_putc(t->out, c);
    return NVLLM_OK;
}

/* (?m: -> (?s: and the group kinds that mean the same to both; t->at is behind "(?". */
static nvllm_status translate_group(translation *t)
{
    if (t->at == t->end) return refuse(t, "an unclosed group");
    buffer_puts(t->out, "(?");
    if (strchr(":=!><", *t->at)) {
        char kind = *t->at++;
        buffer_putc(t->out, kind);
        if (kind == '<' && (t->at == t->end || !strchr("=!", *t->at))) return refuse(t, "a named group");
        return NVLLM_OK;
    }
    for (; t->at < t->end && *t->at != ':' && *t->at != ')'; t->at++) {
        if (!strchr("imx-", *t->at)) return refuse(t, "this kind of group (?...)");
        buffer_putc(t->out, *t->at == 'm' ? 's' : *t->at);
    }
    return NVLLM_OK;
}

/* '{' as an interval {n}, {n,}, {n,m}: copied whole. Anything else in braces is refused. */
static nvllm_status translate_interval(translation *t)
{
    const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
    if (!close || close == t->at || *t->at == ',') return refuse(t, "a brace that is not {n}, {n,} or {n,m}");
    for (const char *p = t->at; p < close; p++)
        if (!isdigit((unsigned char)*p) && *p != ',')
            return refuse(t, "a brace that is not {n}, {n,} or {n,m}");
    buffer_putc(t->out, '{');
    buffer_append(t->out, t->at, (size_t)(close + 1 - t->at));
    t->at = close + 1;
    if (t->at < t->end && *t->at == '+') return refuse(t, "'+' behind an interval");
    return NVLLM_OK;
}

static nvllm_status translate_one(translation *t)
{
    char c = *t->at++;
    if (c == '\\') {
        bool property = t->at < t->end && (*t->at == 'p' || *t->at == 'P');
        bool code = t->at < t->end && *t->at == 'x';
        nvllm_status st = translate_escape(t);
        if (st != NVLLM_OK || !(property || code) || t->at == t->end || *t->at != '{') return st;
        const char *close = memchr(t->at, '}', (size_t)(t->end - t->at));
        if (!close) return refuse(t, "an unclosed brace");
        buffer_append(t->out, t->at, (size_t)(close + 1 - t->at));
        t->at = close + 1;
        return NVLLM_OK;
    }
    if (t->in_class) return translate_in_class(t, c);
    if (c == '{') return translate_interval(t);
    if (c == '(' && t->at < t->end && *t->at == '*') return refuse(t, "a verb (*...)");
    if (c == '(' && t->at < t->end && *t->at == '?') {
        t->at++;
        return translate_group(t);
    }
    buffer_putc(t->out, c);
    if (c != '[') return NVLLM_OK;
    t->in_class = true;
    if (t->at < t->end && *t->at == '^') buffer_putc(t->out, *t->at++);
    if (t->at < t->end && *t->at == ']') return refuse(t, "a class that starts with ']'");
    return NVLLM_OK;
}

nvllm_status tok_onig_translate(buffer *out, const char *pattern, size_t len, nvllm_error *err)
{
    translation t = {.at = pattern, .end = pattern + len, .out = out, .err = err};
    if (len > 100000) return refuse(&t, "a pattern of more than 100,000 bytes");
    while (t.at < t.end) {
        nvllm_status st = translate_one(&t);
        if (st != NVLLM_OK) return st;
    }
    return NVLLM_OK;
}
