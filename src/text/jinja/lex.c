/* See lex.h. One function per state of the reference's lexer: root (text), tag, comment, raw. */
#include "text/jinja/lex.h"
#include "text/jinja/utf8.h"
#include "text/jinja/value.h"

#include <string.h>

#define MAX_BRACKETS 512u /* open brackets inside one tag */

typedef struct {
    const char *s; /* normalised source: only \n ends lines, no single trailing one */
    size_t len, pos;
    int line;
    bool line_starting; /* what was matched last ended a line */
    jinja_token *tokens;
    jinja_token lost; /* stands in for a token that found no memory */
    size_t n, cap;
    arena *keep, *scratch;
    nvllm_error *err;
    nvllm_status status;
} lexer;

static void fail(lexer *l, const char *what, const char *text, size_t len)
{
    if (l->status != NVLLM_OK) return;
    if (len > 60) len = jutf8_offset(text, len, 15);
    l->status =
        error_set(l->err, NVLLM_ERR_TEMPLATE, "template line %d: %s%.*s", l->line, what, (int)len, text);
}

static void fail_memory(lexer *l)
{
    if (l->status == NVLLM_OK)
        l->status = error_set(l->err, NVLLM_ERR_LIMIT, "template: too large to compile");
}

static jinja_token *emit(lexer *l, jinja_token_type type, const char *text, size_t len)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        jinja_token *tokens = arena_calloc(l->scratch, cap, sizeof *tokens);
        if (!tokens) return fail_memory(l), &l->lost;
        if (l->n) memcpy(tokens, l->tokens, l->n * sizeof *tokens);
        l->tokens = tokens;
        l->cap = cap;
    }
    l->tokens[l->n] = (jinja_token){.type = type, .line = l->line, .text = text, .len = len};
    return &l->tokens[l->n++];
}

/* Moves over [pos, to), counting lines. */
static void advance(lexer *l, size_t to)
{
    for (size_t i = l->pos; i < to; i++) l->line += l->s[i] == '\n';
    if (to > l->pos) l->line_starting = l->s[to - 1] == '\n';
    l->pos = to;
}

static bool at(const lexer *l, size_t pos, const char *text)
{
    size_t n = strlen(text);
    return n <= l->len - pos && memcmp(l->s + pos, text, n) == 0;
}

static size_t skip_space(const lexer *l, size_t pos)
{
    uint32_t cp;
    while (pos < l->len) {
        size_t n = jutf8_decode(l->s + pos, &cp);
        if (!jutf8_is_space(cp)) break;
        pos += n;
    }
    return pos;
}

/* The end of a tag that closes with `close` at pos ("%}" and the like): "-%}" takes the space behind it, and
 * "%}" the line end behind it where `trims`. 0: no end here. */
static size_t tag_end(const lexer *l, size_t pos, const char *close, bool trims)
{
    size_t n = strlen(close);
    if (pos < l->len && l->s[pos] == '-' && at(l, pos + 1, close)) return skip_space(l, pos + 1 + n);
    if (trims && pos < l->len && l->s[pos] == '+' && at(l, pos + 1, close)) return pos + 1 + n;
    if (!at(l, pos, close)) return 0;
    pos += n;
    return trims && pos < l->len && l->s[pos] == '\n' ? pos + 1 : pos;
}

/* Emits the text [pos, end) in front of a tag with the given sign. */
static void emit_data(lexer *l, size_t end, char sign, bool is_variable)
{
    size_t stop = end;
    if (sign == '-') {
        uint32_t cp;
        while (stop > l->pos) {
            size_t n = jutf8_decode_before(l->s, stop, &cp);
            if (!jutf8_is_space(cp)) break;
            stop -= n;
        }
    } else if (sign != '+' && !is_variable) {
        size_t line = end;
        while (line > l->pos && l->s[line - 1] != '\n') line--;
        if ((line > l->pos || l->line_starting) && skip_space(l, line) >= end) stop = line;
    }
    if (stop > l->pos) emit(l, TOKEN_DATA, l->s + l->pos, stop - l->pos);
    advance(l, end);
}

/* --- tokens inside tags ------------------------------------------------------------------------------------ */
static size_t scan_digits(const lexer *l, size_t pos, const char *digits)
{
    size_t end = pos;
    for (;;) {
        size_t i = end;
        if (i > pos && i < l->len && l->s[i] == '_') i++;
        if (i >= l->len || !l->s[i] || !strchr(digits, l->s[i])) return end;
        end = i + 1;
    }
}

