/* Operators on values, with Python's meaning. */
#ifndef NVLLM_TEXT_JINJA_OPS_H
#define NVLLM_TEXT_JINJA_OPS_H

#include "text/jinja/ast.h"

jv jv_binary(jinja_run *r, jinja_binary op, jv a, jv b);
jv jv_negate(jinja_run *r, jv v);
jv jv_positive(jinja_run *r, jv v);
bool jv_contains(jinja_run *r, jv container, jv item);
bool jv_compare(jinja_run *r, jinja_compare op, jv a, jv b);

/* Byte offset of `needle` in s[from, len), or SIZE_MAX. */
size_t jv_find(jinja_run *r, const jv_string *s, size_t from, const jv_string *needle);

/* "%d" % values (format.c), and str.format. */
jv jinja_format_percent(jinja_run *r, const jv_string *format, jv values);
jv jinja_format_braces(jinja_run *r, const jv_string *format, const jv_args *args);

/* Attributes and items, as the sandbox allows them (access.c). */
jv jv_get_attribute(jinja_run *r, jv object, jv name);            /* object.name */
jv jv_get_item(jinja_run *r, jv object, jv key);                  /* object[key] */
jv jv_slice(jinja_run *r, jv object, jv start, jv stop, jv step); /* None: left out */
jv jv_get_path(jinja_run *r, jv object, jv path); /* the `attribute` of filters: "a.b.0", an int, or None */

#endif
