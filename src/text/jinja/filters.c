/* The filters, in one table; those over sequences are in seq.c.
 * Not here, and so refused by name: filesizeformat, pprint, random, striptags, urlize, wordwrap, xmlattr. */
#include "text/jinja/iter.h"
#include "text/jinja/ops.h"
#include "text/jinja/seq.h"
#include "text/jinja/strings.h"
#include "text/jinja/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- text ---------------------------------------------------------------------------------------------------------- */
static jv remarked(jinja_run *r, jv from, jv to)
{
    if (from.kind != JV_STRING || !from.as.s->markup || to.kind != JV_STRING || jr_failed(r)) return to;
    jv_string *s = jr_alloc(r, 1, sizeof *s);
    if (!s) return jv_none();
    *s = *to.as.s;
    s->markup = true;
    return jv_of_string(s);
}

static jv filter_upper(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    return jr_failed(r) ? s : remarked(r, self, jv_upper(r, s.as.s));
}

static jv filter_lower(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    return jr_failed(r) ? s : remarked(r, self, jv_lower(r, s.as.s));
}

static jv filter_capitalize(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    return jr_failed(r) ? s : remarked(r, self, jv_capitalize(r, s.as.s));
}

/* Words begin behind white space and -({[<; unlike str.title, "it's" stays one word. */
static jv filter_title(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv v = jv_to_string(r, self);
    if (jr_failed(r)) return v;
    const jv_string *s = v.as.s;
    jinja_text t = {0};
    for (size_t i = 0; i < s->len && jr_charge(r, 1);) {
        uint32_t cp;
        size_t start = i, first = jutf8_decode(s->data + i, &cp);
        bool gap = jutf8_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
        while (i < s->len) {
            size_t n = jutf8_decode(s->data + i, &cp);
            if ((jutf8_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp))) != gap) break;
            i += n;
        }
        jv head = jv_sub(r, s, start, start + first), tail = jv_sub(r, s, start + first, i);
        if (jr_failed(r)) break;
        jv_write(r, &t, jv_upper(r, head.as.s));
        jv_write(r, &t, jv_lower(r, tail.as.s));
    }
    return remarked(r, self, text_value(r, &t));
}

static jv filter_string(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_to_string(r, self);
}

static jv filter_trim(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jv s = jv_to_string(r, self);
    return jr_failed(r) ? s : remarked(r, self, jinja_strip(r, s.as.s, a[0], STRIP_BOTH));
}

static jv filter_replace(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t count;
    jv s = jv_to_string(r, self), old = jv_to_string(r, a[0]), with = jv_to_string(r, a[1]);
    if (jr_failed(r) || !arg_int(r, a[2], -1, &count)) return jv_none();
    return jinja_replace(r, s.as.s, old.as.s, with.as.s, count);
}

static jv filter_center(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t width;
    jv s = jv_to_string(r, self);
    if (jr_failed(r) || !arg_int(r, a[0], 80, &width)) return jv_none();
    return jinja_center(r, s.as.s, width, " ", 1);
}

static jv filter_indent(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t width = 4;
    jv indent = a[0];
    if (indent.kind != JV_STRING) {
        if (!arg_int(r, a[0], 4, &width)) return jv_none();
        jv space = jv_literal(r, " ");
        indent = jv_binary(r, BINARY_MUL, space, jv_int(width));
    }
    if (self.kind == JV_UNDEFINED) return jv_fail_undefined(r, self);
    if (self.kind != JV_STRING) return jr_error(r, "can only indent str, not %s", jv_type(self));
    bool first = arg_truth(a[1], false), blank = arg_truth(a[2], false);
    jv whole = jv_binary(r, BINARY_ADD, self, jv_literal(r, "\n"));
    if (jr_failed(r)) return jv_none();
    jv lines = jinja_splitlines(r, whole.as.s, false);
    jinja_text t = {0};
    for (size_t i = 0; !jr_failed(r) && i < lines.as.list->n; i++) {
        jv line = lines.as.list->items[i];
        if (i) text_puts(r, &t, "\n");
        if (i == 0 ? first : blank || line.as.s->len) jv_write(r, &t, indent);
        jv_write(r, &t, line);
    }
    return remarked(r, self, text_value(r, &t));
}

