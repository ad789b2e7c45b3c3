/* Growable byte buffer for text that is built piece by piece.
 *
 * `data` is always NUL-terminated once anything was appended (or NULL when empty and untouched).
 * A failed allocation sets `failed` and later appends do nothing, so a writer checks once, at its end. */
#ifndef NVLLM_BASE_BUFFER_H
#define NVLLM_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *data;
    size_t len, cap;
    bool failed;
} buffer;

/* Zero initialisation `buffer b = {0}` is a valid, empty buffer. */
bool buffer_reserve(buffer *b, size_t extra); /* room for `extra` more bytes and the NUL */
void buffer_append(buffer *b, const void *bytes, size_t len);
void buffer_puts(buffer *b, const char *text);
void buffer_putc(buffer *b, char c);
void buffer_printf(buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_clear(buffer *b); /* len = 0, memory kept */
char *buffer_take(buffer *b); /* the NUL-terminated text, now the caller's (free); NULL when failed */
void buffer_free(buffer *b);

#endif
