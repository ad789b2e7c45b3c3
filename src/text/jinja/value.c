/* Making, comparing and measuring values; ordered dicts. */
#include "text/jinja/value.h"
#include "text/jinja/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DICT_LINEAR 8u /* up to this many keys a dict is searched without an index */

jv jv_borrow(jinja_run *r, const char *data, size_t len)
{
    jv_string *s = jr_alloc(r, 1, sizeof *s);
    if (!s || !jr_charge(r, len / 256)) return jv_none();
    *s = (jv_string){.data = data, .len = len, .chars = jutf8_count(data, len)};
    return jv_of_string(s);
}

jv jv_copy(jinja_run *r, const char *data, size_t len)
{
    char *copy = jr_alloc(r, len ? len : 1, 1);
    if (!copy) return jv_none();
    memcpy(copy, data, len);
    return jv_borrow(r, copy, len);
}

jv jv_literal(jinja_run *r, const char *s)
{
    return jv_borrow(r, s, strlen(s));
}

jv jv_sub(jinja_run *r, const jv_string *s, size_t from, size_t to)
{
    return jv_borrow(r, s->data + from, to - from);
}

static jv undefined_new(jinja_run *r, const char *hint, const char *type, const jv *name)
{
    jv_undefined *u = jr_alloc(r, 1, sizeof *u);
    if (!u) return jv_none();
    u->hint = hint;
    u->type = type;
    if (name) {
        jv *copy = jr_alloc(r, 1, sizeof *copy);
        if (!copy) return jv_none();
        *copy = *name;
        u->name = copy;
    }
    return (jv){.kind = JV_UNDEFINED, .as.undefined = u};
}

jv jv_undefined_name(jinja_run *r, jv name)
{
    return undefined_new(r, NULL, NULL, &name);
}

jv jv_undefined_attr(jinja_run *r, jv object, jv name)
{
    return undefined_new(r, NULL, jv_object_type(object), &name);
}