static jv filter_truncate(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t length, leeway;
    jv end = a[2].kind == JV_MISSING ? jv_literal(r, "...") : a[2];
    if (jr_failed(r) || !arg_int(r, a[0], 255, &length) || !arg_int(r, a[3], 5, &leeway)) return jv_none();
    size_t n;
    if (end.kind != JV_STRING || !jv_length(self, &n)) return jr_error(r, "truncate wants str");
    int64_t kept = length - (int64_t)end.as.s->chars;
    if (kept < 0 || leeway < 0) return jr_error(r, "expected length >= %zu and leeway >= 0", end.as.s->chars);
    if ((int64_t)n <= length || (int64_t)n - length <= leeway) return self;
    if (self.kind != JV_STRING) return jr_error(r, "truncate wants str, not %s", jv_type(self));
    size_t stop = jutf8_offset(self.as.s->data, self.as.s->len, (size_t)kept);
    if (!arg_truth(a[1], false)) {
        jv_string space = {.data = " ", .len = 1, .chars = 1};
        size_t at = jinja_rfind(r, self.as.s, stop, &space);
        if (at != SIZE_MAX) stop = at;
    }
    return jv_binary(r, BINARY_ADD, jv_sub(r, self.as.s, 0, stop), end);
}

static jv filter_wordcount(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    int64_t words = 0;
    bool inside = false;
    if (!jr_failed(r)) jr_charge(r, s.as.s->len / 8);
    for (size_t i = 0; !jr_failed(r) && i < s.as.s->len;) {
        uint32_t cp;
        i += jutf8_decode(s.as.s->data + i, &cp);
        bool word = jutf8_is_word(cp);
        words += word && !inside;
        inside = word;
    }
    return jv_int(words);
}

static void quote_url(jinja_run *r, jinja_text *t, jv v, bool keep_slash)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~";
    jv s = jv_to_string(r, v);
    for (size_t i = 0; !jr_failed(r) && i < s.as.s->len; i++) {
        char c = s.as.s->data[i], text[8];
        if (i % 4 == 0) jr_charge(r, 1);
        if (c && (strchr(plain, c) || (c == '/' && keep_slash))) {
            text_append(r, t, &c, 1);
        } else if (c == ' ' && !keep_slash) {
            text_append(r, t, "+", 1);
        } else {
            snprintf(text, sizeof text, "%%%02X", (unsigned char)c);
            text_puts(r, t, text);
        }
    }
}

static jv filter_urlencode(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jinja_text t = {0};
    if (self.kind == JV_STRING || !jv_iterable(self)) {
        quote_url(r, &t, self, true);
        return text_value(r, &t);
    }
    static const jv_view none;
    jv_view *view = jr_alloc(r, 1, sizeof none);
    if (!view) return jv_none();
    *view = (jv_view){self.kind == JV_DICT ? self.as.dict : NULL, VIEW_ITEMS};
    jinja_iter *it = jinja_iter_open(r, view->dict ? (jv){.kind = JV_VIEW, .as.view = view} : self);
    jv pair;
    for (bool first = true; it && jinja_iter_next(r, it, &pair); first = false) {
        jv two = jv_to_list(r, pair);
        if (jr_failed(r)) break;
        if (two.as.list->n != 2) return jr_error(r, "urlencode expects pairs");
        if (!first) text_puts(r, &t, "&");
        quote_url(r, &t, two.as.list->items[0], false);
        text_puts(r, &t, "=");
        quote_url(r, &t, two.as.list->items[1], false);
    }
    return text_value(r, &t);
}

static jv filter_escape(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_escape_html(r, self);
}

static jv filter_forceescape(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    return jr_failed(r) ? s : jv_escape_html(r, jv_sub(r, s.as.s, 0, s.as.s->len));
}

static jv filter_safe(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    jv_string *marked = jr_alloc(r, 1, sizeof *marked);
    if (!marked) return jv_none();
    *marked = *s.as.s;
    marked->markup = true;
    return jv_of_string(marked);
}

static jv filter_format(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    jv s = jv_to_string(r, self);
    if (jr_failed(r)) return s;
    if (raw->n && raw->n_kw) {
        return jr_error(r, "can't handle positional and keyword arguments at the same time");
    }
    jv values = raw->n_kw ? jv_dict_new(r) : jv_tuple_new(r, raw->n);
    for (size_t i = 0; i < raw->n && !jr_failed(r); i++) jv_push(r, values, raw->pos[i]);
    for (size_t i = 0; i < raw->n_kw && !jr_failed(r); i++) {
        jv_dict_set(r, values.as.dict, jv_of_string(raw->kw[i].name), raw->kw[i].value);
    }
    return jr_failed(r) ? jv_none() : jinja_format_percent(r, s.as.s, values);
}

/* --- numbers ------------------------------------------------------------------------------------------------------- */
static jv float_to_int(jinja_run *r, double f, jv usual)
{
    if (isnan(f) || isinf(f)) return usual;
    f = trunc(f);
    if (f < -9223372036854775808.0 || f >= 9223372036854775808.0) {
        return jr_error(r, "integer overflow: %g does not fit 64 bits", f);
    }
    return jv_int((int64_t)f);
}

