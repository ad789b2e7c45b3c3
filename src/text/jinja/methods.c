/* Methods of str, list, tuple, dict and cycler. The sandbox forbids those that change their object; Python's
 * other names that are not here (encode, translate, ...) are undefined. */
#include "text/jinja/iter.h"
#include "text/jinja/ops.h"
#include "text/jinja/strings.h"
#include "text/jinja/utf8.h"

#include <string.h>

static bool want_string(jinja_run *r, jv v, const char *what)
{
    if (v.kind == JV_STRING) return true;
    jr_error(r, "%s must be str, not %s", what, jv_type(v));
    return false;
}

/* --- str: shape and case ------------------------------------------------------------------------------------------- */
static jv str_upper(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_upper(r, self.as.s);
}

static jv str_lower(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_lower(r, self.as.s);
}

static jv str_title(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_title(r, self.as.s);
}

static jv str_capitalize(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_capitalize(r, self.as.s);
}

static jv str_swapcase(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_swapcase(r, self.as.s);
}

static jv str_strip(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jinja_strip(r, self.as.s, a[0], STRIP_BOTH);
}

static jv str_lstrip(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jinja_strip(r, self.as.s, a[0], STRIP_LEFT);
}

static jv str_rstrip(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jinja_strip(r, self.as.s, a[0], STRIP_RIGHT);
}

typedef enum { ALIGN_LEFT, ALIGN_RIGHT, ALIGN_CENTER } alignment;

static jv justify(jinja_run *r, const jv_string *s, const jv *a, alignment align)
{
    int64_t width;
    const char *fill = " ";
    size_t fill_len = 1;
    if (!arg_int(r, a[0], 0, &width)) return jv_none();
    if (a[1].kind != JV_MISSING) {
        if (!want_string(r, a[1], "the fill character")) return jv_none();
        if (a[1].as.s->chars != 1)
            return jr_error(r, "the fill character must be exactly one character long");
        fill = a[1].as.s->data;
        fill_len = a[1].as.s->len;
    }
    if (align == ALIGN_CENTER) return jinja_center(r, s, width, fill, fill_len);
    size_t pad = width > (int64_t)s->chars ? (size_t)width - s->chars : 0;
    return jinja_pad(r, s, align == ALIGN_RIGHT ? pad : 0, align == ALIGN_LEFT ? pad : 0, fill, fill_len);
}

static jv str_ljust(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return justify(r, self.as.s, a, ALIGN_LEFT);
}

static jv str_rjust(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return justify(r, self.as.s, a, ALIGN_RIGHT);
}

static jv str_center(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return justify(r, self.as.s, a, ALIGN_CENTER);
}

static jv str_zfill(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t width;
    const jv_string *s = self.as.s;
    if (!arg_int(r, a[0], 0, &width)) return jv_none();
    if (width <= (int64_t)s->chars) return self;
    size_t sign = s->len && (s->data[0] == '-' || s->data[0] == '+');
    jinja_text t = {0};
    text_append(r, &t, s->data, sign);
    for (int64_t i = (int64_t)s->chars; i < width && !jr_failed(r); i++) text_append(r, &t, "0", 1);
    text_append(r, &t, s->data + sign, s->len - sign);
    return text_value(r, &t);
}

/* --- str: searching ------------------------------------------------------------------------------------------------ */
/* Byte range of self[start:end]; false: failed, or start lies behind the end of the string. */
static bool search_range(jinja_run *r, const jv_string *s, const jv *a, size_t *from, size_t *to)
{
    int64_t n = (int64_t)s->chars, start, end;
    if (!arg_int(r, a[0], 0, &start) || !arg_int(r, a[1], n, &end)) return false;
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (end < 0) end = end + n < 0 ? 0 : end + n;
    if (end > n) end = n;
    if (start > n || !jr_charge(r, s->chars == s->len ? 1 : s->len / 32)) return false;
    bool ascii = s->chars == s->len;
    *from = ascii ? (size_t)start : jutf8_offset(s->data, s->len, (size_t)start);
    *to = ascii ? (size_t)end : jutf8_offset(s->data, s->len, (size_t)end);
    return true;
}

/* Position in code points of `needle` in self[start:end], or -1. */
static int64_t find(jinja_run *r, const jv_string *s, const jv *a, jinja_split_from side)
{
    size_t from, to;
    if (!want_string(r, a[0], "the substring") || !search_range(r, s, a + 1, &from, &to) || from > to)
        return -1;
    jv_string part = {.data = s->data + from, .len = to - from};
    size_t at = side == SPLIT_FROM_LEFT ? jv_find(r, &part, 0, a[0].as.s)
                                        : jinja_rfind(r, &part, part.len, a[0].as.s);
    return at == SIZE_MAX ? -1 : (int64_t)jutf8_count(s->data, from + at);
}

