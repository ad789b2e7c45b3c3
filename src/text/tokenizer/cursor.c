/* The cursor over large JSON values; see json.h. */
#include "text/tokenizer/json.h"
#include "text/utf8.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void tok_cursor_start(tok_cursor *c, tok_slice slice, nvllm_error *err)
{
    *c = (tok_cursor){.begin = slice.text, .at = slice.text, .end = slice.text + slice.len, .err = err};
}

void tok_cursor_free(tok_cursor *c)
{
    buffer_free(&c->scratch);
}

nvllm_status tok_cursor_fail(tok_cursor *c, const char *what)
{
    return error_set(c->err, NVLLM_ERR_FORMAT, "byte %zu: expected %s", (size_t)(c->at - c->begin), what);
}

char tok_cursor_peek(tok_cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t')) c->at++;
    return c->at < c->end ? *c->at : '\0';
}

static bool take(tok_cursor *c, char want)
{
    if (tok_cursor_peek(c) != want || c->at == c->end) return false;
    c->at++;
    return true;
}

nvllm_status tok_cursor_item(tok_cursor *c, char open, char close, bool first, bool *more)
{
    const char *opening = open == '{' ? "an object" : "a list";
    *more = false;
    if (first) {
        if (!take(c, open)) return tok_cursor_fail(c, opening);
        *more = !take(c, close);
        return NVLLM_OK;
    }
    if (take(c, close)) return NVLLM_OK;
    if (!take(c, ',')) return tok_cursor_fail(c, "',' or the end of the list or object");
    *more = true;
    return NVLLM_OK;
}

static int hex_digit(char ch)
{
    if (ch >= '0' && ch <= '9') return ch - '0';
    if (ch >= 'a' && ch <= 'f') return ch - 'a' + 10;
    if (ch >= 'A' && ch <= 'F') return ch - 'A' + 10;
    return -1;
}

/* Four hexadecimal digits at c->at; -1 when they are not there. */
static int32_t take_hex(tok_cursor *c)
{
    int32_t value = 0;
    if (c->end - c->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(c->at[i]);
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    c->at += 4;
    return value;
}

static nvllm_status take_unicode_escape(tok_cursor *c)
{
    int32_t code = take_hex(c);
    if (code < 0) return tok_cursor_fail(c, "four hexadecimal digits");
    if (code >= 0xDC00 && code <= 0xDFFF) return tok_cursor_fail(c, "a leading surrogate");
    if (code >= 0xD800 && code <= 0xDBFF) {
        if (c->end - c->at < 2 || c->at[0] != '\\' || c->at[1] != 'u')
            return tok_cursor_fail(c, "a trailing surrogate");
        c->at += 2;
        int32_t low = take_hex(c);
        if (low < 0xDC00 || low > 0xDFFF) return tok_cursor_fail(c, "a trailing surrogate");
        code = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00);
    }
    char out[4];
    buffer_append(&c->scratch, out, utf8_encode((uint32_t)code, out));
    return NVLLM_OK;
}

/* c->at is behind the backslash. */
static nvllm_status take_escape(tok_cursor *c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char ch = c->at < c->end ? *c->at : '\0';
    if (ch == 'u') {
        c->at++;
        return take_unicode_escape(c);
    }
    const char *known = ch ? strchr(from, ch) : NULL;
    if (!known) return tok_cursor_fail(c, "an escape");
    c->at++;
    buffer_putc(&c->scratch, to[known - from]);
    return NVLLM_OK;
}

/* Runs to the next quote or backslash; control characters and invalid UTF-8 are refused. */
static nvllm_status take_plain(tok_cursor *c)
{
    const char *from = c->at;
    bool ascii = true;
    while (c->at < c->end && *c->at != '"' && *c->at != '\\') {
        unsigned char ch = (unsigned char)*c->at;
        if (ch < 0x20) return tok_cursor_fail(c, "no control character in a string");
        ascii &= ch < 0x80;
        c->at++;
    }
    size_t len = (size_t)(c->at - from);
    if (ascii) return NVLLM_OK;
    size_t valid = utf8_valid_prefix(from, len);
    if (valid == len) return NVLLM_OK;
    c->at = from + valid;
    return tok_cursor_fail(c, "valid UTF-8 in a string");
}

nvllm_status tok_cursor_string(tok_cursor *c, const char **text, size_t *len)
{
    if (!take(c, '"')) return tok_cursor_fail(c, "a string");
    const char *from = c->at;
    bool escaped = false;
    buffer_clear(&c->scratch);
    for (;;) {
        const char *plain = c->at;
        nvllm_status st = take_plain(c);
        if (st != NVLLM_OK) return st;
        if (c->at == c->end) return tok_cursor_fail(c, "the end of a string");
        if (*c->at == '"' && !escaped) {
            *text = from;
            *len = (size_t)(c->at++ - from);
            return NVLLM_OK;
        }
        buffer_append(&c->scratch, plain, (size_t)(c->at - plain));
        if (*c->at++ == '"') break;
        escaped = true;
        if ((st = take_escape(c)) != NVLLM_OK) return st;
    }
    if (c->scratch.failed) return error_memory(c->err, (size_t)(c->at - from), "a string");
    *text = c->scratch.data;
    *len = c->scratch.len;
    return NVLLM_OK;
}

