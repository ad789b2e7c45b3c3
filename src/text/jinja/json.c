/* tojson as json.dumps writes it, and from_json. */
#include "text/jinja/builtin.h"
#include "text/jinja/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void dump(jinja_run *r, jinja_text *t, jv v, const jinja_json_style *style, size_t level);

static const char *short_escape(uint32_t cp)
{
    switch (cp) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    case '\b': return "\\b";
    case '\f': return "\\f";
    default: return NULL;
    }
}

static void write_escape(jinja_run *r, jinja_text *t, uint32_t cp)
{
    char text[16];
    const char *known = short_escape(cp);
    if (known) {
        text_puts(r, t, known);
        return;
    }
    if (cp >= 0x10000) {
        uint32_t high = 0xD800 + ((cp - 0x10000) >> 10), low = 0xDC00 + ((cp - 0x10000) & 0x3FF);
        snprintf(text, sizeof text, "\\u%04" PRIx32 "\\u%04" PRIx32, high, low);
    } else {
        snprintf(text, sizeof text, "\\u%04" PRIx32, cp);
    }
    text_puts(r, t, text);
}

static void dump_string(jinja_run *r, jinja_text *t, const jv_string *s, bool ensure_ascii)
{
    size_t done = 0;
    if (!jr_charge(r, s->len / 32)) return;
    text_append(r, t, "\"", 1);
    for (size_t i = 0; i < s->len && !jr_failed(r);) {
        uint32_t cp;
        size_t n = jutf8_decode(s->data + i, &cp);
        if (cp < 0x20 || cp == '"' || cp == '\\' || (ensure_ascii && cp > 0x7E)) {
            text_append(r, t, s->data + done, i - done);
            write_escape(r, t, cp);
            done = i + n;
        }
        i += n;
    }
    text_append(r, t, s->data + done, s->len - done);
    text_append(r, t, "\"", 1);
}

static void dump_scalar(jinja_run *r, jinja_text *t, jv v)
{
    char text[40];
    if (v.kind == JV_NONE) text_puts(r, t, "null");
    if (v.kind == JV_BOOL) text_puts(r, t, v.as.b ? "true" : "false");
    if (v.kind == JV_INT) {
        snprintf(text, sizeof text, "%" PRId64, v.as.i);
        text_puts(r, t, text);
    }
    if (v.kind == JV_FLOAT) {
        jinja_float_repr(v.as.f, text);
        text_puts(r, t,
                  isnan(v.as.f)   ? "NaN"
                  : isinf(v.as.f) ? (v.as.f > 0 ? "Infinity" : "-Infinity")
                                  : text);
    }
}

static void newline_indent(jinja_run *r, jinja_text *t, const jinja_json_style *style, size_t level)
{
    if (!style->has_indent) return;
    text_append(r, t, "\n", 1);
    for (size_t i = 0; i < level && jr_charge(r, 1); i++) {
        if (style->indent.kind == JV_STRING) {
            text_append(r, t, style->indent.as.s->data, style->indent.as.s->len);
        } else {
            for (int64_t k = 0; k < style->indent.as.i && !jr_failed(r); k++) text_append(r, t, " ", 1);
        }
    }
}

static void separator(jinja_run *r, jinja_text *t, const jv_string *given, const char *usual)
{
    if (given) text_append(r, t, given->data, given->len);
    if (!given) text_puts(r, t, usual);
}

static void dump_list(jinja_run *r, jinja_text *t, const jv_list *list, const jinja_json_style *style,
                      size_t level)
{
    text_puts(r, t, "[");
    for (size_t i = 0; i < list->n && jr_charge(r, 1); i++) {
        if (i) separator(r, t, style->item_separator, style->has_indent ? "," : ", ");
        newline_indent(r, t, style, level + 1);
        dump(r, t, list->items[i], style, level + 1);
    }
    if (list->n) newline_indent(r, t, style, level);
    text_puts(r, t, "]");
}

static void dump_key(jinja_run *r, jinja_text *t, jv key, const jinja_json_style *style)
{
    switch (key.kind) {
    case JV_STRING: dump_string(r, t, key.as.s, style->ensure_ascii); break;
    case JV_NONE:
    case JV_BOOL:
    case JV_INT:
    case JV_FLOAT:
        text_puts(r, t, "\"");
        dump_scalar(r, t, key);
        text_puts(r, t, "\"");
        break;
    default: jr_error(r, "keys must be str, int, float, bool or None, not %s", jv_type(key));
    }
}

static void dump_dict(jinja_run *r, jinja_text *t, const jv_dict *d, const jinja_json_style *style,
                      size_t level)
{
    const size_t *order = style->sort_keys ? jinja_sort(r, d->keys, d->n, SORT_ASCENDING) : NULL;
    text_puts(r, t, "{");
    for (size_t i = 0; i < d->n && jr_charge(r, 1); i++) {
        size_t at = order ? order[i] : i;
        if (i) separator(r, t, style->item_separator, style->has_indent ? "," : ", ");
        newline_indent(r, t, style, level + 1);
        dump_key(r, t, d->keys[at], style);
        separator(r, t, style->key_separator, ": ");
        dump(r, t, d->values[at], style, level + 1);
    }
    if (d->n) newline_indent(r, t, style, level);
    text_puts(r, t, "}");
}

static void dump(jinja_run *r, jinja_text *t, jv v, const jinja_json_style *style, size_t level)
{
    if (jr_enter(r)) {
        switch (v.kind) {
        case JV_NONE:
        case JV_BOOL:
        case JV_INT:
        case JV_FLOAT: dump_scalar(r, t, v); break;
        case JV_STRING: dump_string(r, t, v.as.s, style->ensure_ascii); break;
        case JV_LIST:
        case JV_TUPLE: dump_list(r, t, v.as.list, style, level); break;
        case JV_DICT: dump_dict(r, t, v.as.dict, style, level); break;
        default: jr_error(r, "Object of type %s is not JSON serializable", jv_type(v));
        }
    }
    jr_leave(r);
}

jv jinja_json_dump(jinja_run *r, jv v, const jinja_json_style *style)
{
    jinja_text t = {0};
    dump(r, &t, v, style, 0);
    return text_value(r, &t);
}

jv jinja_json_load(jinja_run *r, jv text)
{
    if (text.kind == JV_UNDEFINED) return jv_fail_undefined(r, text);
    if (text.kind != JV_STRING) {
        return jr_error(r, "from_json: the JSON object must be str, not %s", jv_type(text));
    }
    json_error_t error;
    json_t *json = json_loadb(text.as.s->data, text.as.s->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!json) return jr_error(r, "from_json: %s", error.text);
    jv v = jv_from_json(r, json, JSON_STRINGS_COPIED);
    json_decref(json);
    return v;
}
