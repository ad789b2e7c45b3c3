/* Values of a render, and the render's own state (memory, limits, first error).
 *
 * A jv is 16 bytes and passed by value; what it points to lives in the render's arena, in the compiled
 * template or in the caller's JSON, and is never freed singly. Lists and dicts do not change once they can be
 * seen by a template (the sandbox is immutable); only namespaces and iterators do.
 *
 * Errors are sticky: the first jr_fail of a render wins, and every function here may then return any value,
 * typically None. Callers test jr_failed where going on would cost time or loop. */
#ifndef NVLLM_TEXT_JINJA_VALUE_H
#define NVLLM_TEXT_JINJA_VALUE_H

#include "base/arena.h"
#include "text/jinja.h"

#include <stdint.h>

typedef enum {
    JV_MISSING, /* an argument that was not given; never seen by a template */
    JV_UNDEFINED,
    JV_NONE,
    JV_BOOL,
    JV_INT,
    JV_FLOAT,
    JV_STRING,
    JV_LIST,
    JV_TUPLE,
    JV_DICT,
    JV_RANGE,
    JV_VIEW, /* dict.keys(), .values(), .items() */
    JV_ITER, /* a generator: iterated once, lazily */
    JV_NAMESPACE,
    JV_MACRO,
    JV_LOOP,
    JV_FUNCTION, /* a global of the environment */
    JV_METHOD,   /* a built-in method bound to a value */
    JV_CYCLER,
    JV_JOINER
} jv_kind;

typedef struct jv jv;

typedef struct {
    const char *data; /* valid UTF-8, not NUL-terminated */
    size_t len;       /* bytes */
    size_t chars;     /* code points; == len means ASCII */
    bool markup;      /* came from |safe or |escape: `+` escapes the other side */
} jv_string;

typedef struct {
    const char *hint; /* the whole message, or NULL */
    const char *type; /* Python's object_type_repr of what lacked it; NULL: a plain name */
    const jv *name;
} jv_undefined;

typedef struct {
    jv *items;
    size_t n, cap;
} jv_list;

typedef struct {
    jv *keys, *values; /* [n] in order of insertion */
    uint32_t *index;   /* [slots] position + 1, 0 empty; NULL while n is small */
    size_t n, cap, slots;
} jv_dict;

typedef struct {
    int64_t start, stop, step;
    size_t n;
} jv_range;

typedef enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } jv_view_kind;

typedef struct {
    const jv_dict *dict;
    jv_view_kind kind;
} jv_view;

typedef struct jinja_iter jinja_iter;
typedef struct jinja_macro jinja_macro;
typedef struct jinja_loop jinja_loop;
typedef struct jinja_method jinja_method;
typedef struct jinja_function jinja_function;

typedef struct {
    jv_list *items;
    size_t pos;
} jv_cycler;

typedef struct {
    const jv_string *separator;
    bool used;
} jv_joiner;

struct jv {
    jv_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        const jv_string *s;
        const jv_undefined *undefined;
        jv_list *list; /* JV_LIST, JV_TUPLE */
        jv_dict *dict; /* JV_DICT, JV_NAMESPACE */
        const jv_range *range;
        const jv_view *view;
        jinja_iter *iter;
        const jinja_macro *macro;
        jinja_loop *loop;
        const jinja_function *function;
        const jinja_method *method;
        jv_cycler *cycler;
        jv_joiner *joiner;
    } as;
};

/* Positional and keyword arguments of one call. */
typedef struct {
    const jv_string *name;
    jv value;
} jv_keyword;

typedef struct {
    const jv *pos;
    size_t n;
    const jv_keyword *kw;
    size_t n_kw;
} jv_args;

/* One render. */
typedef struct {
    arena memory;
    nvllm_status status;
    char message[480];
    int line; /* of the statement or expression being evaluated */
    size_t steps, max_steps;
    size_t depth, max_depth;
    size_t max_output;
    const jv_dict *context; /* the caller's variables */
    bool has_now;
    struct tm now;
} jinja_run;

/* Text that grows inside the arena; appending after a failure does nothing. */
typedef struct {
    char *data;
    size_t len, cap;
} jinja_text;

/* --- the render's state ------------------------------------------------------------------------------- */
jv jr_fail(jinja_run *r, nvllm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
jv jr_error(jinja_run *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));               /* NVLLM_ERR_TEMPLATE */
void *jr_alloc(jinja_run *r, size_t count, size_t size); /* NULL: failed with NVLLM_ERR_LIMIT */
bool jr_charge(jinja_run *r, size_t steps);              /* false: out of steps, or failed before */
bool jr_enter(jinja_run *r); /* one level deeper; false: too deep (still call jr_leave) */
void jr_leave(jinja_run *r);
static inline bool jr_failed(const jinja_run *r)
{
    return r->status != NVLLM_OK;
}

void text_append(jinja_run *r, jinja_text *t, const char *bytes, size_t len);
void text_puts(jinja_run *r, jinja_text *t, const char *s);
void text_putcp(jinja_run *r, jinja_text *t, uint32_t cp);
jv text_value(jinja_run *r, const jinja_text *t); /* a string that shares the text's bytes */

