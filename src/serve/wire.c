/* Growing buffer and JSON text; see wire.h. */
#include "serve/wire.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(wire *w, size_t more)
{
    if (w->failed) return false;
    if (more <= w->capacity - w->len) return true;
    size_t capacity = w->capacity ? w->capacity : 256;
    while (capacity - w->len < more && capacity <= SIZE_MAX / 2) capacity *= 2;
    char *data = capacity - w->len < more ? NULL : realloc(w->data, capacity);
    if (!data) {
        w->failed = true;
        return false;
    }
    w->data = data;
    w->capacity = capacity;
    return true;
}

void wire_bytes(wire *w, const void *data, size_t len)
{
    if (len == 0 || !reserve(w, len)) return;
    memcpy(w->data + w->len, data, len);
    w->len += len;
}

void wire_text(wire *w, const char *text)
{
    wire_bytes(w, text, strlen(text));
}

void wire_append(wire *w, const wire *from)
{
    if (from->failed) w->failed = true;
    wire_bytes(w, from->data, from->len);
}

void wire_integer(wire *w, int64_t value)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)value);
    wire_text(w, digits);
}

void wire_real(wire *w, double value)
{
    char digits[40];
    if (!isfinite(value)) {
        wire_text(w, "null");
        return;
    }
    snprintf(digits, sizeof digits, "%.9g", value);
    wire_text(w, digits);
}

void wire_bool(wire *w, bool value)
{
    wire_text(w, value ? "true" : "false");
}

size_t wire_character(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    if (len == 0) return 0;
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xC2 && s[0] <= 0xDF   ? 2
               : (s[0] & 0xF0) == 0xE0        ? 3
               : s[0] >= 0xF0 && s[0] <= 0xF4 ? 4
                                              : 0;
    if (n == 0 || n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    /* Overlong forms, surrogates, beyond U+10FFFF: Unicode 15, table 3-7. */
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)) return 0;
    if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
    return n;
}

static void escape(wire *w, unsigned char c)
{
    static const char letters[] = "btn?fr"; /* 8..13; 11 has none */
    char code[8];
    if (c == '"' || c == '\\')
        snprintf(code, sizeof code, "\\%c", c);
    else if (c >= 8 && c <= 13 && c != 11)
        snprintf(code, sizeof code, "\\%c", letters[c - 8]);
    else
        snprintf(code, sizeof code, "\\u%04x", c);
    wire_text(w, code);
}

void wire_json_string(wire *w, const char *text, size_t len)
{
    size_t plain = 0; /* start of the run that needs no change */
    wire_bytes(w, "\"", 1);
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = wire_character(text + i, len - i);
        bool change = n == 0 || c < 0x20 || c == '"' || c == '\\' || c == 0x7F;
        if (change) {
            wire_bytes(w, text + plain, i - plain);
            if (n == 0)
                wire_text(w, "\xEF\xBF\xBD");
            else
                escape(w, c);
        }
        i += n ? n : 1;
        if (change) plain = i;
    }
    wire_bytes(w, text + plain, len - plain);
    wire_bytes(w, "\"", 1);
}

void wire_consume(wire *w, size_t len)
{
    if (len > w->len) len = w->len;
    if (len && len < w->len) memmove(w->data, w->data + len, w->len - len);
    w->len -= len;
}

void wire_clear(wire *w)
{
    w->len = 0;
}

void wire_free(wire *w)
{
    free(w->data);
    *w = (wire){0};
}
