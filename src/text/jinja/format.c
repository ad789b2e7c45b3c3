/* printf-style formatting ("%s" % x, |format) and str.format, with one layout of fields below both. */
#include "text/jinja/ops.h"
#include "text/jinja/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH 100000

/* One field: what stands between `%` and its letter, or behind `:` in braces. */
typedef struct {
    char fill[4];
    size_t fill_len;
    char align; /* '<' '>' '^' '=', 0: the type's own */
    char sign;  /* '+', ' ', '-' or 0 */
    bool alternate, zero;
    char group;           /* ',' '_' or 0: between thousands */
    int width, precision; /* -1: not given */
    char type;            /* 0: not given */
} field;

static void fail_code(jinja_run *r, char type, jv v)
{
    jr_error(r, "unknown format code '%c' for object of type '%s'", type, jv_type(v));
}

/* --- layout ------------------------------------------------------------------------------------------------------- */
/* Pads prefix (sign, 0x) and body to the field's width. */
static void put_field(jinja_run *r, jinja_text *t, const field *f, const char *prefix, const char *body,
                      size_t len, char usual_align)
{
    size_t chars = jutf8_count(body, len) + strlen(prefix);
    size_t pad = f->width > 0 && (size_t)f->width > chars ? (size_t)f->width - chars : 0;
    char align = f->align ? f->align : usual_align;
    size_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0, inner = align == '=' ? pad : 0;
    for (size_t i = 0; i < left; i++) text_append(r, t, f->fill, f->fill_len);
    text_puts(r, t, prefix);
    for (size_t i = 0; i < inner; i++) text_append(r, t, f->fill, f->fill_len);
    text_append(r, t, body, len);
    for (size_t i = left + inner; i < pad; i++) text_append(r, t, f->fill, f->fill_len);
}

static void put_text(jinja_run *r, jinja_text *t, const field *f, jv s)
{
    if (jr_failed(r)) return;
    size_t len = s.as.s->len;
    if (f->precision >= 0 && (size_t)f->precision < s.as.s->chars) {
        len = jutf8_offset(s.as.s->data, len, (size_t)f->precision);
    }
    put_field(r, t, f, "", s.as.s->data, len, '<');
}

/* Puts a separator between groups of digits of the integer part; text has room. */
static void group_digits(char *text, size_t cap, char separator, size_t every)
{
    size_t digits = strspn(text, "0123456789abcdefABCDEF");
    for (size_t i = digits; i > every && strlen(text) + 2 < cap;) {
        i -= every;
        memmove(text + i + 1, text + i, strlen(text + i) + 1);
        text[i] = separator;
    }
}

static void put_number(jinja_run *r, jinja_text *t, const field *f, bool negative, const char *base,
                       const char *digits)
{
    char prefix[8];
    const char sign[2] = {negative ? '-' : f->sign == '-' ? 0 : f->sign, 0};
    snprintf(prefix, sizeof prefix, "%s%s", sign, base);
    put_field(r, t, f, prefix, digits, strlen(digits), f->zero ? '=' : '>');
}

static void put_int(jinja_run *r, jinja_text *t, const field *f, int64_t value, char type)
{
    char digits[160];
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    const char *base = "";
    switch (type) {
    case 'x': snprintf(digits, sizeof digits, "%" PRIx64, size); break;
    case 'X': snprintf(digits, sizeof digits, "%" PRIX64, size); break;
    case 'o': snprintf(digits, sizeof digits, "%" PRIo64, size); break;
    case 'b': {
        int n = 0;
        for (int bit = 63; bit >= 0; bit--) {
            if (n || bit == 0 || size >> bit & 1) digits[n++] = (char)('0' + (size >> bit & 1));
        }
        digits[n] = 0;
        break;
    }
    default: snprintf(digits, sizeof digits, "%" PRIu64, size);
    }
    if (f->alternate)
        base = type == 'x' ? "0x" : type == 'X' ? "0X" : type == 'o' ? "0o" : type == 'b' ? "0b" : "";
    if (f->group == ',' && type != 'd') jr_error(r, "cannot specify ',' with '%c'", type);
    if (f->group) group_digits(digits, sizeof digits, f->group, type == 'd' ? 3 : 4);
    if (f->precision > 100) jr_fail(r, NVLLM_ERR_LIMIT, "a precision of %d digits", f->precision);
    while (f->precision <= 100 && (int)strlen(digits) < f->precision) {
        memmove(digits + 1, digits, strlen(digits) + 1);
        digits[0] = '0';
    }
    put_number(r, t, f, value < 0, base, digits);
}

