/* Attributes, items and slices, with the rules of the immutable sandbox: what starts with an underscore and
 * what would change a list or a dict is "unsafe", that is an undefined value which says so when it is used. */
#include "text/jinja/builtin.h"
#include "text/jinja/ops.h"
#include "text/jinja/utf8.h"

#include <string.h>

static jv method_new(jinja_run *r, jv self, const jinja_builtin *builtin)
{
    jinja_method *m = jr_alloc(r, 1, sizeof *m);
    if (!m) return jv_none();
    m->self = self;
    m->builtin = builtin;
    return (jv){.kind = JV_METHOD, .as.method = m};
}

/* What Python's getattr finds on the type itself; JV_MISSING: nothing. */
static jv own_attribute(jinja_run *r, jv object, jv name)
{
    if (object.kind == JV_NAMESPACE) {
        const jv *found = jv_dict_get(r, object.as.dict, name);
        return found ? *found : jv_missing();
    }
    if (object.kind == JV_LOOP) return jinja_loop_attribute(r, object.as.loop, name);
    if (object.kind == JV_MACRO && jv_string_equals(name, "name")) return jinja_macro_name(object.as.macro);
    bool unsafe = false;
    const jinja_builtin *method = jinja_method_find(object, name, &unsafe);
    if (unsafe) {
        return jv_undefined_hint(r, "access to attribute '%.*s' of '%s' object is unsafe.",
                                 (int)name.as.s->len, name.as.s->data, jv_type(object));
    }
    return method ? method_new(r, object, method) : jv_missing();
}

/* Position of a possibly negative index in a sequence of n; false: outside. */
static bool index_of(jv key, size_t n, size_t *out)
{
    int64_t i;
    if (!jv_is_integer(key, &i)) return false;
    if (i < 0) i += (int64_t)n;
    if (i < 0 || (uint64_t)i >= n) return false;
    *out = (size_t)i;
    return true;
}

static jv string_at(jinja_run *r, const jv_string *s, size_t i)
{
    uint32_t cp;
    if (s->chars == s->len) return jv_sub(r, s, i, i + 1);
    if (!jr_charge(r, i / 32)) return jv_none();
    size_t at = jutf8_offset(s->data, s->len, i);
    return jv_sub(r, s, at, at + jutf8_decode(s->data + at, &cp));
}

/* Python's object[key]; JV_MISSING: a TypeError or LookupError. */
static jv own_item(jinja_run *r, jv object, jv key)
{
    size_t n, i;
    if (object.kind == JV_DICT) {
        const jv *found = jv_dict_get(r, object.as.dict, key);
        return found ? *found : jv_missing();
    }
    if (object.kind == JV_VIEW || !jv_length(object, &n) || !index_of(key, n, &i)) return jv_missing();
    switch (object.kind) {
    case JV_LIST:
    case JV_TUPLE: return object.as.list->items[i];
    case JV_STRING: return string_at(r, object.as.s, i);
    case JV_RANGE: return jv_int(object.as.range->start + (int64_t)i * object.as.range->step);
    default: return jv_missing();
    }
}

jv jv_get_attribute(jinja_run *r, jv object, jv name)
{
    if (jr_failed(r)) return jv_none();
    if (object.kind == JV_UNDEFINED) return jv_fail_undefined(r, object);
    jv found = own_attribute(r, object, name);
    if (found.kind == JV_MISSING) found = own_item(r, object, name);
    return found.kind == JV_MISSING ? jv_undefined_attr(r, object, name) : found;
}

jv jv_get_item(jinja_run *r, jv object, jv key)
{
    if (jr_failed(r)) return jv_none();
    if (object.kind == JV_UNDEFINED) return jv_fail_undefined(r, object);
    jv found = own_item(r, object, key);
    if (found.kind == JV_MISSING && key.kind == JV_STRING) found = own_attribute(r, object, key);
    return found.kind == JV_MISSING ? jv_undefined_attr(r, object, key) : found;
}

static jv get_step(jinja_run *r, jv object, const char *part, size_t len)
{
    int64_t index;
    bool overflow, digits = len > 0;
    for (size_t i = 0; i < len; i++) digits = digits && part[i] >= '0' && part[i] <= '9';
    if (digits && jinja_parse_int(part, len, 10, &index, &overflow) && !overflow) {
        return jv_get_item(r, object, jv_int(index));
    }
    return jv_get_item(r, object, jv_borrow(r, part, len));
}

jv jv_get_path(jinja_run *r, jv object, jv path)
{
    if (path.kind == JV_MISSING || path.kind == JV_NONE) return object;
    if (path.kind != JV_STRING) return jv_get_item(r, object, path);
    const char *part = path.as.s->data, *end = part + path.as.s->len;
    for (;;) {
        const char *dot = part < end ? memchr(part, '.', (size_t)(end - part)) : NULL;
        object = get_step(r, object, part, (size_t)((dot ? dot : end) - part));
        if (!dot || jr_failed(r)) return object;
        part = dot + 1;
    }
}

