/* The state of a render: memory, limits, the first error; and text that grows in the arena. */
#include "text/jinja/value.h"
#include "text/jinja/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

jv jr_fail(jinja_run *r, nvllm_status code, const char *format, ...)
{
    if (r->status == NVLLM_OK) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(r->message, sizeof r->message, format, ap);
        va_end(ap);
        r->status = code;
    }
    return jv_none();
}

jv jr_error(jinja_run *r, const char *format, ...)
{
    if (r->status == NVLLM_OK) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(r->message, sizeof r->message, format, ap);
        va_end(ap);
        r->status = NVLLM_ERR_TEMPLATE;
    }
    return jv_none();
}

void *jr_alloc(jinja_run *r, size_t count, size_t size)
{
    if (jr_failed(r)) return NULL;
    /* Fresh memory is cleared: charge it, so that large values cost steps as well. */
    if (size && count <= SIZE_MAX / size && !jr_charge(r, count * size / 256)) return NULL;
    void *p = arena_calloc(&r->memory, count, size);
    if (!p) jr_fail(r, NVLLM_ERR_LIMIT, "the values need more than %zu bytes", r->memory.limit);
    return p;
}

bool jr_charge(jinja_run *r, size_t steps)
{
    if (jr_failed(r)) return false;
    if (steps > r->max_steps - r->steps) {
        jr_fail(r, NVLLM_ERR_LIMIT, "more than %zu steps", r->max_steps);
        return false;
    }
    r->steps += steps;
    return true;
}

bool jr_enter(jinja_run *r)
{
    r->depth++;
    if (jr_failed(r)) return false;
    if (r->depth <= r->max_depth) return true;
    jr_fail(r, NVLLM_ERR_LIMIT, "nested more than %zu levels deep", r->max_depth);
    return false;
}

void jr_leave(jinja_run *r)
{
    r->depth--;
}

void text_append(jinja_run *r, jinja_text *t, const char *bytes, size_t len)
{
    if (jr_failed(r) || len == 0) return;
    if (len > r->max_output - t->len) {
        jr_fail(r, NVLLM_ERR_LIMIT, "a text of more than %zu bytes", r->max_output);
        return;
    }
    if (t->len + len > t->cap) {
        size_t cap = t->cap < 64 ? 128 : t->cap * 2;
        if (cap < t->len + len) cap = t->len + len;
        char *data = jr_alloc(r, cap, 1);
        if (!data) return;
        if (t->len) memcpy(data, t->data, t->len);
        t->data = data;
        t->cap = cap;
    }
    memcpy(t->data + t->len, bytes, len);
    t->len += len;
}

void text_puts(jinja_run *r, jinja_text *t, const char *s)
{
    text_append(r, t, s, strlen(s));
}

void text_putcp(jinja_run *r, jinja_text *t, uint32_t cp)
{
    char bytes[4];
    text_append(r, t, bytes, utf8_encode(cp, bytes));
}

jv text_value(jinja_run *r, const jinja_text *t)
{
    return jv_borrow(r, t->data ? t->data : "", t->len);
}
