/* Upper, lower, title case as Python's str methods: utf8proc's simple mappings, Unicode's special ones that make
 * one character into several, and the final sigma. */
#include "text/jinja/case_table.h"
#include "text/jinja/utf8.h"
#include "text/jinja/value.h"

#include <utf8proc.h>

static const jinja_special_case *special(uint32_t cp)
{
    size_t low = 0, high = sizeof special_cases / sizeof *special_cases;
    if (cp < special_cases[0].cp) return NULL;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (special_cases[middle].cp == cp) return &special_cases[middle];
        if (special_cases[middle].cp < cp) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static void put_all(jinja_run *r, jinja_text *t, const uint32_t *points)
{
    for (size_t i = 0; i < 3 && points[i]; i++) text_putcp(r, t, points[i]);
}

static void put_upper(jinja_run *r, jinja_text *t, uint32_t cp)
{
    const jinja_special_case *s = special(cp);
    if (s) {
        put_all(r, t, s->upper);
    } else {
        text_putcp(r, t, (uint32_t)utf8proc_toupper((utf8proc_int32_t)cp));
    }
}

static void put_title(jinja_run *r, jinja_text *t, uint32_t cp)
{
    const jinja_special_case *s = special(cp);
    if (s) {
        put_all(r, t, s->title);
    } else {
        text_putcp(r, t, (uint32_t)utf8proc_totitle((utf8proc_int32_t)cp));
    }
}

static bool is_cased(uint32_t cp)
{
    return jutf8_is_upper(cp) || jutf8_is_lower(cp) || jutf8_is_title(cp);
}

static bool is_case_ignorable(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return cp == '\'' || cp == '.' || cp == ':' || cp == 0xB7 || cp == 0x2019;
    }
}

/* A capital sigma is final behind a cased letter and not in front of one. */
static bool is_final_sigma(const jv_string *s, size_t at)
{
    uint32_t cp = 0;
    size_t i = at;
    do {
        if (i == 0) return false;
        i -= jutf8_decode_before(s->data, i, &cp);
    } while (is_case_ignorable(cp));
    if (!is_cased(cp)) return false;
    for (i = at + 2; i < s->len;) {
        i += jutf8_decode(s->data + i, &cp);
        if (!is_case_ignorable(cp)) return !is_cased(cp);
    }
    return true;
}

/* The code point at byte `at`, in lower case. */
static void put_lower(jinja_run *r, jinja_text *t, const jv_string *s, size_t at, uint32_t cp)
{
    if (cp == 0x3A3) {
        text_putcp(r, t, is_final_sigma(s, at) ? 0x3C2 : 0x3C3);
    } else if (cp == 0x130) {
        text_putcp(r, t, 'i');
        text_putcp(r, t, 0x307);
    } else {
        text_putcp(r, t, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
    }
}

/* Changes the letters first..first+25 by `offset`; for strings of ASCII only. */
static jv shift_ascii(jinja_run *r, const jv_string *s, char first, int offset)
{
    char *out = jr_alloc(r, s->len + 1, 1);
    if (!out || !jr_charge(r, s->len / 32)) return jv_none();
    for (size_t i = 0; i < s->len; i++) {
        bool letter = s->data[i] >= first && s->data[i] <= first + 25;
        out[i] = (char)(s->data[i] + (letter ? offset : 0));
    }
    return jv_borrow(r, out, s->len);
}

/* What the loops below over single characters cost. */
static bool charge_characters(jinja_run *r, const jv_string *s)
{
    return jr_charge(r, s->chars / 2);
}

jv jv_upper(jinja_run *r, const jv_string *s)
{
    if (s->chars == s->len) return shift_ascii(r, s, 'a', 'A' - 'a');
    if (!charge_characters(r, s)) return jv_none();
    jinja_text t = {0};
    uint32_t cp;
    for (size_t i = 0; i < s->len && !jr_failed(r);) {
        i += jutf8_decode(s->data + i, &cp);
        put_upper(r, &t, cp);
    }
    return text_value(r, &t);
}

jv jv_lower(jinja_run *r, const jv_string *s)
{
    if (s->chars == s->len) return shift_ascii(r, s, 'A', 'a' - 'A');
    if (!charge_characters(r, s)) return jv_none();
    jinja_text t = {0};
    uint32_t cp;
    for (size_t i = 0; i < s->len && !jr_failed(r);) {
        size_t n = jutf8_decode(s->data + i, &cp);
        put_lower(r, &t, s, i, cp);
        i += n;
    }
    return text_value(r, &t);
}

/* A letter is in title case where no cased letter is in front of it. */
jv jv_title(jinja_run *r, const jv_string *s)
{
    if (!charge_characters(r, s)) return jv_none();
    jinja_text t = {0};
    bool inside = false;
    uint32_t cp;
    for (size_t i = 0; i < s->len && !jr_failed(r);) {
        size_t n = jutf8_decode(s->data + i, &cp);
        if (inside) put_lower(r, &t, s, i, cp);
        if (!inside) put_title(r, &t, cp);
        inside = is_cased(cp);
        i += n;
    }
    return text_value(r, &t);
}

jv jv_capitalize(jinja_run *r, const jv_string *s)
{
    if (!charge_characters(r, s)) return jv_none();
    jinja_text t = {0};
    uint32_t cp;
    for (size_t i = 0; i < s->len && !jr_failed(r);) {
        size_t n = jutf8_decode(s->data + i, &cp);
        if (i) put_lower(r, &t, s, i, cp);
        if (!i) put_title(r, &t, cp);
        i += n;
    }
    return text_value(r, &t);
}

jv jv_swapcase(jinja_run *r, const jv_string *s)
{
    if (!charge_characters(r, s)) return jv_none();
    jinja_text t = {0};
    uint32_t cp;
    for (size_t i = 0; i < s->len && !jr_failed(r);) {
        size_t n = jutf8_decode(s->data + i, &cp);
        if (jutf8_is_upper(cp)) {
            put_lower(r, &t, s, i, cp);
        } else if (jutf8_is_lower(cp)) {
            put_upper(r, &t, cp);
        } else {
            text_putcp(r, &t, cp);
        }
        i += n;
    }
    return text_value(r, &t);
}