/* End of a float literal at pos, or 0. */
static size_t scan_float(const lexer *l, size_t pos)
{
    static const char digits[] = "0123456789";
    if (pos > 0 && l->s[pos - 1] == '.') return 0;
    size_t end = scan_digits(l, pos, digits);
    if (end == pos) return 0;
    size_t start = end, n;
    if (at(l, end, ".") && (n = scan_digits(l, end + 1, digits)) > end + 1) end = n;
    if (end < l->len && (l->s[end] == 'e' || l->s[end] == 'E')) {
        size_t i = end + 1;
        if (i < l->len && (l->s[i] == '+' || l->s[i] == '-')) i++;
        if ((n = scan_digits(l, i, digits)) > i) end = n;
    }
    return end > start ? end : 0;
}

static size_t scan_integer(const lexer *l, size_t pos)
{
    static const struct {
        const char *upper, *lower, *digits;
    } bases[] = {{"0B", "0b", "_01"}, {"0O", "0o", "_01234567"}, {"0X", "0x", "_0123456789abcdefABCDEF"}};
    for (size_t i = 0; i < 3; i++) {
        if (!at(l, pos, bases[i].lower) && !at(l, pos, bases[i].upper)) continue;
        size_t first = pos + 2 + at(l, pos + 2, "_"), end = scan_digits(l, first, bases[i].digits + 1);
        if (end > first) return end;
    }
    return scan_digits(l, pos, l->s[pos] == '0' ? "0" : "0123456789");
}

static void lex_number(lexer *l)
{
    size_t end = scan_float(l, l->pos);
    if (end) {
        double f = 0;
        if (!jinja_parse_float(l->s + l->pos, end - l->pos, &f))
            fail(l, "bad number ", l->s + l->pos, end - l->pos);
        emit(l, TOKEN_FLOAT, l->s + l->pos, end - l->pos)->number.f = f;
    } else {
        int64_t i = 0;
        bool overflow = false;
        end = scan_integer(l, l->pos);
        if (!jinja_parse_int(l->s + l->pos, end - l->pos, 0, &i, &overflow) || overflow) {
            fail(l, "not a 64-bit integer: ", l->s + l->pos, end - l->pos);
        }
        emit(l, TOKEN_INTEGER, l->s + l->pos, end - l->pos)->number.i = i;
    }
    advance(l, end);
}

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *p = c ? strchr(digits, c | 0x20) : NULL;
    return p && ((c >= '0' && c <= '9') || (c | 0x20) >= 'a') ? (int)(p - digits) : -1;
}

/* \xhh, \uhhhh, \Uhhhhhhhh at s (behind the letter); returns the digits used, 0 when malformed. */
static size_t unescape_hex(const char *s, size_t len, char letter, char out[4], size_t *n)
{
    size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : 8;
    uint32_t cp = 0;
    if (len < digits) return 0;
    for (size_t i = 0; i < digits; i++) {
        int v = hex_value(s[i]);
        if (v < 0) return 0;
        cp = cp << 4 | (uint32_t)v;
    }
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000)) return 0;
    *n = utf8_encode(cp, out);
    return digits;
}

static size_t unescape_octal(const char *s, size_t len, char out[4], size_t *n)
{
    uint32_t cp = 0;
    size_t i = 0;
    while (i < 3 && i < len && s[i] >= '0' && s[i] <= '7') cp = cp * 8 + (uint32_t)(s[i++] - '0');
    *n = utf8_encode(cp, out);
    return i;
}

/* One escape behind the backslash, as Python's unicode-escape reads it; returns the bytes used. */
static size_t unescape_one(lexer *l, const char *s, size_t len, char out[4], size_t *n)
{
    static const char letters[] = "\\'\"abfnrtv", meanings[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = strchr(letters, s[0]);
    *n = 0;
    if (s[0] == '\n') return 1;
    if (s[0] && known) {
        out[(*n)++] = meanings[known - letters];
        return 1;
    }
    if (s[0] >= '0' && s[0] <= '7') return unescape_octal(s, len, out, n);
    if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U') {
        size_t used = unescape_hex(s + 1, len - 1, s[0], out, n);
        if (!used) fail(l, "bad escape in a string: \\", s, len < 10 ? len : 10);
        return used + 1;
    }
    if (s[0] == 'N') fail(l, "character names in strings are not supported: \\N", "", 0);
    out[(*n)++] = '\\'; /* an unknown escape stays as it is */
    return 0;
}

