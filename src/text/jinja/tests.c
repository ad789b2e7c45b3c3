/* The tests of `is`, in one table. */
#include "text/jinja/iter.h"
#include "text/jinja/ops.h"
#include "text/jinja/strings.h"

static jv modulo(jinja_run *r, jv v, jv divisor, int64_t rest)
{
    jv m = jv_binary(r, BINARY_MOD, v, divisor);
    return jv_bool(!jr_failed(r) && jv_equal(r, m, jv_int(rest)));
}

static jv test_odd(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return modulo(r, self, jv_int(2), 1);
}

static jv test_even(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return modulo(r, self, jv_int(2), 0);
}

static jv test_divisibleby(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return modulo(r, self, a[0], 0);
}

static jv test_defined(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind != JV_UNDEFINED);
}

static jv test_undefined(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_UNDEFINED);
}

static jv test_filter(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    if (!jv_hashable(self)) jr_error(r, "unhashable type: '%s'", jv_type(self));
    return jv_bool(self.kind == JV_STRING && jinja_filter_find(self.as.s->data, self.as.s->len));
}

static jv test_test(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    if (!jv_hashable(self)) jr_error(r, "unhashable type: '%s'", jv_type(self));
    return jv_bool(self.kind == JV_STRING && jinja_test_find(self.as.s->data, self.as.s->len));
}

static jv test_none(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_NONE);
}

static jv test_boolean(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_BOOL);
}

static jv test_true(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_BOOL && self.as.b);
}

static jv test_false(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_BOOL && !self.as.b);
}

static jv test_integer(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_INT);
}

static jv test_float(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_FLOAT);
}

static jv test_number(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(jv_is_number(self));
}

static jv test_lower(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    return jv_bool(!jr_failed(r) && jinja_is_lower(r, s.as.s));
}

static jv test_upper(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv s = jv_to_string(r, self);
    return jv_bool(!jr_failed(r) && jinja_is_upper(r, s.as.s));
}

static jv test_string(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_STRING);
}

static jv test_mapping(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_DICT);
}

/* What has a length and can be indexed: also dicts, and undefined values. */
static jv test_sequence(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    size_t n;
    return jv_bool(self.kind != JV_VIEW && jv_length(self, &n));
}

static jv test_iterable(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(jv_iterable(self));
}

static jv test_callable(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    switch (self.kind) {
    case JV_UNDEFINED: /* the class has a __call__, which raises */
    case JV_MACRO:
    case JV_LOOP:
    case JV_FUNCTION:
    case JV_METHOD:
    case JV_JOINER: return jv_bool(true);
    default: return jv_bool(false);
    }
}

/* Identity: of containers by address; of scalars, strings included, by type and value. */
static jv test_sameas(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    if (self.kind != a[0].kind) return jv_bool(false);
    if (self.kind == JV_LIST || self.kind == JV_TUPLE || self.kind == JV_DICT || self.kind == JV_UNDEFINED) {
        return jv_bool(self.as.list == a[0].as.list);
    }
    return jv_bool(jv_equal(r, self, a[0]));
}

static jv test_escaped(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)r;
    (void)a;
    (void)raw;
    return jv_bool(self.kind == JV_STRING && self.as.s->markup);
}

static jv test_in(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_bool(jv_contains(r, a[0], self));
}

static jv test_eq(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_bool(jv_equal(r, self, a[0]));
}

static jv test_ne(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_bool(!jv_equal(r, self, a[0]));
}

static jv test_gt(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_bool(jv_order(r, self, a[0], ORDER_GT));
}

static jv test_ge(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_bool(jv_order(r, self, a[0], ORDER_GE));
}

static jv test_lt(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_bool(jv_order(r, self, a[0], ORDER_LT));
}

static jv test_le(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return jv_bool(jv_order(r, self, a[0], ORDER_LE));
}

static const jinja_builtin rows[] = {
    {"odd", "", 0, test_odd},
    {"even", "", 0, test_even},
    {"divisibleby", "num", 1, test_divisibleby},
    {"defined", "", 0, test_defined},
    {"undefined", "", 0, test_undefined},
    {"filter", "", 0, test_filter},
    {"test", "", 0, test_test},
    {"none", "", 0, test_none},
    {"boolean", "", 0, test_boolean},
    {"false", "", 0, test_false},
    {"true", "", 0, test_true},
    {"integer", "", 0, test_integer},
    {"float", "", 0, test_float},
    {"lower", "", 0, test_lower},
    {"upper", "", 0, test_upper},
    {"string", "", 0, test_string},
    {"mapping", "", 0, test_mapping},
    {"number", "", 0, test_number},
    {"sequence", "", 0, test_sequence},
    {"iterable", "", 0, test_iterable},
    {"callable", "", 0, test_callable},
    {"sameas", "other", 1, test_sameas},
    {"escaped", "", 0, test_escaped},
    {"in", "seq", 1, test_in},
    {"==", "*", 1, test_eq},
    {"eq", "*", 1, test_eq},
    {"equalto", "*", 1, test_eq},
    {"!=", "*", 1, test_ne},
    {"ne", "*", 1, test_ne},
    {">", "*", 1, test_gt},
    {"gt", "*", 1, test_gt},
    {"greaterthan", "*", 1, test_gt},
    {"ge", "*", 1, test_ge},
    {">=", "*", 1, test_ge},
    {"<", "*", 1, test_lt},
    {"lt", "*", 1, test_lt},
    {"lessthan", "*", 1, test_lt},
    {"<=", "*", 1, test_le},
    {"le", "*", 1, test_le},
};

static const jinja_table table = {rows, sizeof rows / sizeof *rows};

const jinja_builtin *jinja_test_find(const char *name, size_t len)
{
    return jinja_table_find(&table, name, len);
}

bool jinja_test_apply(jinja_run *r, jv name, jv value, const jv_args *args)
{
    if (name.kind != JV_STRING) {
        jr_error(r, "a test's name must be str, not %s", jv_type(name));
        return false;
    }
    const jinja_builtin *b = jinja_test_find(name.as.s->data, name.as.s->len);
    if (!b) {
        jr_error(r, "no test named '%.*s'", (int)(name.as.s->len < 100 ? name.as.s->len : 100),
                 name.as.s->data);
        return false;
    }
    return jv_truth(jinja_builtin_call(r, b, value, args));
}