jv jv_undefined_hint(jinja_run *r, const char *format, ...)
{
    char hint[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(hint, sizeof hint, format, ap);
    va_end(ap);
    char *copy = jr_alloc(r, strlen(hint) + 1, 1);
    if (!copy) return jv_none();
    memcpy(copy, hint, strlen(hint));
    return undefined_new(r, copy, NULL, NULL);
}

jv jv_fail_undefined(jinja_run *r, jv v)
{
    const jv_undefined *u = v.as.undefined;
    if (u->hint) return jr_error(r, "%s", u->hint);
    jinja_text t = {0};
    if (!u->type) {
        jv_write_repr(r, &t, *u->name);
        text_puts(r, &t, " is undefined");
    } else if (u->name->kind == JV_STRING) {
        text_puts(r, &t, "'");
        text_puts(r, &t, u->type);
        text_puts(r, &t, "' has no attribute ");
        jv_write_repr(r, &t, *u->name);
    } else {
        text_puts(r, &t, u->type);
        text_puts(r, &t, " has no element ");
        jv_write_repr(r, &t, *u->name);
    }
    if (t.len > 400) t.len = jutf8_offset(t.data, 400, 100);
    return jr_error(r, "%.*s", (int)t.len, t.data ? t.data : "undefined");
}

/* --- lists ---------------------------------------------------------------------------------------------- */
static jv sequence_new(jinja_run *r, jv_kind kind, size_t cap)
{
    jv_list *list = jr_alloc(r, 1, sizeof *list);
    if (!list) return jv_none();
    list->items = cap ? jr_alloc(r, cap, sizeof(jv)) : NULL;
    if (cap && !list->items) return jv_none();
    list->cap = cap;
    return (jv){.kind = kind, .as.list = list};
}

jv jv_list_new(jinja_run *r, size_t cap)
{
    return sequence_new(r, JV_LIST, cap);
}

jv jv_tuple_new(jinja_run *r, size_t cap)
{
    return sequence_new(r, JV_TUPLE, cap);
}

void jv_push(jinja_run *r, jv v, jv item)
{
    if (jr_failed(r) || !jr_charge(r, 1)) return;
    jv_list *list = v.as.list;
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 8;
        jv *items = jr_alloc(r, cap, sizeof *items);
        if (!items) return;
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = item;
}

jv jv_pair(jinja_run *r, jv a, jv b)
{
    jv pair = jv_tuple_new(r, 2);
    jv_push(r, pair, a);
    jv_push(r, pair, b);
    return pair;
}

/* --- dicts ---------------------------------------------------------------------------------------------- */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

static uint64_t hash_bytes(const char *s, size_t len)
{
    uint64_t h = 0xCBF29CE484222325u ^ len;
    for (size_t i = 0; i < len; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001B3u;
    return mix(h);
}

/* Equal values hash alike: 1, 1.0 and True are one key. Tuples are looked into `levels` deep. */
static uint64_t hash_within(jv v, int levels)
{
    switch (v.kind) {
    case JV_BOOL: return mix(v.as.b);
    case JV_INT: return mix((uint64_t)v.as.i);
    case JV_FLOAT:
        if (v.as.f >= -9.2e18 && v.as.f <= 9.2e18 && v.as.f == floor(v.as.f))
            return mix((uint64_t)(int64_t)v.as.f);
        return mix((uint64_t)(int64_t)fmod(v.as.f * 65536.0, 1e15));
    case JV_STRING: return hash_bytes(v.as.s->data, v.as.s->len);
    case JV_TUPLE: {
        uint64_t h = v.as.list->n;
        for (size_t i = 0; levels > 0 && i < v.as.list->n; i++) {
            h = mix(h * 31 + hash_within(v.as.list->items[i], levels - 1));
        }
        return h;
    }
    case JV_NONE:
    case JV_UNDEFINED: return v.kind;
    default: return mix((uint64_t)(uintptr_t)v.as.iter);
    }
}

static uint64_t hash(jv v)
{
    return hash_within(v, 4);
}

static bool hashable_within(jv v, int levels)
{
    if (v.kind == JV_LIST || v.kind == JV_DICT || v.kind == JV_VIEW) return false;
    if (v.kind != JV_TUPLE) return true;
    for (size_t i = 0; i < v.as.list->n; i++) {
        if (levels == 0 || !hashable_within(v.as.list->items[i], levels - 1)) return false;
    }
    return true;
}

bool jv_hashable(jv v)
{
    return hashable_within(v, 32);
}

jv jv_dict_new(jinja_run *r)
{
    jv_dict *d = jr_alloc(r, 1, sizeof *d);
    return d ? (jv){.kind = JV_DICT, .as.dict = d} : jv_none();
}

/* Position + 1 of the key, or 0; *slot is where it is or would be in the index. */
static size_t dict_lookup(jinja_run *r, const jv_dict *d, jv key, size_t *slot)
{
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++) {
            if (jv_equal(r, d->keys[i], key)) return i + 1;
        }
        return 0;
    }
    for (size_t at = hash(key) & (d->slots - 1);; at = (at + 1) & (d->slots - 1)) {
        size_t i = d->index[at];
        *slot = at;
        if (i == 0 || !jr_charge(r, 1)) return 0;
        if (jv_equal(r, d->keys[i - 1], key)) return i;
    }
}

static void dict_reindex(jinja_run *r, jv_dict *d, size_t slots)
{
    d->index = jr_alloc(r, slots, sizeof *d->index);
    d->slots = slots;
    for (size_t i = 0; d->index && i < d->n; i++) {
        size_t at = hash(d->keys[i]) & (slots - 1);
        while (d->index[at]) at = (at + 1) & (slots - 1);
        d->index[at] = (uint32_t)(i + 1);
    }
}

static bool dict_grow(jinja_run *r, jv_dict *d)
{
    size_t cap = d->cap ? d->cap * 2 : DICT_LINEAR;
    jv *keys = jr_alloc(r, cap, sizeof *keys), *values = jr_alloc(r, cap, sizeof *values);
    if (!keys || !values) return false;
    if (d->n) memcpy(keys, d->keys, d->n * sizeof *keys);
    if (d->n) memcpy(values, d->values, d->n * sizeof *values);
    d->keys = keys;
    d->values = values;
    d->cap = cap;
    if (cap > DICT_LINEAR) dict_reindex(r, d, cap * 2);
    return !jr_failed(r);
}