static void lex_string(lexer *l)
{
    char quote = l->s[l->pos];
    size_t start = l->pos + 1, end = start;
    while (end < l->len && l->s[end] != quote) end += l->s[end] == '\\' ? 2 : 1;
    if (end >= l->len) {
        fail(l, "a string is not closed: ", l->s + l->pos, l->len - l->pos);
        return;
    }
    char *text = arena_alloc(l->keep, end - start + 1);
    if (!text) {
        fail_memory(l);
        return;
    }
    size_t n = 0;
    for (size_t i = start; i < end && l->status == NVLLM_OK;) {
        if (l->s[i] != '\\') {
            text[n++] = l->s[i++];
            continue;
        }
        char bytes[4] = {0}; /* never longer than the escape itself */
        size_t m, used = unescape_one(l, l->s + i + 1, end - i - 1, bytes, &m);
        memcpy(text + n, bytes, m);
        n += m;
        i += 1 + used;
    }
    emit(l, TOKEN_STRING, text, n);
    advance(l, end + 1);
}

static size_t scan_name(const lexer *l, size_t pos)
{
    while (pos < l->len) {
        uint32_t cp;
        size_t n = jutf8_decode(l->s + pos, &cp);
        if (!jutf8_is_word(cp)) break;
        pos += n;
    }
    return pos;
}

static const struct {
    const char *text;
    jinja_token_type type;
} operators[] = {
    {"//", TOKEN_FLOORDIV}, {"**", TOKEN_POW},      {"==", TOKEN_EQ},    {"!=", TOKEN_NE},
    {">=", TOKEN_GE},       {"<=", TOKEN_LE},       {"+", TOKEN_ADD},    {"-", TOKEN_SUB},
    {"/", TOKEN_DIV},       {"*", TOKEN_MUL},       {"%", TOKEN_MOD},    {"~", TOKEN_TILDE},
    {"[", TOKEN_LBRACKET},  {"]", TOKEN_RBRACKET},  {"(", TOKEN_LPAREN}, {")", TOKEN_RPAREN},
    {"{", TOKEN_LBRACE},    {"}", TOKEN_RBRACE},    {">", TOKEN_GT},     {"<", TOKEN_LT},
    {"=", TOKEN_ASSIGN},    {".", TOKEN_DOT},       {":", TOKEN_COLON},  {"|", TOKEN_PIPE},
    {",", TOKEN_COMMA},     {";", TOKEN_SEMICOLON},
};

typedef struct {
    char open[MAX_BRACKETS];
    size_t n;
} brackets;

static void balance(lexer *l, brackets *b, char c)
{
    if (strchr("([{", c)) {
        if (b->n == MAX_BRACKETS) {
            if (l->status == NVLLM_OK) {
                l->status = error_set(l->err, NVLLM_ERR_LIMIT, "template line %d: more than %u open brackets",
                                      l->line, MAX_BRACKETS);
            }
            return;
        }
        b->open[b->n++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c) && (b->n == 0 || b->open[--b->n] != c)) {
        fail(l, "unexpected ", l->s + l->pos, 1);
    }
}

static void lex_operator(lexer *l, brackets *b)
{
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!at(l, l->pos, operators[i].text)) continue;
        size_t n = strlen(operators[i].text);
        if (n == 1) balance(l, b, l->s[l->pos]);
        emit(l, operators[i].type, operators[i].text, n);
        advance(l, l->pos + n);
        return;
    }
    uint32_t cp;
    fail(l, "unexpected character ", l->s + l->pos, jutf8_decode(l->s + l->pos, &cp));
}

static void lex_name(lexer *l)
{
    size_t end = scan_name(l, l->pos);
    uint32_t first;
    jutf8_decode(l->s + l->pos, &first);
    if (jutf8_is_numeric(first)) fail(l, "invalid character in a name: ", l->s + l->pos, end - l->pos);
    emit(l, TOKEN_NAME, l->s + l->pos, end - l->pos);
    advance(l, end);
}

/* From behind "{{" or "{%" to its end. */
static void lex_tag(lexer *l, bool is_block)
{
    const char *close = is_block ? "%}" : "}}";
    brackets b = {.n = 0};
    while (l->status == NVLLM_OK && l->pos < l->len) {
        size_t end = b.n ? 0 : tag_end(l, l->pos, close, is_block);
        if (end) {
            emit(l, is_block ? TOKEN_BLOCK_END : TOKEN_VARIABLE_END, close, 2);
            advance(l, end);
            return;
        }
        unsigned char c = (unsigned char)l->s[l->pos];
        size_t space = skip_space(l, l->pos);
        if (space > l->pos) {
            advance(l, space);
        } else if (c >= '0' && c <= '9') {
            lex_number(l);
        } else if (c == '\'' || c == '"') {
            lex_string(l);
        } else if (scan_name(l, l->pos) > l->pos) {
            lex_name(l);
        } else {
            lex_operator(l, &b);
        }
    }
}

