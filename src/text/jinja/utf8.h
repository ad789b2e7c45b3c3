/* UTF-8 inside the Jinja engine. Every string in it is valid UTF-8 (sources are checked by jinja_compile,
 * contexts by jansson), so these helpers, unlike those of text/utf8.h, do not look for errors. */
#ifndef NVLLM_TEXT_JINJA_UTF8_H
#define NVLLM_TEXT_JINJA_UTF8_H

#include "text/utf8.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes the code point at s (valid, not at its end); returns its length in bytes. */
static inline size_t jutf8_decode(const char *s, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80) return *cp = u[0], 1;
    if (u[0] < 0xE0) return *cp = (u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu), 2;
    if (u[0] < 0xF0) return *cp = (u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu), 3;
    *cp = (u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu);
    return 4;
}

/* The code point that ends at s + end (end > 0); returns its length in bytes. */
static inline size_t jutf8_decode_before(const char *s, size_t end, uint32_t *cp)
{
    size_t i = end - 1;
    while (((unsigned char)s[i] & 0xC0) == 0x80) i--;
    return jutf8_decode(s + i, cp);
}

size_t jutf8_count(const char *s, size_t len); /* code points */

/* Byte offset of code point `index` (index <= number of code points). */
size_t jutf8_offset(const char *s, size_t len, size_t index);

/* Python's str predicates. */
bool jutf8_is_space(uint32_t cp);
bool jutf8_is_line_break(uint32_t cp);
bool jutf8_is_printable(uint32_t cp);
bool jutf8_is_word(uint32_t cp); /* \w of Python's re */
bool jutf8_is_alpha(uint32_t cp);
bool jutf8_is_decimal(uint32_t cp);
bool jutf8_is_digit(uint32_t cp);
bool jutf8_is_numeric(uint32_t cp);
bool jutf8_is_upper(uint32_t cp);
bool jutf8_is_lower(uint32_t cp);
bool jutf8_is_title(uint32_t cp);

#endif