void jv_dict_set(jinja_run *r, jv_dict *d, jv key, jv value)
{
    if (jr_failed(r) || !jr_charge(r, 1)) return;
    if (!jv_hashable(key)) {
        jr_error(r, "unhashable type: '%s'", jv_type(key));
        return;
    }
    size_t slot = 0, at = dict_lookup(r, d, key, &slot);
    if (at) {
        d->values[at - 1] = value;
        return;
    }
    if (d->n == d->cap) {
        if (!dict_grow(r, d)) return;
        if (d->index) dict_lookup(r, d, key, &slot);
    }
    if (jr_failed(r)) return;
    d->keys[d->n] = key;
    d->values[d->n++] = value;
    if (d->index) d->index[slot] = (uint32_t)d->n;
}

const jv *jv_dict_get(jinja_run *r, const jv_dict *d, jv key)
{
    size_t slot, at = jv_hashable(key) ? dict_lookup(r, d, key, &slot) : 0;
    return at ? &d->values[at - 1] : NULL;
}

const jv *jv_dict_find(jinja_run *r, const jv_dict *d, const char *key, size_t len)
{
    jv_string s = {.data = key, .len = len};
    return jv_dict_get(r, d, jv_of_string(&s));
}

/* --- JSON in -------------------------------------------------------------------------------------------- */
static jv string_from_json(jinja_run *r, const char *s, size_t len, jv_json_strings strings)
{
    return strings == JSON_STRINGS_COPIED ? jv_copy(r, s, len) : jv_borrow(r, s, len);
}

static jv object_from_json(jinja_run *r, const json_t *json, jv_json_strings strings)
{
    jv d = jv_dict_new(r);
    /* jansson's iterator functions want json_t *, but only read. */
    json_t *object = (json_t *)json;
    for (void *it = json_object_iter(object); it && !jr_failed(r); it = json_object_iter_next(object, it)) {
        jv key = string_from_json(r, json_object_iter_key(it), json_object_iter_key_len(it), strings);
        jv value = jv_from_json(r, json_object_iter_value(it), strings);
        if (!jr_failed(r)) jv_dict_set(r, d.as.dict, key, value);
    }
    return d;
}

static jv array_from_json(jinja_run *r, const json_t *json, jv_json_strings strings)
{
    jv list = jv_list_new(r, json_array_size(json));
    for (size_t i = 0; i < json_array_size(json) && !jr_failed(r); i++) {
        jv item = jv_from_json(r, json_array_get(json, i), strings);
        if (!jr_failed(r)) jv_push(r, list, item);
    }
    return list;
}

jv jv_from_json(jinja_run *r, const json_t *json, jv_json_strings strings)
{
    switch (json_typeof(json)) {
    case JSON_TRUE: return jv_bool(true);
    case JSON_FALSE: return jv_bool(false);
    case JSON_INTEGER: return jv_int(json_integer_value(json));
    case JSON_REAL: return jv_float(json_real_value(json));
    case JSON_STRING: return string_from_json(r, json_string_value(json), json_string_length(json), strings);
    case JSON_ARRAY:
    case JSON_OBJECT: {
        jv v = jv_none();
        if (jr_enter(r))
            v = json_is_array(json) ? array_from_json(r, json, strings) : object_from_json(r, json, strings);
        jr_leave(r);
        return v;
    }
    default: return jv_none();
    }
}