/* --- making values ------------------------------------------------------------------------------------ */
static inline jv jv_none(void)
{
    return (jv){.kind = JV_NONE};
}
static inline jv jv_missing(void)
{
    return (jv){.kind = JV_MISSING};
}
static inline jv jv_bool(bool b)
{
    return (jv){.kind = JV_BOOL, .as.b = b};
}
static inline jv jv_int(int64_t i)
{
    return (jv){.kind = JV_INT, .as.i = i};
}
static inline jv jv_float(double f)
{
    return (jv){.kind = JV_FLOAT, .as.f = f};
}
static inline jv jv_of_string(const jv_string *s)
{
    return (jv){.kind = JV_STRING, .as.s = s};
}
jv jv_borrow(jinja_run *r, const char *data, size_t len); /* a string over bytes that outlive the render */
jv jv_copy(jinja_run *r, const char *data, size_t len);
jv jv_literal(jinja_run *r, const char *s);                          /* a C string constant */
jv jv_sub(jinja_run *r, const jv_string *s, size_t from, size_t to); /* bytes [from, to) of s, shared */
jv jv_undefined_name(jinja_run *r, jv name);                         /* "'x' is undefined" */
jv jv_undefined_attr(jinja_run *r, jv object, jv name); /* "'dict object' has no attribute 'x'" */
jv jv_undefined_hint(jinja_run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
jv jv_fail_undefined(jinja_run *r, jv undefined); /* raises its message */
typedef enum { JSON_STRINGS_BORROWED, JSON_STRINGS_COPIED } jv_json_strings;
jv jv_from_json(jinja_run *r, const json_t *json, jv_json_strings strings);

jv jv_list_new(jinja_run *r, size_t cap); /* kind None when out of memory */
jv jv_tuple_new(jinja_run *r, size_t cap);
void jv_push(jinja_run *r, jv list, jv item);
jv jv_pair(jinja_run *r, jv a, jv b); /* a tuple */
jv jv_dict_new(jinja_run *r);
void jv_dict_set(jinja_run *r, jv_dict *d, jv key, jv value);
const jv *jv_dict_get(jinja_run *r, const jv_dict *d, jv key); /* NULL: absent, or key is unhashable */
const jv *jv_dict_find(jinja_run *r, const jv_dict *d, const char *key, size_t len);

/* --- asking values ------------------------------------------------------------------------------------ */
const char *jv_type(jv v);        /* Python's name of the type: "int", "NoneType" */
const char *jv_object_type(jv v); /* "dict object", "None": for messages about attributes */
bool jv_hashable(jv v);           /* tuples nested more than 32 deep are not */
bool jv_truth(jv v);
bool jv_is_number(jv v);                /* int, float, bool */
bool jv_is_integer(jv v, int64_t *out); /* int or bool, as an index may be */
double jv_number(jv v);                 /* of a number */
bool jv_length(jv v, size_t *n);        /* false: the type has no len() */
bool jv_equal(jinja_run *r, jv a, jv b);
typedef enum { ORDER_LT, ORDER_LE, ORDER_GT, ORDER_GE } jv_order_op;
bool jv_order(jinja_run *r, jv a, jv b, jv_order_op op); /* TypeError where Python has one */
bool jv_string_equals(jv v, const char *s);

/* --- text of values (text.c) ---------------------------------------------------------------------- */
void jv_write(jinja_run *r, jinja_text *t, jv v);      /* str(v) */
void jv_write_repr(jinja_run *r, jinja_text *t, jv v); /* repr(v) */
jv jv_to_string(jinja_run *r, jv v);                   /* str(v) as a value; a string is itself */
void jinja_float_repr(double f, char out[40]);         /* Python's repr(float) */
bool jinja_parse_int(const char *s, size_t len, int base, int64_t *out,
                     bool *overflow);                           /* Python's int(str, base) */
bool jinja_parse_float(const char *s, size_t len, double *out); /* Python's float(str) */
jv jv_escape_html(jinja_run *r, jv v);                          /* markupsafe.escape */

/* --- case (case.c) -------------------------------------------------------------------------------- */
jv jv_upper(jinja_run *r, const jv_string *s);
jv jv_lower(jinja_run *r, const jv_string *s);
jv jv_title(jinja_run *r, const jv_string *s);
jv jv_capitalize(jinja_run *r, const jv_string *s);
jv jv_swapcase(jinja_run *r, const jv_string *s);

/* --- JSON (json.c) -------------------------------------------------------------------------------- */
typedef struct {
    bool ensure_ascii, sort_keys, has_indent;
    jv indent;                                       /* int or string */
    const jv_string *item_separator, *key_separator; /* NULL: Python's defaults */
} jinja_json_style;
jv jinja_json_dump(jinja_run *r, jv v, const jinja_json_style *style);
jv jinja_json_load(jinja_run *r, jv text);

#endif