/* A precision without a type: like %g, but with a digit behind the point, and exponents from one digit less on. */
static void float_digits(char *digits, size_t cap, double size, int precision)
{
    int p = precision > 0 ? precision : 1;
    snprintf(digits, cap, "%.*e", p - 1, size);
    char *e = strchr(digits, 'e'), *end = e;
    int exponent = e ? atoi(e + 1) : 0;
    if (e && (exponent < -4 || exponent >= p - 1)) {
        while (strchr(digits, '.') && end > digits && end[-1] == '0') end--;
        if (end > digits && end[-1] == '.') end--;
        memmove(end, e, strlen(e) + 1);
        return;
    }
    snprintf(digits, cap, "%.*g", p, size);
    if (!strchr(digits, '.')) strncat(digits, ".0", cap - strlen(digits) - 1);
}

static void put_float(jinja_run *r, jinja_text *t, const field *f, double value, char type)
{
    char digits[1024], format[16];
    bool percent = type == '%', negative = signbit(value) && !isnan(value);
    int precision = f->precision < 0 ? 6 : f->precision;
    double size = fabs(value) * (percent ? 100 : 1);
    if (precision > 300) {
        jr_fail(r, NVLLM_ERR_LIMIT, "a precision of %d digits", precision);
        return;
    }
    if (isnan(size) || isinf(size)) {
        snprintf(digits, sizeof digits, "%s", isnan(size) ? "nan" : "inf");
    } else if (type == 'r' && f->precision >= 0) {
        float_digits(digits, sizeof digits, size, precision);
    } else if (type == 'r') {
        jinja_float_repr(size, digits);
    } else {
        snprintf(format, sizeof format, "%%%s.*%c", f->alternate ? "#" : "", percent ? 'f' : type);
        snprintf(digits, sizeof digits - 8, format, precision, size);
    }
    if (percent) strcat(digits, "%");
    if (f->group) group_digits(digits, sizeof digits, f->group, 3);
    put_number(r, t, f, negative, "", digits);
}

/* --- "%..." % values ------------------------------------------------------------------------------------------------ */
typedef struct {
    jinja_run *r;
    const char *p, *end;
    jv values;
    size_t used;
    bool mapping;
} percent_state;

static jv next_value(percent_state *s)
{
    bool tuple = s->values.kind == JV_TUPLE;
    size_t n = tuple ? s->values.as.list->n : 1;
    if (s->used >= n) return jr_error(s->r, "not enough arguments for format string");
    s->used++;
    return tuple ? s->values.as.list->items[s->used - 1] : s->values;
}

static int read_number(percent_state *s, const char *what)
{
    int n = 0;
    if (s->p < s->end && *s->p == '*') {
        int64_t value = 0;
        s->p++;
        if (!jv_is_integer(next_value(s), &value)) jr_error(s->r, "* wants int");
        n = value < -MAX_WIDTH || value > MAX_WIDTH ? MAX_WIDTH + 1 : (int)value;
    }
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9' && n <= MAX_WIDTH; s->p++)
        n = n * 10 + (*s->p - '0');
    if (n > MAX_WIDTH) jr_fail(s->r, NVLLM_ERR_LIMIT, "a format with a %s of more than %d", what, MAX_WIDTH);
    return n;
}

/* `(key)` in front of a field: looks the value up; JV_MISSING: there is no key. */
static jv read_key(percent_state *s)
{
    if (s->p >= s->end || *s->p != '(') return jv_missing();
    const char *start = ++s->p;
    for (size_t open = 1; s->p < s->end; s->p++) {
        open += *s->p == '(';
        open -= *s->p == ')';
        if (!open) break;
    }
    if (s->p >= s->end) return jr_error(s->r, "incomplete format key");
    size_t n = (size_t)(s->p++ - start);
    if (s->values.kind != JV_DICT) return jr_error(s->r, "format requires a mapping");
    const jv *found = jv_dict_find(s->r, s->values.as.dict, start, n);
    s->mapping = true;
    return found ? *found : jr_error(s->r, "KeyError: '%.*s'", (int)(n < 100 ? n : 100), start);
}

