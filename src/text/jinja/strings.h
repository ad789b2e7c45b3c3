/* Operations on strings that filters and methods share (strings.c). Positions are in bytes. */
#ifndef NVLLM_TEXT_JINJA_STRINGS_H
#define NVLLM_TEXT_JINJA_STRINGS_H

#include "text/jinja/builtin.h"

typedef enum { STRIP_LEFT = 1, STRIP_RIGHT = 2, STRIP_BOTH = 3 } jinja_strip_sides;
typedef enum { SPLIT_FROM_LEFT, SPLIT_FROM_RIGHT } jinja_split_from;

jv jinja_strip(jinja_run *r, const jv_string *s, jv chars, jinja_strip_sides sides);
jv jinja_replace(jinja_run *r, const jv_string *s, const jv_string *old, const jv_string *with,
                 int64_t count);
jv jinja_split(jinja_run *r, const jv_string *s, jv separator, int64_t max, jinja_split_from from);
jv jinja_splitlines(jinja_run *r, const jv_string *s, bool keep_ends);
jv jinja_pad(jinja_run *r, const jv_string *s, size_t left, size_t right, const char *fill, size_t fill_len);
jv jinja_center(jinja_run *r, const jv_string *s, int64_t width, const char *fill, size_t fill_len);
size_t jinja_rfind(jinja_run *r, const jv_string *s, size_t end,
                   const jv_string *needle); /* SIZE_MAX: none */
bool jinja_is_lower(jinja_run *r, const jv_string *s);
bool jinja_is_upper(jinja_run *r, const jv_string *s);

#endif
