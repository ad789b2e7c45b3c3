/* Filters, tests, globals and methods: tables of named functions, and how they are called. */
#ifndef NVLLM_TEXT_JINJA_FILTERS_H
#define NVLLM_TEXT_JINJA_FILTERS_H

#include "text/jinja/value.h"

typedef struct jinja_builtin jinja_builtin;

const jinja_builtin *jinja_filter_find(const char *name, size_t len); /* NULL: unknown */
const jinja_builtin *jinja_test_find(const char *name, size_t len);

#endif