/* --- slices ---------------------------------------------------------------------------------------------------- */
typedef struct {
    int64_t start, stop, step;
    size_t n;
} span;

static bool slice_bound(jinja_run *r, jv v, int64_t n, int64_t low, int64_t high, int64_t usual, int64_t *out)
{
    if (v.kind == JV_NONE) return *out = usual, true;
    if (!jv_is_integer(v, out)) {
        jr_error(r, "slice indices must be integers or None or have an __index__ method");
        return false;
    }
    if (*out < 0) *out = *out < -n ? low : *out + n;
    if (*out < low) *out = low;
    if (*out > high) *out = high;
    return true;
}

/* The items that [start:stop:step] takes of n, as CPython's PySlice_AdjustIndices counts them. */
static bool slice_span(jinja_run *r, jv start, jv stop, jv step, size_t length, span *out)
{
    int64_t n = (int64_t)length, from, to, by = 1;
    if (step.kind != JV_NONE && !jv_is_integer(step, &by)) {
        jr_error(r, "slice indices must be integers or None or have an __index__ method");
        return false;
    }
    if (by == 0) {
        jr_error(r, "slice step cannot be zero");
        return false;
    }
    if (by < -INT64_MAX) by = -INT64_MAX;
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? n - 1 : n;
    if (!slice_bound(r, start, n, low, high, by < 0 ? high : low, &from)) return false;
    if (!slice_bound(r, stop, n, low, high, by < 0 ? low : high, &to)) return false;
    out->start = from;
    out->stop = to;
    out->step = by;
    out->n = 0;
    if (by > 0 && from < to) out->n = (size_t)((to - from - 1) / by + 1);
    if (by < 0 && to < from) out->n = (size_t)((from - to - 1) / -by + 1);
    return true;
}

static jv slice_string(jinja_run *r, const jv_string *s, span p)
{
    if (p.n == 0) return jv_sub(r, s, 0, 0);
    if (s->chars != s->len && !jr_charge(r, s->len / 16)) return jv_none();
    if (p.step == 1) {
        size_t from = (size_t)p.start, to = from + p.n;
        if (s->chars != s->len) {
            from = jutf8_offset(s->data, s->len, from);
            to = from + jutf8_offset(s->data + from, s->len - from, p.n);
        }
        return jv_sub(r, s, from, to);
    }
    /* Other steps: an index of the offsets first, so that each character is found at once. */
    uint32_t *offsets = jr_alloc(r, s->chars, sizeof *offsets), cp;
    jinja_text t = {0};
    for (size_t i = 0, at = 0; offsets && i < s->chars; i++) {
        offsets[i] = (uint32_t)at;
        at += jutf8_decode(s->data + at, &cp);
    }
    for (size_t i = 0; offsets && i < p.n && !jr_failed(r); i++) {
        const char *c = s->data + offsets[p.start + (int64_t)i * p.step];
        text_append(r, &t, c, jutf8_decode(c, &cp));
    }
    return text_value(r, &t);
}

static jv slice_list(jinja_run *r, jv list, span p)
{
    jv out = list.kind == JV_LIST ? jv_list_new(r, p.n) : jv_tuple_new(r, p.n);
    for (size_t i = 0; i < p.n && !jr_failed(r); i++) {
        jv_push(r, out, list.as.list->items[p.start + (int64_t)i * p.step]);
    }
    return out;
}

static jv slice_range(jinja_run *r, const jv_range *g, span p)
{
    jv_range *out = jr_alloc(r, 1, sizeof *out);
    if (!out) return jv_none();
    int64_t start, stop, step;
    bool overflow = __builtin_mul_overflow(g->step, p.step, &step);
    overflow = overflow || __builtin_mul_overflow(p.start, g->step, &start);
    overflow = overflow || __builtin_add_overflow(start, g->start, &start);
    overflow = overflow || __builtin_mul_overflow(p.stop, g->step, &stop);
    overflow = overflow || __builtin_add_overflow(stop, g->start, &stop);
    if (overflow) return jr_error(r, "integer overflow in a slice of a range");
    *out = (jv_range){.start = start, .stop = stop, .step = step, .n = p.n};
    return (jv){.kind = JV_RANGE, .as.range = out};
}

jv jv_slice(jinja_run *r, jv object, jv start, jv stop, jv step)
{
    size_t n;
    span p;
    if (jr_failed(r)) return jv_none();
    if (object.kind == JV_UNDEFINED) return jv_fail_undefined(r, object);
    if (object.kind == JV_DICT) return jr_error(r, "unhashable type: 'slice'");
    if (object.kind == JV_VIEW || !jv_length(object, &n)) {
        return jr_error(r, "'%s' object is not subscriptable", jv_type(object));
    }
    if (!slice_span(r, start, stop, step, n, &p)) return jv_none();
    if (object.kind == JV_STRING) return slice_string(r, object.as.s, p);
    if (object.kind == JV_RANGE) return slice_range(r, object.as.range, p);
    return slice_list(r, object, p);
}
