/* See ops.h. Integers are int64: overflow is an error, where Python would go on with larger ones. */
#include "text/jinja/ops.h"
#include "text/jinja/iter.h"

#include <math.h>
#include <string.h>

static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};

static jv fail_types(jinja_run *r, jinja_binary op, jv a, jv b)
{
    return jr_error(r, "unsupported operand type(s) for %s: '%s' and '%s'", signs[op], jv_type(a),
                    jv_type(b));
}

static jv fail_overflow(jinja_run *r)
{
    return jr_error(r, "integer overflow: the result does not fit 64 bits");
}

static jv fail_zero(jinja_run *r)
{
    return jr_error(r, "division by zero");
}

/* --- numbers ------------------------------------------------------------------------------------------------- */
static jv int_power(jinja_run *r, int64_t base, int64_t exponent)
{
    if (exponent < 0) return base == 0 ? fail_zero(r) : jv_float(pow((double)base, (double)exponent));
    int64_t result = 1;
    for (uint64_t e = (uint64_t)exponent; e; e >>= 1) {
        if ((e & 1) && __builtin_mul_overflow(result, base, &result)) return fail_overflow(r);
        if (e > 1 && __builtin_mul_overflow(base, base, &base)) return fail_overflow(r);
    }
    return jv_int(result);
}

static jv int_divide(jinja_run *r, jinja_binary op, int64_t a, int64_t b)
{
    if (b == 0) return fail_zero(r);
    if (b == -1) { /* INT64_MIN / -1 traps */
        if (op == BINARY_MOD) return jv_int(0);
        return a == INT64_MIN ? fail_overflow(r) : jv_int(-a);
    }
    int64_t quotient = a / b, rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        quotient--;
        rest += b;
    }
    return jv_int(op == BINARY_MOD ? rest : quotient);
}

static jv int_binary(jinja_run *r, jinja_binary op, int64_t a, int64_t b)
{
    int64_t result;
    bool overflow;
    switch (op) {
    case BINARY_ADD: overflow = __builtin_add_overflow(a, b, &result); break;
    case BINARY_SUB: overflow = __builtin_sub_overflow(a, b, &result); break;
    case BINARY_MUL: overflow = __builtin_mul_overflow(a, b, &result); break;
    case BINARY_DIV: return b == 0 ? fail_zero(r) : jv_float((double)a / (double)b);
    case BINARY_POW: return int_power(r, a, b);
    default: return int_divide(r, op, a, b);
    }
    return overflow ? fail_overflow(r) : jv_int(result);
}

/* Python's float_divmod: the rest has the sign of the divisor, and the quotient is exact where it can be. */
static jv float_divide(jinja_run *r, jinja_binary op, double a, double b)
{
    if (b == 0) return fail_zero(r);
    double rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0) {
        if ((b < 0) != (rest < 0)) {
            rest += b;
            quotient -= 1;
        }
    } else {
        rest = copysign(0.0, b);
    }
    if (op == BINARY_MOD) return jv_float(rest);
    if (quotient == 0) return jv_float(copysign(0.0, a / b));
    double whole = floor(quotient);
    return jv_float(quotient - whole > 0.5 ? whole + 1 : whole);
}

static jv float_binary(jinja_run *r, jinja_binary op, double a, double b)
{
    switch (op) {
    case BINARY_ADD: return jv_float(a + b);
    case BINARY_SUB: return jv_float(a - b);
    case BINARY_MUL: return jv_float(a * b);
    case BINARY_DIV: return b == 0 ? fail_zero(r) : jv_float(a / b);
    case BINARY_POW: {
        if (a == 0 && b < 0) return fail_zero(r);
        double p = pow(a, b);
        if (isnan(p) && !isnan(a) && !isnan(b)) return jr_error(r, "complex numbers are not supported");
        if (isinf(p) && !isinf(a) && !isinf(b)) return jr_error(r, "the result of ** is too large");
        return jv_float(p);
    }
    default: return float_divide(r, op, a, b);
    }
}

