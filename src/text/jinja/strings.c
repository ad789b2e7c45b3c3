/* See strings.h. What they mean is what Python's str methods mean. */
#include "text/jinja/strings.h"
#include "text/jinja/ops.h"
#include "text/jinja/utf8.h"

#include <string.h>

static bool in_set(const jv_string *set, uint32_t cp)
{
    if (!set) return jutf8_is_space(cp);
    for (size_t i = 0; i < set->len;) {
        uint32_t c;
        i += jutf8_decode(set->data + i, &c);
        if (c == cp) return true;
    }
    return false;
}

jv jinja_strip(jinja_run *r, const jv_string *s, jv chars, jinja_strip_sides sides)
{
    uint32_t cp;
    size_t from = 0, to = s->len;
    if (chars.kind != JV_MISSING && chars.kind != JV_NONE && chars.kind != JV_STRING) {
        return jr_error(r, "strip arg must be None or str");
    }
    const jv_string *set = chars.kind == JV_STRING ? chars.as.s : NULL;
    size_t cost = set ? 1 + set->len / 16 : 0;
    while ((sides & STRIP_LEFT) && from < to && jr_charge(r, cost)) {
        size_t n = jutf8_decode(s->data + from, &cp);
        if (!in_set(set, cp)) break;
        from += n;
    }
    while ((sides & STRIP_RIGHT) && to > from && jr_charge(r, cost)) {
        size_t n = jutf8_decode_before(s->data, to, &cp);
        if (!in_set(set, cp)) break;
        to -= n;
    }
    return jv_sub(r, s, from, to);
}

/* "" is found in front of every character and at the end. */
static jv replace_empty(jinja_run *r, const jv_string *s, const jv_string *with, int64_t count)
{
    jinja_text t = {0};
    size_t i = 0;
    uint32_t cp;
    for (int64_t done = 0; (count < 0 || done < count) && jr_charge(r, 1); done++) {
        text_append(r, &t, with->data, with->len);
        if (i >= s->len) break;
        size_t n = jutf8_decode(s->data + i, &cp);
        text_append(r, &t, s->data + i, n);
        i += n;
    }
    text_append(r, &t, s->data + i, s->len - i);
    return text_value(r, &t);
}

jv jinja_replace(jinja_run *r, const jv_string *s, const jv_string *old, const jv_string *with, int64_t count)
{
    if (!old->len) return replace_empty(r, s, with, count);
    jinja_text t = {0};
    size_t from = 0;
    for (int64_t done = 0; (count < 0 || done < count) && jr_charge(r, 1); done++) {
        size_t at = jv_find(r, s, from, old);
        if (at == SIZE_MAX) break;
        text_append(r, &t, s->data + from, at - from);
        text_append(r, &t, with->data, with->len);
        from = at + old->len;
    }
    if (from == 0 && !jr_failed(r)) return jv_sub(r, s, 0, s->len);
    text_append(r, &t, s->data + from, s->len - from);
    return text_value(r, &t);
}

size_t jinja_rfind(jinja_run *r, const jv_string *s, size_t end, const jv_string *needle)
{
    size_t n = needle->len;
    if (n > end || !jr_charge(r, 1 + end / 64)) return SIZE_MAX;
    size_t seen = 0;
    for (size_t at = end - n + 1; at-- > 0;) {
        if (n && s->data[at] != needle->data[0]) continue;
        if (!jr_charge(r, n / 256 + (++seen % 4 == 0))) return SIZE_MAX;
        if (n == 0 || memcmp(s->data + at, needle->data, n) == 0) return at;
    }
    return SIZE_MAX;
}

static void reverse(jv list)
{
    if (list.kind != JV_LIST) return;
    for (size_t i = 0, j = list.as.list->n; i + 1 < j; i++) {
        jv swap = list.as.list->items[i];
        list.as.list->items[i] = list.as.list->items[--j];
        list.as.list->items[j] = swap;
    }
}

static jv split_on(jinja_run *r, const jv_string *s, const jv_string *by, int64_t max)
{
    jv list = jv_list_new(r, 0);
    size_t from = 0;
    for (int64_t done = 0; (max < 0 || done < max) && !jr_failed(r); done++) {
        size_t at = jv_find(r, s, from, by);
        if (at == SIZE_MAX) break;
        jv_push(r, list, jv_sub(r, s, from, at));
        from = at + by->len;
    }
    jv_push(r, list, jv_sub(r, s, from, s->len));
    return list;
}

static jv split_on_from_right(jinja_run *r, const jv_string *s, const jv_string *by, int64_t max)
{
    jv list = jv_list_new(r, 0);
    size_t to = s->len;
    for (int64_t done = 0; (max < 0 || done < max) && !jr_failed(r); done++) {
        size_t at = jinja_rfind(r, s, to, by);
        if (at == SIZE_MAX) break;
        jv_push(r, list, jv_sub(r, s, at + by->len, to));
        to = at;
    }
    jv_push(r, list, jv_sub(r, s, 0, to));
    reverse(list);
    return list;
}