static field read_percent_field(percent_state *s)
{
    field f = {.fill = " ", .fill_len = 1, .width = -1, .precision = -1};
    for (; s->p < s->end && *s->p && strchr("-+ #0", *s->p); s->p++) {
        if (*s->p == '-') f.align = '<';
        if (*s->p == '+' || (*s->p == ' ' && !f.sign)) f.sign = *s->p;
        if (*s->p == '#') f.alternate = true;
        if (*s->p == '0') f.zero = true;
    }
    f.width = read_number(s, "width");
    if (f.width < 0) {
        f.align = '<';
        f.width = -f.width;
    }
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        f.precision = read_number(s, "precision");
        if (f.precision < 0) f.precision = 0;
    }
    while (s->p < s->end && *s->p && strchr("hlL", *s->p)) s->p++;
    if (s->p >= s->end) {
        jr_error(s->r, "incomplete format");
    } else {
        f.type = *s->p++;
    }
    return f;
}

static void percent_number(percent_state *s, jinja_text *t, field *f, jv v)
{
    if (f->zero && f->align != '<') f->fill[0] = '0';
    if (f->align == '<') f->zero = false;
    if (v.kind == JV_UNDEFINED) {
        jv_fail_undefined(s->r, v);
    } else if (!jv_is_number(v)) {
        jr_error(s->r, "%%%c format: a real number is required, not %s", f->type, jv_type(v));
    } else if (strchr("eEfFgG", f->type)) {
        put_float(s->r, t, f, jv_number(v), f->type);
    } else {
        char type = f->type == 'i' || f->type == 'u' ? 'd' : f->type;
        double d = v.kind == JV_FLOAT ? trunc(v.as.f) : 0;
        int64_t i = 0;
        if (v.kind == JV_FLOAT && type != 'd') {
            jr_error(s->r, "%%%c format: an integer is required, not float", f->type);
        } else if (!(fabs(d) < 9.2e18)) {
            jr_error(s->r, "integer overflow: %g does not fit 64 bits", d);
        }
        if (!jv_is_integer(v, &i) && !jr_failed(s->r)) i = (int64_t)d;
        put_int(s->r, t, f, i, type);
    }
}

static void percent_char(percent_state *s, jinja_text *t, const field *f, jv v)
{
    int64_t cp;
    char bytes[4];
    if (v.kind == JV_STRING && v.as.s->chars == 1) {
        put_field(s->r, t, f, "", v.as.s->data, v.as.s->len, '>');
    } else if (jv_is_integer(v, &cp) && cp >= 0 && cp < 0x110000 && (cp < 0xD800 || cp > 0xDFFF)) {
        put_field(s->r, t, f, "", bytes, utf8_encode((uint32_t)cp, bytes), '>');
    } else {
        jr_error(s->r, "%%c requires int or char");
    }
}

static void percent_field(percent_state *s, jinja_text *t)
{
    jv v = read_key(s);
    if (jr_failed(s->r)) return;
    field f = read_percent_field(s);
    if (jr_failed(s->r)) return;
    if (f.type == '%') {
        text_puts(s->r, t, "%");
        return;
    }
    if (v.kind == JV_MISSING) v = next_value(s);
    if (jr_failed(s->r)) return;
    if (f.type && strchr("diuxXoeEfFgG", f.type)) {
        percent_number(s, t, &f, v);
    } else if (f.type == 'c') {
        percent_char(s, t, &f, v);
    } else if (f.type == 's' || f.type == 'r' || f.type == 'a') {
        jinja_text text = {0};
        if (f.type == 's') jv_write(s->r, &text, v);
        if (f.type != 's') jv_write_repr(s->r, &text, v);
        if (!f.align) f.align = '>';
        put_text(s->r, t, &f, text_value(s->r, &text));
    } else {
        jr_error(s->r, "unsupported format character '%c'", f.type >= ' ' && f.type < 0x7F ? f.type : '?');
    }
}

/* What has a __getitem__ and so may be left unused by the format. */
static bool is_mapping_like(jv v)
{
    return v.kind == JV_DICT || v.kind == JV_LIST || v.kind == JV_RANGE || v.kind == JV_UNDEFINED;
}