nvllm_status tok_cursor_key(tok_cursor *c, const char **text, size_t *len)
{
    nvllm_status st = tok_cursor_string(c, text, len);
    if (st != NVLLM_OK) return st;
    return take(c, ':') ? NVLLM_OK : tok_cursor_fail(c, "':'");
}

nvllm_status tok_cursor_integer(tok_cursor *c, int64_t *value)
{
    if (!isdigit((unsigned char)tok_cursor_peek(c))) return tok_cursor_fail(c, "an integer from 0");
    const char *from = c->at;
    int64_t sum = 0;
    while (c->at < c->end && isdigit((unsigned char)*c->at) && c->at - from < 15)
        sum = sum * 10 + (*c->at++ - '0');
    bool leading_zero = *from == '0' && c->at - from > 1;
    if (leading_zero || (c->at < c->end && (isdigit((unsigned char)*c->at) || strchr(".eE", *c->at))))
        return tok_cursor_fail(c, "an integer of at most 15 digits");
    *value = sum;
    return NVLLM_OK;
}

static const char *digits(const char *p, const char *end)
{
    while (p < end && isdigit((unsigned char)*p)) p++;
    return p;
}

nvllm_status tok_cursor_number(tok_cursor *c, double *value)
{
    tok_cursor_peek(c);
    const char *p = c->at, *integer;
    if (p < c->end && *p == '-') p++;
    integer = p;
    p = digits(p, c->end);
    bool ok = p > integer && !(*integer == '0' && p - integer > 1);
    if (ok && p < c->end && *p == '.') {
        const char *fraction = p + 1;
        p = digits(fraction, c->end);
        ok = p > fraction;
    }
    if (ok && p < c->end && (*p == 'e' || *p == 'E')) {
        const char *exponent = p + 1;
        if (exponent < c->end && (*exponent == '+' || *exponent == '-')) exponent++;
        p = digits(exponent, c->end);
        ok = p > exponent;
    }
    char copy[64];
    size_t len = (size_t)(p - c->at);
    if (!ok || len >= sizeof copy) return tok_cursor_fail(c, "a number");
    memcpy(copy, c->at, len);
    copy[len] = '\0';
    *value = strtod(copy, NULL); /* the library never calls setlocale, so '.' is the decimal point */
    c->at = p;
    return NVLLM_OK;
}

static bool skip_string(tok_cursor *c)
{
    const char *p = c->at + 1;
    while (p < c->end && *p != '"') p += *p == '\\' ? 2 : 1;
    c->at = p < c->end ? p + 1 : c->end;
    return p < c->end;
}

/* To the bracket that closes the one at c->at. */
static nvllm_status skip_nested(tok_cursor *c)
{
    size_t depth = 0;
    while (c->at < c->end) {
        char ch = *c->at;
        if (ch == '"') {
            if (!skip_string(c)) return tok_cursor_fail(c, "the end of a string");
            continue;
        }
        c->at++;
        if (ch == '[' || ch == '{')
            depth++;
        else if ((ch == ']' || ch == '}') && --depth == 0)
            return NVLLM_OK;
    }
    return tok_cursor_fail(c, "the end of a list or object");
}

nvllm_status tok_cursor_skip(tok_cursor *c, tok_slice *value)
{
    char ch = tok_cursor_peek(c);
    const char *from = c->at;
    nvllm_status st = NVLLM_OK;
    if (c->at == c->end || ch == ',' || ch == ':' || ch == '}' || ch == ']')
        return tok_cursor_fail(c, "a value");
    if (ch == '[' || ch == '{')
        st = skip_nested(c);
    else if (ch == '"')
        st = skip_string(c) ? NVLLM_OK : tok_cursor_fail(c, "the end of a string");
    else
        while (c->at < c->end && !strchr(",]} \t\r\n", *c->at)) c->at++; /* a bare word or number */
    *value = (tok_slice){from, (size_t)(c->at - from)};
    return st == NVLLM_OK && value->len == 0 ? tok_cursor_fail(c, "a value") : st;
}

nvllm_status tok_cursor_done(tok_cursor *c)
{
    tok_cursor_peek(c);
    return c->at == c->end ? NVLLM_OK : tok_cursor_fail(c, "the end of the file");
}

nvllm_status tok_cursor_members(tok_cursor *c, const char *const *keys, tok_slice *value, size_t count)
{
    bool more;
    nvllm_status st = tok_cursor_item(c, '{', '}', true, &more);
    while (st == NVLLM_OK && more) {
        const char *key;
        size_t len, i = 0;
        tok_slice slice;
        if ((st = tok_cursor_key(c, &key, &len)) != NVLLM_OK) return st;
        while (i < count && (strlen(keys[i]) != len || memcmp(keys[i], key, len) != 0)) i++;
        if (i < count && value[i].len) return tok_cursor_fail(c, "no second member of the same name");
        if ((st = tok_cursor_skip(c, &slice)) != NVLLM_OK) return st;
        if (i < count) value[i] = slice;
        st = tok_cursor_item(c, '{', '}', false, &more);
    }
    return st;
}