jv jv_negate(jinja_run *r, jv v)
{
    int64_t i;
    if (v.kind == JV_FLOAT) return jv_float(-v.as.f);
    if (jv_is_integer(v, &i)) return i == INT64_MIN ? fail_overflow(r) : jv_int(-i);
    if (v.kind == JV_UNDEFINED) return jv_fail_undefined(r, v);
    return jr_error(r, "bad operand type for unary -: '%s'", jv_type(v));
}

jv jv_positive(jinja_run *r, jv v)
{
    int64_t i;
    if (v.kind == JV_FLOAT) return v;
    if (jv_is_integer(v, &i)) return jv_int(i);
    if (v.kind == JV_UNDEFINED) return jv_fail_undefined(r, v);
    return jr_error(r, "bad operand type for unary +: '%s'", jv_type(v));
}

/* --- sequences ----------------------------------------------------------------------------------------------- */
static jv mark(jinja_run *r, jv v)
{
    if (v.kind != JV_STRING) return v;
    jv_string *s = jr_alloc(r, 1, sizeof *s);
    if (!s) return jv_none();
    *s = *v.as.s;
    s->markup = true;
    return jv_of_string(s);
}

static jv concat_strings(jinja_run *r, jv a, jv b)
{
    bool markup = a.as.s->markup || b.as.s->markup;
    if (markup) {
        a = jv_escape_html(r, a);
        b = jv_escape_html(r, b);
    }
    jinja_text t = {0};
    jv_write(r, &t, a);
    jv_write(r, &t, b);
    return markup ? mark(r, text_value(r, &t)) : text_value(r, &t);
}

static jv concat_lists(jinja_run *r, jv a, jv b)
{
    size_t n = a.as.list->n + b.as.list->n;
    jv out = a.kind == JV_LIST ? jv_list_new(r, n) : jv_tuple_new(r, n);
    for (size_t i = 0; i < a.as.list->n && !jr_failed(r); i++) jv_push(r, out, a.as.list->items[i]);
    for (size_t i = 0; i < b.as.list->n && !jr_failed(r); i++) jv_push(r, out, b.as.list->items[i]);
    return out;
}

static jv repeat_string(jinja_run *r, const jv_string *s, int64_t count)
{
    jinja_text t = {0};
    if (count > 0 && s->len > r->max_output / (uint64_t)count) {
        return jr_fail(r, NVLLM_ERR_LIMIT, "a text of more than %zu bytes", r->max_output);
    }
    for (int64_t i = 0; s->len && i < count && !jr_failed(r); i++) text_append(r, &t, s->data, s->len);
    jv v = text_value(r, &t);
    return s->markup ? mark(r, v) : v;
}

static jv repeat_list(jinja_run *r, jv list, int64_t count)
{
    jv out = list.kind == JV_LIST ? jv_list_new(r, 0) : jv_tuple_new(r, 0);
    for (int64_t k = 0; list.as.list->n && k < count && !jr_failed(r); k++) {
        for (size_t i = 0; i < list.as.list->n && !jr_failed(r); i++) jv_push(r, out, list.as.list->items[i]);
    }
    return out;
}

static jv multiply(jinja_run *r, jv a, jv b)
{
    int64_t count;
    if (jv_is_integer(a, &count)) {
        jv swap = a;
        a = b;
        b = swap;
    }
    if (jv_is_integer(b, &count) && a.kind == JV_STRING) return repeat_string(r, a.as.s, count);
    if (jv_is_integer(b, &count) && (a.kind == JV_LIST || a.kind == JV_TUPLE))
        return repeat_list(r, a, count);
    return fail_types(r, BINARY_MUL, a, b);
}

