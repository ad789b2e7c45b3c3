/* Growable byte buffer; see buffer.h. */
#include "base/buffer.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool buffer_reserve(buffer *b, size_t extra)
{
    if (b->failed) return false;
    if (extra > SIZE_MAX / 4 || b->len > SIZE_MAX / 4) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + extra + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap * 2 : 64;
    if (cap < need) cap = need;
    char *data = realloc(b->data, cap);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void buffer_append(buffer *b, const void *bytes, size_t len)
{
    if (!buffer_reserve(b, len)) return;
    if (len) memcpy(b->data + b->len, bytes, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buffer_puts(buffer *b, const char *text)
{
    buffer_append(b, text, strlen(text));
}

void buffer_putc(buffer *b, char c)
{
    buffer_append(b, &c, 1);
}

void buffer_printf(buffer *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len >= 0 && buffer_reserve(b, (size_t)len)) {
        vsnprintf(b->data + b->len, (size_t)len + 1, format, again);
        b->len += (size_t)len;
    } else {
        b->failed = true;
    }
    va_end(again);
}

void buffer_clear(buffer *b)
{
    b->len = 0;
    if (b->data) b->data[0] = '\0';
}

char *buffer_take(buffer *b)
{
    if (!buffer_reserve(b, 0)) {
        buffer_free(b);
        return NULL;
    }
    char *text = b->data;
    text[b->len] = '\0';
    *b = (buffer){0};
    return text;
}

void buffer_free(buffer *b)
{
    free(b->data);
    *b = (buffer){0};
}