/* --- the states between tags ------------------------------------------------------------------------------- */
static void lex_comment(lexer *l)
{
    for (size_t i = l->pos; i < l->len; i++) {
        size_t end = tag_end(l, i, "#}", true);
        if (end) {
            advance(l, end);
            return;
        }
    }
    fail(l, "a comment is not closed", "", 0);
}

/* The end of "{%[-+] word [-]%}" at pos, or 0; *sign is the opening one. */
static size_t word_tag(const lexer *l, size_t pos, const char *word, bool is_end, char *sign)
{
    if (!at(l, pos, "{%")) return 0;
    pos += 2;
    *sign = 0;
    if (pos < l->len && (l->s[pos] == '-' || l->s[pos] == '+')) *sign = l->s[pos++];
    pos = skip_space(l, pos);
    if (!at(l, pos, word)) return 0;
    pos = skip_space(l, pos + strlen(word));
    if (is_end) return tag_end(l, pos, "%}", true);
    if (at(l, pos, "-%}")) return skip_space(l, pos + 3);
    return at(l, pos, "%}") ? pos + 2 : 0;
}

static void lex_raw(lexer *l)
{
    for (size_t i = l->pos; i < l->len; i++) {
        char sign;
        size_t end = l->s[i] == '{' ? word_tag(l, i, "endraw", true, &sign) : 0;
        if (end) {
            emit_data(l, i, sign, false);
            advance(l, end);
            return;
        }
    }
    fail(l, "a raw block is not closed", "", 0);
}

static size_t find_tag(const lexer *l)
{
    for (size_t i = l->pos; i + 1 < l->len; i++) {
        if (l->s[i] == '{' && (l->s[i + 1] == '{' || l->s[i + 1] == '%' || l->s[i + 1] == '#')) return i;
    }
    return l->len;
}

static void lex_root(lexer *l)
{
    while (l->status == NVLLM_OK && l->pos < l->len) {
        size_t tag = find_tag(l);
        if (tag == l->len) {
            emit(l, TOKEN_DATA, l->s + l->pos, tag - l->pos);
            advance(l, tag);
            return;
        }
        char kind = l->s[tag + 1], sign = 0;
        size_t raw = word_tag(l, tag, "raw", false, &sign);
        size_t after = tag + 2;
        if (!raw) sign = after < l->len && (l->s[after] == '-' || l->s[after] == '+') ? l->s[after++] : 0;
        emit_data(l, tag, sign, kind == '{');
        if (!raw && kind != '#')
            emit(l, kind == '{' ? TOKEN_VARIABLE_BEGIN : TOKEN_BLOCK_BEGIN, l->s + tag, 2);
        advance(l, raw ? raw : after);
        if (raw) {
            lex_raw(l);
        } else if (kind == '#') {
            lex_comment(l);
        } else {
            lex_tag(l, kind == '%');
        }
    }
}

/* \r\n and \r become \n, and one \n at the very end goes. */
static char *normalise(arena *keep, const char *source, size_t len, size_t *out_len)
{
    char *s = arena_alloc(keep, len + 1);
    size_t n = 0;
    for (size_t i = 0; s && i < len; i++) {
        if (source[i] == '\r' && i + 1 < len && source[i + 1] == '\n') continue;
        s[n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (n && s[n - 1] == '\n') n--;
    *out_len = n;
    return s;
}

nvllm_status jinja_lex(jinja_tokens *out, const char *source, size_t len, arena *keep, arena *scratch,
                       nvllm_error *err)
{
    lexer l = {.line = 1, .line_starting = true, .keep = keep, .scratch = scratch, .err = err};
    l.s = normalise(keep, source, len, &l.len);
    if (!l.s) return error_memory(err, len, "the template");
    lex_root(&l);
    emit(&l, TOKEN_EOF, "", 0);
    *out = (jinja_tokens){l.tokens, l.n};
    return l.status;
}

const char *jinja_token_name(jinja_token_type type)
{
    switch (type) {
    case TOKEN_EOF: return "end of template";
    case TOKEN_DATA: return "template data / text";
    case TOKEN_VARIABLE_BEGIN: return "begin of print statement";
    case TOKEN_VARIABLE_END: return "end of print statement";
    case TOKEN_BLOCK_BEGIN: return "begin of statement block";
    case TOKEN_BLOCK_END: return "end of statement block";
    case TOKEN_NAME: return "name";
    case TOKEN_STRING: return "string";
    case TOKEN_INTEGER: return "integer";
    case TOKEN_FLOAT: return "float";
    default: break;
    }
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (operators[i].type == type) return operators[i].text;
    }
    return "token";
}