jv jv_binary(jinja_run *r, jinja_binary op, jv a, jv b)
{
    int64_t x, y;
    if (jr_failed(r)) return jv_none();
    if (jv_is_integer(a, &x) && jv_is_integer(b, &y)) return int_binary(r, op, x, y);
    if (jv_is_number(a) && jv_is_number(b)) return float_binary(r, op, jv_number(a), jv_number(b));
    if (op == BINARY_MOD && a.kind == JV_STRING) return jinja_format_percent(r, a.as.s, b);
    if (a.kind == JV_UNDEFINED) return jv_fail_undefined(r, a);
    if (b.kind == JV_UNDEFINED) return jv_fail_undefined(r, b);
    if (op == BINARY_MUL) return multiply(r, a, b);
    if (op == BINARY_ADD && a.kind == b.kind) {
        if (a.kind == JV_STRING) return concat_strings(r, a, b);
        if (a.kind == JV_LIST || a.kind == JV_TUPLE) return concat_lists(r, a, b);
    }
    if (op == BINARY_ADD && (a.kind == JV_STRING || a.kind == JV_LIST || a.kind == JV_TUPLE)) {
        return jr_error(r, "can only concatenate %s (not \"%s\") to %s", jv_type(a), jv_type(b), jv_type(a));
    }
    return fail_types(r, op, a, b);
}

/* --- comparisons --------------------------------------------------------------------------------------------- */
size_t jv_find(jinja_run *r, const jv_string *s, size_t from, const jv_string *needle)
{
    size_t n = needle->len;
    if (n > s->len - from || !jr_charge(r, 1 + (s->len - from) / 4096)) return SIZE_MAX;
    if (n == 0) return from;
    const char *at = s->data + from, *last = s->data + s->len - n;
    for (size_t seen = 1; at <= last && (at = memchr(at, needle->data[0], (size_t)(last - at) + 1)); seen++) {
        if (seen % 4 == 0 && !jr_charge(r, 1)) return SIZE_MAX;
        if (at[n - 1] == needle->data[n - 1]) {
            if (!jr_charge(r, n / 256)) return SIZE_MAX;
            if (memcmp(at, needle->data, n) == 0) return (size_t)(at - s->data);
        }
        at++;
    }
    return SIZE_MAX;
}

static bool range_contains(jinja_run *r, const jv_range *g, jv item)
{
    int64_t i;
    if (item.kind == JV_FLOAT && item.as.f == floor(item.as.f) && fabs(item.as.f) < 9e18) {
        item = jv_int((int64_t)item.as.f);
    }
    (void)r;
    if (!jv_is_integer(item, &i) || g->n == 0) return false;
    int64_t last = g->start + (int64_t)(g->n - 1) * g->step;
    bool inside = g->step > 0 ? i >= g->start && i <= last : i <= g->start && i >= last;
    return inside && (int64_t)(((uint64_t)i - (uint64_t)g->start)) % g->step == 0;
}

bool jv_contains(jinja_run *r, jv container, jv item)
{
    switch (container.kind) {
    case JV_STRING:
        if (item.kind != JV_STRING) {
            jr_error(r, "'in <string>' requires string as left operand, not %s", jv_type(item));
            return false;
        }
        return jv_find(r, container.as.s, 0, item.as.s) != SIZE_MAX;
    case JV_DICT:
        if (!jv_hashable(item)) {
            jr_error(r, "unhashable type: '%s'", jv_type(item));
            return false;
        }
        return jv_dict_get(r, container.as.dict, item) != NULL;
    case JV_RANGE: return range_contains(r, container.as.range, item);
    default: break;
    }
    if (!jv_iterable(container)) {
        jr_error(r, "argument of type '%s' is not iterable", jv_type(container));
        return false;
    }
    jinja_iter *it = jinja_iter_open(r, container);
    jv candidate;
    while (jinja_iter_next(r, it, &candidate)) {
        if (jv_equal(r, candidate, item)) return true;
    }
    return false;
}

bool jv_compare(jinja_run *r, jinja_compare op, jv a, jv b)
{
    switch (op) {
    case COMPARE_EQ: return jv_equal(r, a, b);
    case COMPARE_NE: return !jv_equal(r, a, b);
    case COMPARE_LT: return jv_order(r, a, b, ORDER_LT);
    case COMPARE_LE: return jv_order(r, a, b, ORDER_LE);
    case COMPARE_GT: return jv_order(r, a, b, ORDER_GT);
    case COMPARE_GE: return jv_order(r, a, b, ORDER_GE);
    case COMPARE_IN: return jv_contains(r, b, a);
    default: return !jv_contains(r, b, a);
    }
}