/* --- asking --------------------------------------------------------------------------------------------- */
const char *jv_type(jv v)
{
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    switch (v.kind) {
    case JV_UNDEFINED: return "Undefined";
    case JV_MISSING:
    case JV_NONE: return "NoneType";
    case JV_BOOL: return "bool";
    case JV_INT: return "int";
    case JV_FLOAT: return "float";
    case JV_STRING: return v.as.s->markup ? "Markup" : "str";
    case JV_LIST: return "list";
    case JV_TUPLE: return "tuple";
    case JV_DICT: return "dict";
    case JV_RANGE: return "range";
    case JV_VIEW: return views[v.as.view->kind];
    case JV_ITER: return "generator";
    case JV_NAMESPACE: return "Namespace";
    case JV_MACRO: return "Macro";
    case JV_LOOP: return "LoopContext";
    case JV_FUNCTION: return "function";
    case JV_METHOD: return "builtin_function_or_method";
    case JV_CYCLER: return "Cycler";
    case JV_JOINER: return "Joiner";
    }
    return "object";
}

const char *jv_object_type(jv v)
{
    switch (v.kind) {
    case JV_NONE: return "None";
    case JV_BOOL: return "bool object";
    case JV_INT: return "int object";
    case JV_FLOAT: return "float object";
    case JV_STRING: return v.as.s->markup ? "markupsafe.Markup object" : "str object";
    case JV_LIST: return "list object";
    case JV_TUPLE: return "tuple object";
    case JV_DICT: return "dict object";
    case JV_RANGE: return "range object";
    case JV_ITER: return "generator object";
    case JV_NAMESPACE: return "jinja2.utils.Namespace object";
    case JV_MACRO: return "jinja2.runtime.Macro object";
    case JV_LOOP: return "jinja2.runtime.LoopContext object";
    default: return jv_type(v);
    }
}

bool jv_length(jv v, size_t *n)
{
    switch (v.kind) {
    case JV_UNDEFINED: return *n = 0, true;
    case JV_STRING: return *n = v.as.s->chars, true;
    case JV_LIST:
    case JV_TUPLE: return *n = v.as.list->n, true;
    case JV_DICT: return *n = v.as.dict->n, true;
    case JV_RANGE: return *n = v.as.range->n, true;
    case JV_VIEW: return *n = v.as.view->dict->n, true;
    default: return false;
    }
}

bool jv_truth(jv v)
{
    size_t n;
    switch (v.kind) {
    case JV_MISSING:
    case JV_NONE: return false;
    case JV_BOOL: return v.as.b;
    case JV_INT: return v.as.i != 0;
    case JV_FLOAT: return v.as.f != 0;
    default: return jv_length(v, &n) ? n > 0 : true;
    }
}

bool jv_is_number(jv v)
{
    return v.kind == JV_INT || v.kind == JV_FLOAT || v.kind == JV_BOOL;
}

bool jv_is_integer(jv v, int64_t *out)
{
    if (v.kind == JV_INT) return *out = v.as.i, true;
    if (v.kind == JV_BOOL) return *out = v.as.b, true;
    return false;
}

double jv_number(jv v)
{
    return v.kind == JV_FLOAT ? v.as.f : v.kind == JV_BOOL ? (double)v.as.b : (double)v.as.i;
}

bool jv_string_equals(jv v, const char *s)
{
    return v.kind == JV_STRING && v.as.s->len == strlen(s) && memcmp(v.as.s->data, s, v.as.s->len) == 0;
}

