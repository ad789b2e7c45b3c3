/* Values as text, as Python prints them: str(), repr(), float repr; and numbers read from text. */
#include "text/jinja/value.h"
#include "text/jinja/utf8.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- floats --------------------------------------------------------------------------------------------- */
/* The shortest digits that read back as f (f > 0, finite): digits without a point, and the decimal exponent. */
static int shortest_digits(double f, char digits[24], int *exponent)
{
    for (int precision = 0; precision < 17; precision++) {
        char text[40];
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (precision < 16 && strtod(text, NULL) != f) continue;
        int n = 0;
        const char *p = text;
        for (; *p && *p != 'e'; p++) {
            if (*p >= '0' && *p <= '9') digits[n++] = *p; /* skips the locale's point */
        }
        *exponent = atoi(p + 1);
        while (n > 1 && digits[n - 1] == '0') n--;
        return n;
    }
    return 0;
}

static size_t put_zeros(char *out, size_t at, int count)
{
    for (int i = 0; i < count; i++) out[at++] = '0';
    return at;
}

static size_t put_digits(char *out, size_t at, const char *digits, int count)
{
    memcpy(out + at, digits, (size_t)count);
    return at + (size_t)count;
}

void jinja_float_repr(double f, char out[40])
{
    if (isnan(f) || isinf(f) || f == 0) {
        strcpy(out, isnan(f) ? "nan" : f == 0 ? (signbit(f) ? "-0.0" : "0.0") : f > 0 ? "inf" : "-inf");
        return;
    }
    char digits[24] = {0};
    int exponent;
    size_t at = 0;
    if (f < 0) out[at++] = '-';
    int n = shortest_digits(fabs(f), digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        out[at++] = digits[0];
        if (n > 1) {
            out[at++] = '.';
            at = put_digits(out, at, digits + 1, n - 1);
        }
        snprintf(out + at, 40 - at, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        at = put_digits(out, at, "0.", 2);
        at = put_zeros(out, at, -exponent - 1);
        at = put_digits(out, at, digits, n);
    } else if (n <= exponent + 1) {
        at = put_digits(out, at, digits, n);
        at = put_zeros(out, at, exponent + 1 - n);
        at = put_digits(out, at, ".0", 2);
    } else {
        at = put_digits(out, at, digits, exponent + 1);
        out[at++] = '.';
        at = put_digits(out, at, digits + exponent + 1, n - exponent - 1);
    }
    out[at] = 0;
}

/* Without the white space around it and the single '_' between digits; false: not the shape of a number. */
static bool number_text(const char *s, size_t len, char *out, size_t cap)
{
    uint32_t cp;
    while (len > 0 && (jutf8_decode(s, &cp), jutf8_is_space(cp))) {
        size_t n = jutf8_decode(s, &cp);
        s += n;
        len -= n;
    }
    while (len > 0) {
        size_t n = jutf8_decode_before(s, len, &cp);
        if (!jutf8_is_space(cp)) break;
        len -= n;
    }
    if (len == 0 || len >= cap) return false;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x80) return false;
        if (c != '_') {
            out[n++] = (char)c;
            continue;
        }
        bool before = i > 0 && s[i - 1] != '_', after = i + 1 < len && s[i + 1] != '_';
        if (!before || !after || !strchr("0123456789abcdefABCDEFxXoObB", s[i - 1]) ||
            !strchr("0123456789abcdefABCDEF", s[i + 1])) {
            return false;
        }
    }
    out[n] = 0;
    return memchr(out, 0, n) == NULL;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'z') return c - 'a' + 10;
    if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
    return 99;
}

/* Skips 0x, 0o, 0b where the base allows it; base 0 takes it from there. False: base 0 with a leading 0. */
static bool number_prefix(const char **p, int *base)
{
    const char *s = *p;
    int named = s[0] != '0'                  ? 0
                : s[1] == 'x' || s[1] == 'X' ? 16
                : s[1] == 'o' || s[1] == 'O' ? 8
                : s[1] == 'b' || s[1] == 'B' ? 2
                                             : 0;
    if (named && (*base == 0 || *base == named)) {
        *base = named;
        *p += 2;
    } else if (*base == 0) {
        *base = 10;
        if (s[0] == '0' && strspn(s, "0") != strlen(s)) return false;
    }
    return true;
}

