/* Named functions of the environment: filters, tests, globals and methods, as rows of const tables. */
#ifndef NVLLM_TEXT_JINJA_BUILTIN_H
#define NVLLM_TEXT_JINJA_BUILTIN_H

#include "text/jinja/filters.h"

#define BUILTIN_MAX_PARAMETERS 6u

/* `params` names the parameters behind self, with spaces between; "*" is one that only a position can give.
 * NULL: any arguments, which the function reads from `raw`. The first `required` must be given; others are
 * JV_MISSING when they are not. */
struct jinja_builtin {
    const char *name;
    const char *params;
    size_t required;
    jv (*call)(jinja_run *r, jv self, const jv *a, const jv_args *raw);
};

struct jinja_function {
    const jinja_builtin *builtin;
};

struct jinja_method {
    jv self;
    const jinja_builtin *builtin;
};

typedef struct {
    const jinja_builtin *rows;
    size_t n;
} jinja_table;

const jinja_builtin *jinja_table_find(const jinja_table *table, const char *name, size_t len);

/* Binds the arguments and calls. */
jv jinja_builtin_call(jinja_run *r, const jinja_builtin *b, jv self, const jv_args *args);

/* Calls a filter or test by name, as `map("upper")` does. */
jv jinja_filter_apply(jinja_run *r, jv name, jv value, const jv_args *args);
bool jinja_test_apply(jinja_run *r, jv name, jv value, const jv_args *args);

/* A method of a built-in type, or NULL; *unsafe is set for one that the sandbox forbids. */
const jinja_builtin *jinja_method_find(jv object, jv name, bool *unsafe);
jv jinja_loop_attribute(jinja_run *r, jinja_loop *loop, jv name); /* JV_MISSING: it has none of that name */

jv jinja_macro_name(const jinja_macro *macro); /* None for the body of a call block */

/* A global by name, or JV_MISSING. */
jv jinja_global(jv name);

/* Calls any value (call.c). */
jv jinja_call(jinja_run *r, jv callee, const jv_args *args);

/* A stable sort: positions of keys[n] in order; NULL: failed (seq.c). */
typedef enum { SORT_ASCENDING, SORT_DESCENDING } jinja_sort_order;
size_t *jinja_sort(jinja_run *r, const jv *keys, size_t n, jinja_sort_order order);

/* Arguments with defaults. */
bool arg_truth(jv v, bool usual);
bool arg_int(jinja_run *r, jv v, int64_t usual, int64_t *out); /* None counts as not given; false: failed */

#endif