jv jinja_format_percent(jinja_run *r, const jv_string *format, jv values)
{
    percent_state s = {.r = r, .p = format->data, .end = format->data + format->len, .values = values};
    jinja_text t = {0};
    while (s.p < s.end && jr_charge(r, 1)) {
        const char *percent = memchr(s.p, '%', (size_t)(s.end - s.p));
        text_append(r, &t, s.p, (size_t)((percent ? percent : s.end) - s.p));
        s.p = percent ? percent + 1 : s.end;
        if (percent) percent_field(&s, &t);
    }
    size_t given = values.kind == JV_TUPLE ? values.as.list->n : is_mapping_like(values) ? 0 : 1;
    if (!jr_failed(r) && s.used < given && !s.mapping) {
        jr_error(r, "not all arguments converted during string formatting");
    }
    return text_value(r, &t);
}

/* --- "{...}".format(...) ---------------------------------------------------------------------------------------------- */
typedef struct {
    jinja_run *r;
    const jv_args *args;
    int64_t automatic; /* next number of "{}"; -1: fields are numbered by hand */
} brace_state;

/* `whole`: the field is nothing but the argument; only such fields count for the numbering. */
static jv brace_argument(brace_state *s, const char *name, size_t len, bool whole)
{
    int64_t index = 0;
    bool overflow = false, number = len > 0;
    for (size_t i = 0; i < len; i++) number = number && name[i] >= '0' && name[i] <= '9';
    if ((len == 0 && whole) || (number && jinja_parse_int(name, len, 10, &index, &overflow))) {
        if (whole && (len == 0 ? s->automatic < 0 : s->automatic > 0)) {
            return jr_error(s->r, "cannot switch between automatic and manual field numbering");
        }
        index = len == 0 ? s->automatic++ : index;
        if (len && whole) s->automatic = -1;
        if (overflow || (uint64_t)index >= s->args->n) {
            return jr_error(s->r, "replacement index out of range for positional args tuple");
        }
        return s->args->pos[index];
    }
    for (size_t i = 0; i < s->args->n_kw; i++) {
        const jv_string *kw = s->args->kw[i].name;
        if (kw->len == len && memcmp(kw->data, name, len) == 0) return s->args->kw[i].value;
    }
    return jr_error(s->r, "KeyError: '%.*s'", (int)(len < 100 ? len : 100), name);
}

/* name.attribute[key]... */
static jv brace_lookup(brace_state *s, const char *p, const char *end)
{
    size_t n = 0;
    while (p + n < end && p[n] != '.' && p[n] != '[') n++;
    jv v = brace_argument(s, p, n, p + n == end);
    p += n;
    while (p < end && !jr_failed(s->r)) {
        bool item = *p++ == '[';
        for (n = 0; p + n < end && (item ? p[n] != ']' : p[n] != '.' && p[n] != '['); n++) continue;
        if (n == 0 || (item && p + n == end)) return jr_error(s->r, "malformed field in format string");
        int64_t index;
        bool overflow;
        bool number =
            item && strspn(p, "0123456789") >= n && jinja_parse_int(p, n, 10, &index, &overflow) && !overflow;
        jv key = number ? jv_int(index) : jv_borrow(s->r, p, n);
        v = item ? jv_get_item(s->r, v, key) : jv_get_attribute(s->r, v, key);
        p += n + item;
    }
    return v;
}

static int spec_number(jinja_run *r, const char **p, const char *end)
{
    int n = -1;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        n = (n < 0 ? 0 : n) * 10 + (**p - '0');
        if (n > MAX_WIDTH) {
            jr_fail(r, NVLLM_ERR_LIMIT, "a format with a width of more than %d", MAX_WIDTH);
            return 0;
        }
    }
    return n;
}

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '^' || c == '=';
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static field read_spec(jinja_run *r, const char *p, const char *end)
{
    field f = {.fill = " ", .fill_len = 1};
    uint32_t cp;
    size_t n = p < end ? jutf8_decode(p, &cp) : 0;
    if (n && p + n < end && is_align(p[n])) {
        memcpy(f.fill, p, n);
        f.fill_len = n;
        f.align = p[n];
        p += n + 1;
    } else if (p < end && is_align(*p)) {
        f.align = *p++;
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) {
        f.sign = *p;
        p++;
    }
    if (p < end && *p == '#') f.alternate = (p++, true);
    if (p < end && *p == '0') {
        p++;
        if (!f.align) {
            f.zero = true;
            f.fill[0] = '0';
        }
    }
    f.width = spec_number(r, &p, end);
    if (p < end && (*p == ',' || *p == '_')) f.group = *p++;
    f.precision = -1;
    if (p < end && *p == '.') {
        p++;
        f.precision = spec_number(r, &p, end);
        if (f.precision < 0) jr_error(r, "Format specifier missing precision");
    }
    if (p < end) f.type = *p++;
    if (p < end) jr_error(r, "Invalid format specifier");
    return f;
}