static jv str_find(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_int(find(r, self.as.s, a, SPLIT_FROM_LEFT));
}

static jv str_rfind(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_int(find(r, self.as.s, a, SPLIT_FROM_RIGHT));
}

static jv str_index(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t at = find(r, self.as.s, a, SPLIT_FROM_LEFT);
    return at < 0 ? jr_error(r, "substring not found") : jv_int(at);
}

static jv str_rindex(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t at = find(r, self.as.s, a, SPLIT_FROM_RIGHT);
    return at < 0 ? jr_error(r, "substring not found") : jv_int(at);
}

static jv str_count(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    size_t from, to;
    int64_t n = 0;
    if (!want_string(r, a[0], "the substring") || !search_range(r, self.as.s, a + 1, &from, &to) ||
        from > to) {
        return jv_int(0);
    }
    jv_string part = {.data = self.as.s->data + from, .len = to - from};
    if (!a[0].as.s->len) return jv_int((int64_t)jutf8_count(part.data, part.len) + 1);
    for (size_t at = 0; (at = jv_find(r, &part, at, a[0].as.s)) != SIZE_MAX; at += a[0].as.s->len) n++;
    return jv_int(n);
}

static bool affix_matches(const jv_string *part, const jv_string *affix, bool at_end)
{
    if (affix->len > part->len) return false;
    return memcmp(part->data + (at_end ? part->len - affix->len : 0), affix->data, affix->len) == 0;
}

/* a[0] is a str or a tuple of them. */
static jv has_affix(jinja_run *r, const jv_string *s, const jv *a, bool at_end)
{
    size_t from, to;
    bool many = a[0].kind == JV_TUPLE, found = false;
    if (!many && a[0].kind != JV_STRING) {
        return jr_error(r, "%s first arg must be str or a tuple of str, not %s",
                        at_end ? "endswith" : "startswith", jv_type(a[0]));
    }
    if (!search_range(r, s, a + 1, &from, &to) || from > to) return jv_bool(false);
    jv_string part = {.data = s->data + from, .len = to - from};
    if (!many) return jv_bool(affix_matches(&part, a[0].as.s, at_end));
    for (size_t i = 0; i < a[0].as.list->n && !found && jr_charge(r, 1); i++) {
        jv affix = a[0].as.list->items[i];
        found = want_string(r, affix, "every item of the tuple") && affix_matches(&part, affix.as.s, at_end);
    }
    return jv_bool(found);
}

static jv str_startswith(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return has_affix(r, self.as.s, a, false);
}

static jv str_endswith(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return has_affix(r, self.as.s, a, true);
}

static jv str_removeprefix(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    if (!want_string(r, a[0], "removeprefix() argument")) return jv_none();
    if (!affix_matches(self.as.s, a[0].as.s, false)) return self;
    return jv_sub(r, self.as.s, a[0].as.s->len, self.as.s->len);
}

static jv str_removesuffix(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    if (!want_string(r, a[0], "removesuffix() argument")) return jv_none();
    if (!affix_matches(self.as.s, a[0].as.s, true)) return self;
    return jv_sub(r, self.as.s, 0, self.as.s->len - a[0].as.s->len);
}

/* --- str: cutting and joining ---------------------------------------------------------------------------------------- */
static jv str_split(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t max;
    if (!arg_int(r, a[1], -1, &max)) return jv_none();
    return jinja_split(r, self.as.s, a[0], max, SPLIT_FROM_LEFT);
}

static jv str_rsplit(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t max;
    if (!arg_int(r, a[1], -1, &max)) return jv_none();
    return jinja_split(r, self.as.s, a[0], max, SPLIT_FROM_RIGHT);
}

static jv str_splitlines(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jinja_splitlines(r, self.as.s, arg_truth(a[0], false));
}

/* (before, separator, after); where it is missing the whole text stays on the side that was searched last. */
static jv partition(jinja_run *r, const jv_string *s, jv by, jinja_split_from side)
{
    if (!want_string(r, by, "the separator")) return jv_none();
    if (!by.as.s->len) return jr_error(r, "empty separator");
    size_t at = side == SPLIT_FROM_LEFT ? jv_find(r, s, 0, by.as.s) : jinja_rfind(r, s, s->len, by.as.s);
    bool left = side == SPLIT_FROM_LEFT, found = at != SIZE_MAX;
    size_t end = found ? at : left ? s->len : 0, start = found ? at + by.as.s->len : left ? s->len : 0;
    jv out = jv_tuple_new(r, 3);
    jv_push(r, out, jv_sub(r, s, 0, end));
    jv_push(r, out, jv_sub(r, s, end, found ? start : end));
    jv_push(r, out, jv_sub(r, s, start, s->len));
    return out;
}

static jv str_partition(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return partition(r, self.as.s, a[0], SPLIT_FROM_LEFT);
}