static size_t skip_while(const jv_string *s, size_t i, bool space)
{
    uint32_t cp;
    while (i < s->len) {
        size_t n = jutf8_decode(s->data + i, &cp);
        if (jutf8_is_space(cp) != space) break;
        i += n;
    }
    return i;
}

/* On runs of white space; the last part keeps its inner space, and its trailing one when max was met. */
static jv split_on_space(jinja_run *r, const jv_string *s, int64_t max)
{
    jv list = jv_list_new(r, 0);
    jr_charge(r, s->len / 16);
    size_t i = skip_while(s, 0, true);
    for (int64_t done = 0; i < s->len && !jr_failed(r); done++) {
        size_t end = max >= 0 && done >= max ? s->len : skip_while(s, i, false);
        jv_push(r, list, jv_sub(r, s, i, end));
        i = skip_while(s, end, true);
    }
    return list;
}

static size_t skip_back_while(const jv_string *s, size_t i, bool space)
{
    uint32_t cp;
    while (i > 0) {
        size_t n = jutf8_decode_before(s->data, i, &cp);
        if (jutf8_is_space(cp) != space) break;
        i -= n;
    }
    return i;
}

static jv split_on_space_from_right(jinja_run *r, const jv_string *s, int64_t max)
{
    jv list = jv_list_new(r, 0);
    jr_charge(r, s->len / 16);
    size_t i = skip_back_while(s, s->len, true);
    for (int64_t done = 0; i > 0 && !jr_failed(r); done++) {
        size_t start = max >= 0 && done >= max ? 0 : skip_back_while(s, i, false);
        jv_push(r, list, jv_sub(r, s, start, i));
        i = skip_back_while(s, start, true);
    }
    reverse(list);
    return list;
}

jv jinja_split(jinja_run *r, const jv_string *s, jv separator, int64_t max, jinja_split_from from)
{
    if (!jr_charge(r, s->len / 256)) return jv_none();
    if (separator.kind == JV_MISSING || separator.kind == JV_NONE) {
        return from == SPLIT_FROM_LEFT ? split_on_space(r, s, max) : split_on_space_from_right(r, s, max);
    }
    if (separator.kind != JV_STRING) return jr_error(r, "must be str or None, not %s", jv_type(separator));
    if (!separator.as.s->len) return jr_error(r, "empty separator");
    return from == SPLIT_FROM_LEFT ? split_on(r, s, separator.as.s, max)
                                   : split_on_from_right(r, s, separator.as.s, max);
}

jv jinja_splitlines(jinja_run *r, const jv_string *s, bool keep_ends)
{
    jv list = jv_list_new(r, 0);
    jr_charge(r, s->len / 16);
    for (size_t i = 0, start = 0; i < s->len && !jr_failed(r);) {
        uint32_t cp;
        size_t n = jutf8_decode(s->data + i, &cp);
        size_t end = i;
        i += n;
        if (cp == '\r' && i < s->len && s->data[i] == '\n') i++;
        if (!jutf8_is_line_break(cp)) {
            if (i < s->len) continue;
            end = i;
        }
        jv_push(r, list, jv_sub(r, s, start, keep_ends ? i : end));
        start = i;
    }
    return list;
}

static void put_fill(jinja_run *r, jinja_text *t, size_t count, const char *fill, size_t fill_len)
{
    for (size_t i = 0; i < count && !jr_failed(r); i++) text_append(r, t, fill, fill_len);
}

jv jinja_pad(jinja_run *r, const jv_string *s, size_t left, size_t right, const char *fill, size_t fill_len)
{
    jinja_text t = {0};
    put_fill(r, &t, left, fill, fill_len);
    text_append(r, &t, s->data, s->len);
    put_fill(r, &t, right, fill, fill_len);
    return text_value(r, &t);
}

jv jinja_center(jinja_run *r, const jv_string *s, int64_t width, const char *fill, size_t fill_len)
{
    if (width <= (int64_t)s->chars) return jv_sub(r, s, 0, s->len);
    size_t pad = (size_t)width - s->chars, left = pad / 2 + (pad & (size_t)width & 1);
    return jinja_pad(r, s, left, pad - left, fill, fill_len);
}

static bool all_cased(jinja_run *r, const jv_string *s, bool lower)
{
    bool any = false;
    if (!jr_charge(r, s->len / 8)) return false;
    for (size_t i = 0; i < s->len;) {
        uint32_t cp;
        i += jutf8_decode(s->data + i, &cp);
        if (jutf8_is_title(cp) || (lower ? jutf8_is_upper(cp) : jutf8_is_lower(cp))) return false;
        any = any || (lower ? jutf8_is_lower(cp) : jutf8_is_upper(cp));
    }
    return any;
}

bool jinja_is_lower(jinja_run *r, const jv_string *s)
{
    return all_cased(r, s, true);
}

bool jinja_is_upper(jinja_run *r, const jv_string *s)
{
    return all_cased(r, s, false);
}