static void brace_value(jinja_run *r, jinja_text *t, jv v, const char *spec, const char *end)
{
    int64_t i;
    if (spec == end) {
        jv_write(r, t, v);
        return;
    }
    field f = read_spec(r, spec, end);
    bool as_float = f.type && strchr("eEfFgG%", f.type);
    if (jr_failed(r)) return;
    if (v.kind == JV_STRING) {
        if (f.type && f.type != 's') fail_code(r, f.type, v);
        if (f.group) jr_error(r, "cannot specify '%c' with 's'", f.group);
        if (f.sign) jr_error(r, "sign not allowed in string format specifier");
        if (f.align == '=' || f.zero) f.align = f.zero ? '<' : f.align;
        put_text(r, t, &f, v);
    } else if (jv_is_integer(v, &i) && !as_float) {
        if (f.type && !strchr("dxXobn", f.type)) fail_code(r, f.type, v);
        if (f.precision >= 0) jr_error(r, "precision not allowed in integer format specifier");
        put_int(r, t, &f, i, f.type && f.type != 'n' ? f.type : 'd');
    } else if (jv_is_number(v) && (as_float || !f.type)) {
        char type = f.type ? f.type : 'r';
        put_float(r, t, &f, jv_number(v), type);
    } else {
        jr_error(r, "unsupported format string passed to %s.__format__", jv_type(v));
    }
}

/* A replacement field, between its braces. */
static void brace_field(brace_state *s, jinja_text *t, const char *p, const char *end)
{
    const char *name_end = p;
    bool bracket = false;
    for (; name_end < end && (bracket || (*name_end != '!' && *name_end != ':')); name_end++) {
        bracket = *name_end == '[' || (bracket && *name_end != ']');
    }
    jv v = brace_lookup(s, p, name_end);
    p = name_end;
    if (p < end && *p == '!') {
        char conversion = p + 1 < end ? p[1] : 0;
        if ((conversion != 's' && conversion != 'r' && conversion != 'a') || (p + 2 < end && p[2] != ':')) {
            jr_error(s->r, "unknown conversion in format string");
            return;
        }
        jinja_text text = {0};
        if (conversion == 's') jv_write(s->r, &text, v);
        if (conversion != 's') jv_write_repr(s->r, &text, v);
        v = text_value(s->r, &text);
        p += 2;
    }
    if (p < end) p++;
    if (memchr(p, '{', (size_t)(end - p))) {
        jr_error(s->r, "nested fields in a format string are not supported");
        return;
    }
    if (!jr_failed(s->r)) brace_value(s->r, t, v, p, end);
}

jv jinja_format_braces(jinja_run *r, const jv_string *format, const jv_args *args)
{
    brace_state s = {.r = r, .args = args};
    jinja_text t = {0};
    const char *p = format->data, *end = p + format->len;
    while (p < end && jr_charge(r, 1)) {
        if (p + 1 < end && (*p == '{' || *p == '}') && p[1] == *p) {
            text_append(r, &t, p, 1);
            p += 2;
        } else if (*p == '}') {
            return jr_error(r, "Single '}' encountered in format string");
        } else if (*p == '{') {
            const char *start = ++p;
            for (size_t open = 1; p < end; p++) {
                open += *p == '{';
                open -= *p == '}';
                if (!open) break;
            }
            if (p >= end) return jr_error(r, "Single '{' encountered in format string");
            brace_field(&s, &t, start, p++);
        } else {
            const char *start = p;
            while (p < end && *p != '{' && *p != '}') p++;
            text_append(r, &t, start, (size_t)(p - start));
        }
    }
    return text_value(r, &t);
}