static jv str_rpartition(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return partition(r, self.as.s, a[0], SPLIT_FROM_RIGHT);
}

static jv str_replace(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t count;
    if (!want_string(r, a[0], "replace() argument 1") || !want_string(r, a[1], "replace() argument 2"))
        return jv_none();
    if (!arg_int(r, a[2], -1, &count)) return jv_none();
    return jinja_replace(r, self.as.s, a[0].as.s, a[1].as.s, count);
}

static jv str_join(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jinja_text t = {0};
    jinja_iter *it = jinja_iter_open(r, a[0]);
    jv item;
    for (size_t i = 0; it && jinja_iter_next(r, it, &item); i++) {
        if (item.kind != JV_STRING) {
            return jr_error(r, "sequence item %zu: expected str instance, %s found", i, jv_type(item));
        }
        if (i) jv_write(r, &t, self);
        jv_write(r, &t, item);
    }
    return text_value(r, &t);
}

static jv str_format(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    return jinja_format_braces(r, self.as.s, raw);
}

/* --- str: predicates --------------------------------------------------------------------------------------------------- */
static bool every(jinja_run *r, const jv_string *s, bool (*holds)(uint32_t cp))
{
    if (!jr_charge(r, s->len / 8)) return false;
    for (size_t i = 0; i < s->len;) {
        uint32_t cp;
        i += jutf8_decode(s->data + i, &cp);
        if (!holds(cp)) return false;
    }
    return s->len > 0;
}

static bool is_alnum(uint32_t cp)
{
    return jutf8_is_alpha(cp) || jutf8_is_numeric(cp);
}

static bool is_ascii(uint32_t cp)
{
    return cp < 0x80;
}

static jv str_isalpha(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(every(r, self.as.s, jutf8_is_alpha));
}

static jv str_isalnum(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(every(r, self.as.s, is_alnum));
}

static jv str_isdigit(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(every(r, self.as.s, jutf8_is_digit));
}

static jv str_isdecimal(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(every(r, self.as.s, jutf8_is_decimal));
}

static jv str_isnumeric(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(every(r, self.as.s, jutf8_is_numeric));
}

static jv str_isspace(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(every(r, self.as.s, jutf8_is_space));
}

static jv str_isprintable(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(!self.as.s->len || every(r, self.as.s, jutf8_is_printable));
}

static jv str_isascii(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(!self.as.s->len || every(r, self.as.s, is_ascii));
}

static jv str_islower(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(jinja_is_lower(r, self.as.s));
}

static jv str_isupper(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_bool(jinja_is_upper(r, self.as.s));
}

/* --- list, tuple, range ------------------------------------------------------------------------------------------------ */
static jv seq_count(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    int64_t n = 0;
    jv item;
    jinja_iter *it = jinja_iter_open(r, self);
    while (it && jinja_iter_next(r, it, &item)) n += jv_equal(r, item, a[0]);
    return jv_int(n);
}

static jv seq_index(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    size_t length = 0;
    int64_t start, end;
    jv item;
    jv_length(self, &length);
    int64_t n = (int64_t)length;
    if (!arg_int(r, a[1], 0, &start) || !arg_int(r, a[2], n, &end)) return jv_none();
    if (start < 0) start = start + n < 0 ? 0 : start + n;
    if (end < 0) end += n;
    jinja_iter *it = jinja_iter_open(r, self);
    for (int64_t i = 0; it && i < end && jinja_iter_next(r, it, &item); i++) {
        if (i >= start && jv_equal(r, item, a[0])) return jv_int(i);
    }
    return jr_error(r, "the item is not in the %s", jv_type(self));
}

static jv list_copy(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return jv_to_list(r, self);
}

/* --- dict ---------------------------------------------------------------------------------------------------------------- */
static jv view_new(jinja_run *r, jv self, jv_view_kind kind)
{
    jv_view *view = jr_alloc(r, 1, sizeof *view);
    if (!view) return jv_none();
    *view = (jv_view){self.as.dict, kind};
    return (jv){.kind = JV_VIEW, .as.view = view};
}

static jv dict_keys(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return view_new(r, self, VIEW_KEYS);
}

static jv dict_values(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return view_new(r, self, VIEW_VALUES);
}

static jv dict_items(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return view_new(r, self, VIEW_ITEMS);
}

static jv dict_get(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    if (!jv_hashable(a[0])) return jr_error(r, "unhashable type: '%s'", jv_type(a[0]));
    const jv *found = jv_dict_get(r, self.as.dict, a[0]);
    return found ? *found : a[1].kind == JV_MISSING ? jv_none() : a[1];
}

static jv dict_copy(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return self; /* dicts do not change, so one is as good as two */
}