static jv filter_int(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t base, i;
    bool overflow;
    double f;
    jv usual = a[0].kind == JV_MISSING ? jv_int(0) : a[0];
    if (!arg_int(r, a[1], 10, &base)) return jv_none();
    if (self.kind == JV_UNDEFINED) return jv_fail_undefined(r, self);
    if (jv_is_integer(self, &i)) return jv_int(i);
    if (self.kind == JV_FLOAT)
        return isinf(self.as.f) ? jr_error(r, "cannot convert float infinity to integer")
                                : float_to_int(r, self.as.f, usual);
    if (self.kind != JV_STRING) return usual;
    if (base != 0 && (base < 2 || base > 36)) return usual;
    if (jinja_parse_int(self.as.s->data, self.as.s->len, (int)base, &i, &overflow)) {
        return overflow ? jr_error(r, "integer overflow: the number does not fit 64 bits") : jv_int(i);
    }
    return jinja_parse_float(self.as.s->data, self.as.s->len, &f) ? float_to_int(r, f, usual) : usual;
}

static jv filter_float(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    double f;
    if (self.kind == JV_UNDEFINED) return jv_fail_undefined(r, self);
    if (jv_is_number(self)) return jv_float(jv_number(self));
    if (self.kind == JV_STRING && jinja_parse_float(self.as.s->data, self.as.s->len, &f)) return jv_float(f);
    return a[0].kind == JV_MISSING ? jv_float(0) : a[0];
}

static jv filter_abs(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    int64_t i;
    if (self.kind == JV_FLOAT) return jv_float(fabs(self.as.f));
    if (jv_is_integer(self, &i)) return i < 0 ? jv_negate(r, jv_int(i)) : jv_int(i);
    if (self.kind == JV_UNDEFINED) return jv_fail_undefined(r, self);
    return jr_error(r, "bad operand type for abs(): '%s'", jv_type(self));
}

/* round(f, precision) by way of decimal text, which rounds the exact binary value as Python does. */
static double round_decimal(double f, int64_t precision)
{
    char text[400];
    if (precision > 300 || isnan(f) || isinf(f)) return f;
    if (precision >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)precision, f);
        return fabs(f) < 1e22 ? strtod(text, NULL) : f;
    }
    double unit = pow(10.0, (double)-precision);
    return isinf(unit) ? copysign(0.0, f) : nearbyint(f / unit) * unit;
}

static jv round_int(jinja_run *r, int64_t i, int64_t precision)
{
    if (precision >= 0) return jv_int(i);
    int64_t unit = 1;
    for (int64_t k = precision; k < 0; k++) {
        if (__builtin_mul_overflow(unit, 10, &unit)) return jv_int(0);
    }
    int64_t rest = i % unit, whole = i - rest, half = unit / 2, size = rest < 0 ? -rest : rest;
    bool up = size > half || (size == half && (whole / unit) % 2 != 0);
    if (up && __builtin_add_overflow(whole, rest < 0 ? -unit : unit, &whole))
        return jr_error(r, "integer overflow");
    return jv_int(whole);
}

static jv filter_round(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t precision, i;
    bool common = a[1].kind == JV_MISSING || jv_string_equals(a[1], "common");
    bool up = !common && jv_string_equals(a[1], "ceil");
    if (!common && !up && !jv_string_equals(a[1], "floor"))
        return jr_error(r, "method must be common, ceil or floor");
    if (!arg_int(r, a[0], 0, &precision)) return jv_none();
    if (self.kind == JV_UNDEFINED) return jv_fail_undefined(r, self);
    if (!jv_is_number(self)) return jr_error(r, "type %s doesn't define __round__ method", jv_type(self));
    if (common && jv_is_integer(self, &i)) return round_int(r, i, precision);
    if (common) return jv_float(round_decimal(self.as.f, precision));
    double scale = pow(10.0, (double)precision), scaled = jv_number(self) * scale;
    return jv_float((up ? ceil(scaled) : floor(scaled)) / scale);
}

/* --- others -------------------------------------------------------------------------------------------------------- */
static jv filter_length(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    size_t n;
    if (self.kind == JV_LOOP) return jinja_loop_attribute(r, self.as.loop, jv_literal(r, "length"));
    if (!jv_length(self, &n)) return jr_error(r, "object of type '%s' has no len()", jv_type(self));
    return jv_int((int64_t)n);
}

static jv filter_default(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    bool replace = self.kind == JV_UNDEFINED || (arg_truth(a[1], false) && !jv_truth(self));
    if (!replace) return self;
    return a[0].kind == JV_MISSING ? jv_literal(r, "") : a[0];
}

static jv filter_list(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_to_list(r, self);
}

static jv filter_attr(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    if (a[0].kind != JV_STRING) return jr_error(r, "attribute name must be string, not '%s'", jv_type(a[0]));
    if (self.kind == JV_DICT) {
        bool unsafe = false;
        if (!jinja_method_find(self, a[0], &unsafe) && !unsafe) return jv_undefined_attr(r, self, a[0]);
    }
    return jv_get_attribute(r, self, a[0]);
}