bool jinja_parse_int(const char *s, size_t len, int base, int64_t *out, bool *overflow)
{
    char text[512];
    *overflow = false;
    if (!number_text(s, len, text, sizeof text)) return false;
    const char *p = text;
    bool negative = *p == '-';
    if (*p == '-' || *p == '+') p++;
    if (!number_prefix(&p, &base) || !*p) return false;
    uint64_t value = 0, limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    for (; *p; p++) {
        int d = digit_value(*p);
        if (d >= base) return false;
        if (value > (limit - (uint64_t)d) / (uint64_t)base) *overflow = true;
        if (!*overflow) value = value * (uint64_t)base + (uint64_t)d;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

bool jinja_parse_float(const char *s, size_t len, double *out)
{
    char text[512];
    if (!number_text(s, len, text, sizeof text - 1)) return false;
    const char *p = text + (text[0] == '-' || text[0] == '+');
    bool named = strspn(p, "infatyINFATY") == strlen(p);
    if (!named && (strspn(p, "0123456789.eE+-") != strlen(p) || !strpbrk(p, "0123456789"))) return false;
    char *point = strchr(text, '.');
    if (point) *point = *localeconv()->decimal_point;
    char *end;
    *out = strtod(text, &end);
    return *end == 0;
}

/* --- repr ------------------------------------------------------------------------------------------------- */
static void write_escape(jinja_run *r, jinja_text *t, uint32_t cp)
{
    char text[16];
    if (cp == '\n' || cp == '\r' || cp == '\t') {
        text_puts(r, t, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
        return;
    }
    snprintf(text, sizeof text,
             cp < 0x100     ? "\\x%02" PRIx32
             : cp < 0x10000 ? "\\u%04" PRIx32
                            : "\\U%08" PRIx32,
             cp);
    text_puts(r, t, text);
}

static void write_string_repr(jinja_run *r, jinja_text *t, const jv_string *s)
{
    char quote = s->len && memchr(s->data, '\'', s->len) && !memchr(s->data, '"', s->len) ? '"' : '\'';
    if (s->markup) text_puts(r, t, "Markup(");
    text_append(r, t, &quote, 1);
    size_t done = 0;
    if (!jr_charge(r, s->len / 32)) return;
    for (size_t i = 0; i < s->len && !jr_failed(r);) {
        uint32_t cp;
        size_t n = jutf8_decode(s->data + i, &cp);
        bool slash = cp == '\\' || cp == (uint32_t)quote;
        bool plain = cp < 0x7F ? cp >= ' ' : jutf8_is_printable(cp);
        if (slash || !plain) {
            text_append(r, t, s->data + done, i - done);
            if (slash) text_append(r, t, "\\", 1);
            if (!slash) write_escape(r, t, cp);
            done = slash ? i : i + n;
        }
        i += n;
    }
    text_append(r, t, s->data + done, s->len - done);
    text_append(r, t, &quote, 1);
    if (s->markup) text_puts(r, t, ")");
}

static void write_items(jinja_run *r, jinja_text *t, const jv *items, size_t n)
{
    for (size_t i = 0; i < n && jr_charge(r, 1); i++) {
        if (i) text_puts(r, t, ", ");
        jv_write_repr(r, t, items[i]);
    }
}

static void write_sequence(jinja_run *r, jinja_text *t, jv v)
{
    bool list = v.kind == JV_LIST;
    text_puts(r, t, list ? "[" : "(");
    write_items(r, t, v.as.list->items, v.as.list->n);
    text_puts(r, t, list ? "]" : v.as.list->n == 1 ? ",)" : ")");
}

static void write_pairs(jinja_run *r, jinja_text *t, const jv_dict *d, const char *open, const char *between,
                        const char *close)
{
    for (size_t i = 0; i < d->n && jr_charge(r, 1); i++) {
        text_puts(r, t, i ? ", " : "");
        text_puts(r, t, open);
        jv_write_repr(r, t, d->keys[i]);
        text_puts(r, t, between);
        jv_write_repr(r, t, d->values[i]);
        text_puts(r, t, close);
    }
}

static void write_dict(jinja_run *r, jinja_text *t, const jv_dict *d)
{
    text_puts(r, t, "{");
    write_pairs(r, t, d, "", ": ", "");
    text_puts(r, t, "}");
}

static void write_view(jinja_run *r, jinja_text *t, jv v)
{
    const jv_dict *d = v.as.view->dict;
    text_puts(r, t, jv_type(v));
    text_puts(r, t, "([");
    if (v.as.view->kind == VIEW_ITEMS) write_pairs(r, t, d, "(", ", ", ")");
    if (v.as.view->kind == VIEW_KEYS) write_items(r, t, d->keys, d->n);
    if (v.as.view->kind == VIEW_VALUES) write_items(r, t, d->values, d->n);
    text_puts(r, t, "])");
}

static void write_number(jinja_run *r, jinja_text *t, jv v)
{
    char text[96];
    if (v.kind == JV_FLOAT) jinja_float_repr(v.as.f, text);
    if (v.kind == JV_INT) snprintf(text, sizeof text, "%" PRId64, v.as.i);
    if (v.kind == JV_RANGE) {
        const jv_range *g = v.as.range;
        int n = snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64, g->start, g->stop);
        if (g->step == 1) snprintf(text + n, sizeof text - (size_t)n, ")");
        if (g->step != 1) snprintf(text + n, sizeof text - (size_t)n, ", %" PRId64 ")", g->step);
    }
    text_puts(r, t, text);
}

static void write_repr(jinja_run *r, jinja_text *t, jv v)
{
    switch (v.kind) {
    case JV_UNDEFINED: text_puts(r, t, "Undefined"); break;
    case JV_MISSING:
    case JV_NONE: text_puts(r, t, "None"); break;
    case JV_BOOL: text_puts(r, t, v.as.b ? "True" : "False"); break;
    case JV_INT:
    case JV_FLOAT:
    case JV_RANGE: write_number(r, t, v); break;
    case JV_STRING: write_string_repr(r, t, v.as.s); break;
    case JV_LIST:
    case JV_TUPLE: write_sequence(r, t, v); break;
    case JV_DICT: write_dict(r, t, v.as.dict); break;
    case JV_VIEW: write_view(r, t, v); break;
    case JV_NAMESPACE:
        text_puts(r, t, "<Namespace ");
        write_dict(r, t, v.as.dict);
        text_puts(r, t, ">");
        break;
    default: /* Python would print an address here */
        text_puts(r, t, "<");
        text_puts(r, t, jv_type(v));
        text_puts(r, t, ">");
    }
}

void jv_write_repr(jinja_run *r, jinja_text *t, jv v)
{
    if (jr_enter(r)) write_repr(r, t, v);
    jr_leave(r);
}

void jv_write(jinja_run *r, jinja_text *t, jv v)
{
    if (v.kind == JV_UNDEFINED) return;
    if (v.kind == JV_STRING) {
        text_append(r, t, v.as.s->data, v.as.s->len);
    } else {
        jv_write_repr(r, t, v);
    }
}

jv jv_to_string(jinja_run *r, jv v)
{
    if (v.kind == JV_STRING) return v;
    jinja_text t = {0};
    jv_write(r, &t, v);
    return text_value(r, &t);
}

/* --- HTML --------------------------------------------------------------------------------------------------- */
jv jv_escape_html(jinja_run *r, jv v)
{
    if (v.kind == JV_STRING && v.as.s->markup) return v;
    jv text = jv_to_string(r, v);
    jinja_text t = {0};
    if (text.kind == JV_STRING) jr_charge(r, text.as.s->len / 8);
    for (size_t i = 0; text.kind == JV_STRING && i < text.as.s->len && !jr_failed(r); i++) {
        char c = text.as.s->data[i];
        switch (c) {
        case '&': text_puts(r, &t, "&amp;"); break;
        case '<': text_puts(r, &t, "&lt;"); break;
        case '>': text_puts(r, &t, "&gt;"); break;
        case '"': text_puts(r, &t, "&#34;"); break;
        case '\'': text_puts(r, &t, "&#39;"); break;
        default: text_append(r, &t, &c, 1);
        }
    }
    jv out = text_value(r, &t);
    if (out.kind == JV_STRING) {
        jv_string *s = jr_alloc(r, 1, sizeof *s);
        if (!s) return jv_none();
        *s = *out.as.s;
        s->markup = true;
        out.as.s = s;
    }
    return out;
}