/* --- cycler -------------------------------------------------------------------------------------------------------------- */
static jv cycler_next(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    jv_cycler *c = self.as.cycler;
    jv item = c->items->items[c->pos];
    c->pos = (c->pos + 1) % c->items->n;
    return item;
}

static jv cycler_reset(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    self.as.cycler->pos = 0;
    return jv_none();
}

/* --- tables ---------------------------------------------------------------------------------------------------------------- */
static const jinja_builtin str_rows[] = {
    {"upper", "", 0, str_upper},
    {"lower", "", 0, str_lower},
    {"title", "", 0, str_title},
    {"capitalize", "", 0, str_capitalize},
    {"swapcase", "", 0, str_swapcase},
    {"casefold", "", 0, str_lower},
    {"strip", "*", 0, str_strip},
    {"lstrip", "*", 0, str_lstrip},
    {"rstrip", "*", 0, str_rstrip},
    {"ljust", "* *", 1, str_ljust},
    {"rjust", "* *", 1, str_rjust},
    {"center", "* *", 1, str_center},
    {"zfill", "*", 1, str_zfill},
    {"find", "* * *", 1, str_find},
    {"rfind", "* * *", 1, str_rfind},
    {"index", "* * *", 1, str_index},
    {"rindex", "* * *", 1, str_rindex},
    {"count", "* * *", 1, str_count},
    {"startswith", "* * *", 1, str_startswith},
    {"endswith", "* * *", 1, str_endswith},
    {"removeprefix", "*", 1, str_removeprefix},
    {"removesuffix", "*", 1, str_removesuffix},
    {"split", "sep maxsplit", 0, str_split},
    {"rsplit", "sep maxsplit", 0, str_rsplit},
    {"splitlines", "keepends", 0, str_splitlines},
    {"partition", "*", 1, str_partition},
    {"rpartition", "*", 1, str_rpartition},
    {"replace", "* * *", 2, str_replace},
    {"join", "*", 1, str_join},
    {"format", NULL, 0, str_format},
    {"isalpha", "", 0, str_isalpha},
    {"isalnum", "", 0, str_isalnum},
    {"isdigit", "", 0, str_isdigit},
    {"isdecimal", "", 0, str_isdecimal},
    {"isnumeric", "", 0, str_isnumeric},
    {"isspace", "", 0, str_isspace},
    {"isprintable", "", 0, str_isprintable},
    {"isascii", "", 0, str_isascii},
    {"islower", "", 0, str_islower},
    {"isupper", "", 0, str_isupper},
};

static const jinja_builtin list_rows[] = {
    {"count", "*", 1, seq_count},
    {"index", "* * *", 1, seq_index},
    {"copy", "", 0, list_copy},
};

static const jinja_builtin dict_rows[] = {
    {"get", "* *", 1, dict_get},    {"items", "", 0, dict_items}, {"keys", "", 0, dict_keys},
    {"values", "", 0, dict_values}, {"copy", "", 0, dict_copy},
};

static const jinja_builtin cycler_rows[] = {
    {"next", "", 0, cycler_next},
    {"reset", "", 0, cycler_reset},
};

static const char *const list_changers[] = {"append", "clear",  "pop",    "reverse", "insert",
                                            "sort",   "extend", "remove", NULL};
static const char *const dict_changers[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};

static bool is_one_of(jv name, const char *const *names)
{
    for (; *names; names++) {
        if (jv_string_equals(name, *names)) return true;
    }
    return false;
}

/* The special names that every Python object of these types has. */
static bool is_internal(jv name)
{
    const jv_string *s = name.as.s;
    return s->len > 4 && memcmp(s->data, "__", 2) == 0 && memcmp(s->data + s->len - 2, "__", 2) == 0;
}

const jinja_builtin *jinja_method_find(jv object, jv name, bool *unsafe)
{
    static const jinja_table strings = {str_rows, sizeof str_rows / sizeof *str_rows};
    static const jinja_table lists = {list_rows, 3}, tuples = {list_rows, 2};
    static const jinja_table dicts = {dict_rows, sizeof dict_rows / sizeof *dict_rows};
    static const jinja_table cyclers = {cycler_rows, sizeof cycler_rows / sizeof *cycler_rows};
    const jinja_table *table = object.kind == JV_STRING                             ? &strings
                               : object.kind == JV_LIST                             ? &lists
                               : object.kind == JV_TUPLE || object.kind == JV_RANGE ? &tuples
                               : object.kind == JV_DICT                             ? &dicts
                               : object.kind == JV_CYCLER                           ? &cyclers
                                                                                    : NULL;
    *unsafe = (object.kind == JV_LIST && is_one_of(name, list_changers)) ||
              (object.kind == JV_DICT && is_one_of(name, dict_changers)) || is_internal(name);
    if (!table || *unsafe) return NULL;
    return jinja_table_find(table, name.as.s->data, name.as.s->len);
}