/* json.dumps' separators: a pair of strings. */
static bool json_separators(jinja_run *r, jv v, jinja_json_style *style)
{
    if (v.kind == JV_MISSING || v.kind == JV_NONE) return true;
    jv two = jv_to_list(r, v);
    if (jr_failed(r)) return false;
    const jv *s = two.as.list->items;
    if (two.as.list->n != 2 || s[0].kind != JV_STRING || s[1].kind != JV_STRING) {
        jr_error(r, "tojson: separators must be a pair of strings");
        return false;
    }
    style->item_separator = s[0].as.s;
    style->key_separator = s[1].as.s;
    return true;
}

static jv filter_tojson(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jinja_json_style style = {.ensure_ascii = arg_truth(a[0], false), .sort_keys = arg_truth(a[3], false)};
    int64_t indent;
    style.has_indent = a[1].kind != JV_MISSING && a[1].kind != JV_NONE;
    style.indent = a[1];
    if (style.has_indent && a[1].kind != JV_STRING) {
        if (!arg_int(r, a[1], 0, &indent)) return jv_none();
        style.indent = jv_int(indent);
    }
    if (!json_separators(r, a[2], &style)) return jv_none();
    return jinja_json_dump(r, self, &style);
}

static jv filter_from_json(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jinja_json_load(r, self);
}

static const jinja_builtin rows[] = {
    {"abs", "", 0, filter_abs},
    {"attr", "name", 1, filter_attr},
    {"batch", "linecount fill_with", 1, filter_batch},
    {"capitalize", "", 0, filter_capitalize},
    {"center", "width", 0, filter_center},
    {"count", "", 0, filter_length},
    {"d", "default_value boolean", 0, filter_default},
    {"default", "default_value boolean", 0, filter_default},
    {"dictsort", "case_sensitive by reverse", 0, filter_dictsort},
    {"e", "", 0, filter_escape},
    {"escape", "", 0, filter_escape},
    {"first", "", 0, filter_first},
    {"float", "default", 0, filter_float},
    {"forceescape", "", 0, filter_forceescape},
    {"format", NULL, 0, filter_format},
    {"from_json", "", 0, filter_from_json},
    {"groupby", "attribute default case_sensitive", 1, filter_groupby},
    {"indent", "width first blank", 0, filter_indent},
    {"int", "default base", 0, filter_int},
    {"items", "", 0, filter_items},
    {"join", "d attribute", 0, filter_join},
    {"last", "", 0, filter_last},
    {"length", "", 0, filter_length},
    {"list", "", 0, filter_list},
    {"lower", "", 0, filter_lower},
    {"map", NULL, 0, filter_map},
    {"max", "case_sensitive attribute", 0, filter_max},
    {"min", "case_sensitive attribute", 0, filter_min},
    {"reject", NULL, 0, filter_reject},
    {"rejectattr", NULL, 0, filter_rejectattr},
    {"replace", "old new count", 2, filter_replace},
    {"reverse", "", 0, filter_reverse},
    {"round", "precision method", 0, filter_round},
    {"safe", "", 0, filter_safe},
    {"select", NULL, 0, filter_select},
    {"selectattr", NULL, 0, filter_selectattr},
    {"slice", "slices fill_with", 1, filter_slice},
    {"sort", "reverse case_sensitive attribute", 0, filter_sort},
    {"string", "", 0, filter_string},
    {"sum", "attribute start", 0, filter_sum},
    {"title", "", 0, filter_title},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, filter_tojson},
    {"trim", "chars", 0, filter_trim},
    {"truncate", "length killwords end leeway", 0, filter_truncate},
    {"unique", "case_sensitive attribute", 0, filter_unique},
    {"upper", "", 0, filter_upper},
    {"urlencode", "", 0, filter_urlencode},
    {"wordcount", "", 0, filter_wordcount},
};

static const jinja_table table = {rows, sizeof rows / sizeof *rows};

const jinja_builtin *jinja_filter_find(const char *name, size_t len)
{
    return jinja_table_find(&table, name, len);
}

jv jinja_filter_apply(jinja_run *r, jv name, jv value, const jv_args *args)
{
    if (name.kind != JV_STRING) return jr_error(r, "a filter's name must be str, not %s", jv_type(name));
    const jinja_builtin *b = jinja_filter_find(name.as.s->data, name.as.s->len);
    size_t shown = name.as.s->len < 100 ? name.as.s->len : 100;
    if (!b) return jr_error(r, "no filter named '%.*s'", (int)shown, name.as.s->data);
    return jinja_builtin_call(r, b, value, args);
}