/* -1, 0, 1, or 2 when one of them is NaN. Exact: int64 fits the 64-bit mantissa or is split from the float. */
static int number_compare(jv a, jv b)
{
    int64_t x = 0, y = 0;
    if (jv_is_integer(a, &x) && jv_is_integer(b, &y)) return x < y ? -1 : x > y;
    if (a.kind == JV_FLOAT && b.kind == JV_FLOAT) {
        double f = a.as.f, g = b.as.f;
        return f < g ? -1 : f > g ? 1 : f == g ? 0 : 2;
    }
    if (a.kind == JV_FLOAT) {
        int c = number_compare(b, a);
        return c == 2 ? 2 : -c;
    }
    double g = b.as.f;
    if (isnan(g)) return 2;
    if (g >= 9223372036854775808.0) return -1;
    if (g < -9223372036854775808.0) return 1;
    jv_is_integer(a, &x);
    int64_t whole = (int64_t)g;
    if (x != whole) return x < whole ? -1 : 1;
    double rest = g - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

static bool list_equal(jinja_run *r, const jv_list *a, const jv_list *b)
{
    if (a == b) return true;
    bool equal = a->n == b->n && jr_enter(r);
    if (a->n != b->n) return false;
    for (size_t i = 0; equal && i < a->n; i++) equal = jv_equal(r, a->items[i], b->items[i]);
    jr_leave(r);
    return equal;
}

static bool dict_equal(jinja_run *r, const jv_dict *a, const jv_dict *b)
{
    if (a == b) return true;
    if (a->n != b->n) return false;
    bool equal = jr_enter(r);
    for (size_t i = 0; equal && i < a->n; i++) {
        const jv *other = jv_dict_get(r, b, a->keys[i]);
        equal = other && jv_equal(r, a->values[i], *other);
    }
    jr_leave(r);
    return equal;
}

static bool range_equal(const jv_range *a, const jv_range *b)
{
    if (a->n != b->n) return false;
    return a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step));
}

bool jv_equal(jinja_run *r, jv a, jv b)
{
    if (jv_is_number(a) && jv_is_number(b)) return number_compare(a, b) == 0;
    if (a.kind != b.kind) return false;
    if (!jr_charge(r, 1)) return false;
    switch (a.kind) {
    case JV_STRING:
        if (a.as.s->len != b.as.s->len || !jr_charge(r, a.as.s->len / 256)) return false;
        return memcmp(a.as.s->data, b.as.s->data, a.as.s->len) == 0;
    case JV_LIST:
    case JV_TUPLE: return list_equal(r, a.as.list, b.as.list);
    case JV_DICT: return dict_equal(r, a.as.dict, b.as.dict);
    case JV_RANGE: return range_equal(a.as.range, b.as.range);
    case JV_MISSING:
    case JV_NONE:
    case JV_UNDEFINED: return true;
    default: return a.as.iter == b.as.iter;
    }
}

static bool order_holds(int compare, jv_order_op op)
{
    if (compare == 2) return false;
    switch (op) {
    case ORDER_LT: return compare < 0;
    case ORDER_LE: return compare <= 0;
    case ORDER_GT: return compare > 0;
    default: return compare >= 0;
    }
}

static int string_compare(const jv_string *a, const jv_string *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->data, b->data, n); /* UTF-8 sorts as its code points do */
    if (c) return c < 0 ? -1 : 1;
    return a->len < b->len ? -1 : a->len > b->len;
}

static bool list_order(jinja_run *r, const jv_list *a, const jv_list *b, jv_order_op op)
{
    size_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && jv_equal(r, a->items[i], b->items[i])) i++;
    if (i == n) return order_holds(a->n < b->n ? -1 : a->n > b->n, op);
    bool holds = jr_enter(r) && jv_order(r, a->items[i], b->items[i], op);
    jr_leave(r);
    return holds;
}

bool jv_order(jinja_run *r, jv a, jv b, jv_order_op op)
{
    static const char *const signs[] = {"<", "<=", ">", ">="};
    if (!jr_charge(r, 1)) return false;
    if (jv_is_number(a) && jv_is_number(b)) return order_holds(number_compare(a, b), op);
    if (a.kind == JV_STRING && b.kind == JV_STRING) {
        jr_charge(r, (a.as.s->len < b.as.s->len ? a.as.s->len : b.as.s->len) / 256);
        return order_holds(string_compare(a.as.s, b.as.s), op);
    }
    if (a.kind == b.kind && (a.kind == JV_LIST || a.kind == JV_TUPLE))
        return list_order(r, a.as.list, b.as.list, op);
    if (a.kind == JV_UNDEFINED || b.kind == JV_UNDEFINED) {
        jv_fail_undefined(r, a.kind == JV_UNDEFINED ? a : b);
        return false;
    }
    jr_error(r, "'%s' not supported between instances of '%s' and '%s'", signs[op], jv_type(a), jv_type(b));
    return false;
}
