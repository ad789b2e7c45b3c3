/* Calls: binding arguments to built-in functions, macros, recursive loops, and the environment's globals. */
#define _POSIX_C_SOURCE 200809L
#include "text/jinja/eval.h"
#include "text/jinja/ops.h"

#include <string.h>

#define MAX_RANGE 100000u /* the sandbox's own bound */

/* --- built-in functions -------------------------------------------------------------------------------------------- */
const jinja_builtin *jinja_table_find(const jinja_table *table, const char *name, size_t len)
{
    for (size_t i = 0; i < table->n; i++) {
        if (strlen(table->rows[i].name) == len && memcmp(table->rows[i].name, name, len) == 0)
            return &table->rows[i];
    }
    return NULL;
}

/* Index of `name` among the space-separated `params`, or -1. */
static int parameter_index(const char *params, const jv_string *name)
{
    int index = 0;
    for (const char *p = params; *p; index++) {
        size_t n = strcspn(p, " ");
        if (n == name->len && memcmp(p, name->data, n) == 0) return index;
        p += n;
        if (*p) p++;
    }
    return -1;
}

static size_t parameter_count(const char *params)
{
    size_t n = *params != 0;
    for (const char *p = params; *p; p++) n += *p == ' ';
    return n;
}

static bool bind(jinja_run *r, const jinja_builtin *b, const jv_args *args, jv *a)
{
    size_t n = parameter_count(b->params);
    for (size_t i = 0; i < BUILTIN_MAX_PARAMETERS; i++) a[i] = jv_missing();
    if (args->n > n) {
        jr_error(r, "%s() takes at most %zu argument(s), got %zu", b->name, n, args->n);
        return false;
    }
    for (size_t i = 0; i < args->n; i++) a[i] = args->pos[i];
    for (size_t i = 0; i < args->n_kw; i++) {
        const jv_string *name = args->kw[i].name;
        int index = parameter_index(b->params, name);
        if (index < 0 || a[index].kind != JV_MISSING) {
            jr_error(r, "%s() got %s keyword argument '%.*s'", b->name,
                     index < 0 ? "an unexpected" : "twice the", (int)(name->len < 100 ? name->len : 100),
                     name->data);
            return false;
        }
        a[index] = args->kw[i].value;
    }
    for (size_t i = 0; i < b->required; i++) {
        if (a[i].kind != JV_MISSING) continue;
        jr_error(r, "%s() is missing required argument %zu", b->name, i + 1);
        return false;
    }
    return true;
}

jv jinja_builtin_call(jinja_run *r, const jinja_builtin *b, jv self, const jv_args *args)
{
    jv a[BUILTIN_MAX_PARAMETERS];
    if (jr_failed(r)) return jv_none();
    if (b->params && !bind(r, b, args, a)) return jv_none();
    return b->call(r, self, a, args);
}

bool arg_truth(jv v, bool usual)
{
    return v.kind == JV_MISSING ? usual : jv_truth(v);
}

bool arg_int(jinja_run *r, jv v, int64_t usual, int64_t *out)
{
    *out = usual;
    if (v.kind == JV_MISSING || v.kind == JV_NONE || jv_is_integer(v, out)) return true;
    if (v.kind == JV_UNDEFINED) {
        jv_fail_undefined(r, v);
    } else {
        jr_error(r, "'%s' object cannot be interpreted as an integer", jv_type(v));
    }
    return false;
}

/* --- macros -------------------------------------------------------------------------------------------------------- */
static const jv_keyword *find_keyword(const jv_args *args, const jv_string *name)
{
    for (size_t i = 0; i < args->n_kw; i++) {
        const jv_string *n = args->kw[i].name;
        if (n->len == name->len && memcmp(n->data, name->data, n->len) == 0) return &args->kw[i];
    }
    return NULL;
}

/* What is bound for one parameter; a default sees the parameters in front of it. */
static jv macro_argument(jinja_frame *f, const jinja_node *parameter, size_t index, const jv_args *args,
                         size_t *used)
{
    const jv_string *name = parameter->value.as.s;
    if (index < args->n) return args->pos[index];
    const jv_keyword *kw = find_keyword(args, name);
    *used += kw != NULL;
    if (kw) return kw->value;
    if (parameter->a) return jinja_eval(f, parameter->a);
    return jv_undefined_hint(f->r, "parameter '%.*s' was not provided",
                             (int)(name->len < 100 ? name->len : 100), name->data);
}

static bool is_parameter(const jinja_node *macro, const jv_string *name, size_t from)
{
    for (size_t i = from; i < macro->list2.n; i++) {
        const jv_string *n = macro->list2.items[i]->value.as.s;
        if (n->len == name->len && memcmp(n->data, name->data, n->len) == 0) return true;
    }
    return false;
}

static void bind_caller(jinja_frame *f, const jinja_node *macro, const jv_args *args, size_t *used)
{
    static const jv_string caller = {.data = "caller", .len = 6, .chars = 6};
    if (!(macro->op & MACRO_CALLER) || is_parameter(macro, &caller, 0)) return;
    const jv_keyword *kw = find_keyword(args, &caller);
    *used += kw != NULL;
    jinja_assign_name(f->r, f->scope, &caller, kw ? kw->value : jv_undefined_hint(f->r, "No caller defined"));
}

/* `varargs` and `kwargs`: what no parameter took. */
static void bind_rest(jinja_frame *f, const jinja_node *macro, const jv_args *args)
{
    static const jv_string varargs = {.data = "varargs", .len = 7, .chars = 7};
    static const jv_string kwargs = {.data = "kwargs", .len = 6, .chars = 6};
    if (macro->op & MACRO_VARARGS) {
        jv rest = jv_tuple_new(f->r, 0);
        for (size_t i = macro->list2.n; i < args->n; i++) jv_push(f->r, rest, args->pos[i]);
        jinja_assign_name(f->r, f->scope, &varargs, rest);
    }
    if (macro->op & MACRO_KWARGS) {
        jv rest = jv_dict_new(f->r);
        for (size_t i = 0; i < args->n_kw && !jr_failed(f->r); i++) {
            const jv_string *name = args->kw[i].name;
            bool special =
                (macro->op & MACRO_CALLER) && name->len == 6 && memcmp(name->data, "caller", 6) == 0;
            if (special || is_parameter(macro, name, args->n)) continue;
            jv_dict_set(f->r, rest.as.dict, jv_of_string(name), args->kw[i].value);
        }
        jinja_assign_name(f->r, f->scope, &kwargs, rest);
    }
}

static void bind_macro(jinja_frame *f, const jinja_node *macro, const jv_args *args)
{
    size_t used = 0;
    /* A default that names a parameter not yet bound finds it undefined, not the variable outside. */
    for (size_t i = 0; i < macro->list2.n && !jr_failed(f->r); i++) {
        jv name = macro->list2.items[i]->value;
        jinja_assign_name(f->r, f->scope, name.as.s, jv_undefined_name(f->r, name));
    }
    for (size_t i = 0; i < macro->list2.n && !jr_failed(f->r); i++) {
        jv value = macro_argument(f, macro->list2.items[i], i, args, &used);
        jinja_assign_name(f->r, f->scope, macro->list2.items[i]->value.as.s, value);
    }
    bind_caller(f, macro, args, &used);
    bind_rest(f, macro, args);
    if (args->n_kw > used && !(macro->op & MACRO_KWARGS))
        jr_error(f->r, "the macro takes no such keyword argument");
    if (args->n > macro->list2.n && !(macro->op & MACRO_VARARGS)) {
        jr_error(f->r, "the macro takes not more than %zu argument(s)", macro->list2.n);
    }
}

jv jinja_macro_call(jinja_run *r, const jinja_macro *macro, const jv_args *args)
{
    jinja_text t = {0};
    jinja_frame f = {.r = r, .scope = jinja_scope_new(r, macro->scope), .out = &t, .input = jv_none()};
    if (!f.scope) return jv_none();
    bind_macro(&f, macro->node, args);
    if (!jr_failed(r)) jinja_exec(&f, &macro->node->list);
    return text_value(r, &t);
}

jv jinja_macro_name(const jinja_macro *macro)
{
    return macro->node->value.kind == JV_STRING ? macro->node->value : jv_none();
}

/* --- loops --------------------------------------------------------------------------------------------------------- */
jv jinja_loop_call(jinja_run *r, const jinja_loop *loop, jv iterable)
{
    if (!loop->recursive) {
        return jr_error(r, "the loop must have the 'recursive' marker to be called recursively");
    }
    jinja_text t = {0};
    jinja_frame f = {.r = r, .scope = loop->scope, .out = &t, .input = jv_none()};
    if (jr_enter(r)) jinja_exec_for(&f, loop->recursive, iterable, loop->depth0 + 1);
    jr_leave(r);
    return text_value(r, &t);
}

/* Of a generator, the rest is drawn now; the loop goes on over what was drawn. */
static int64_t loop_length(jinja_run *r, jinja_loop *loop)
{
    size_t n;
    if (loop->length >= 0) return loop->length;
    if (jv_length(loop->iterable, &n)) return loop->length = (int64_t)n;
    jv rest = jv_to_list(r, jv_of_iter(loop->items));
    if (jr_failed(r)) return 0;
    loop->items = jinja_iter_open(r, rest);
    return loop->length = (int64_t)rest.as.list->n + loop->index0 + 1 + (loop->after.kind != JV_MISSING);
}

static jv loop_peek(jinja_run *r, jinja_loop *loop)
{
    jv item;
    if (loop->after.kind == JV_MISSING && jinja_iter_next(r, loop->items, &item)) loop->after = item;
    return loop->after;
}

static jv loop_cycle(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    if (raw->n_kw) return jr_error(r, "cycle() takes no keyword arguments");
    if (!raw->n) return jr_error(r, "no items for cycling given");
    return raw->pos[(size_t)self.as.loop->index0 % raw->n];
}

static jv loop_changed(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    jv now = jv_tuple_new(r, raw->n);
    for (size_t i = 0; i < raw->n; i++) jv_push(r, now, raw->pos[i]);
    if (jr_failed(r) || jv_equal(r, self.as.loop->changed, now)) return jv_bool(false);
    self.as.loop->changed = now;
    return jv_bool(true);
}

static jv loop_method(jinja_run *r, jinja_loop *loop, const jinja_builtin *builtin)
{
    jinja_method *m = jr_alloc(r, 1, sizeof *m);
    if (!m) return jv_none();
    *m = (jinja_method){.self = {.kind = JV_LOOP, .as.loop = loop}, .builtin = builtin};
    return (jv){.kind = JV_METHOD, .as.method = m};
}

jv jinja_loop_attribute(jinja_run *r, jinja_loop *loop, jv name)
{
    static const jinja_builtin cycle = {"cycle", NULL, 0, loop_cycle},
                               changed = {"changed", NULL, 0, loop_changed};
    if (jv_string_equals(name, "index")) return jv_int(loop->index0 + 1);
    if (jv_string_equals(name, "index0")) return jv_int(loop->index0);
    if (jv_string_equals(name, "first")) return jv_bool(loop->index0 == 0);
    if (jv_string_equals(name, "last")) return jv_bool(loop_peek(r, loop).kind == JV_MISSING);
    if (jv_string_equals(name, "length")) return jv_int(loop_length(r, loop));
    if (jv_string_equals(name, "revindex")) return jv_int(loop_length(r, loop) - loop->index0);
    if (jv_string_equals(name, "revindex0")) return jv_int(loop_length(r, loop) - loop->index0 - 1);
    if (jv_string_equals(name, "depth")) return jv_int(loop->depth0 + 1);
    if (jv_string_equals(name, "depth0")) return jv_int(loop->depth0);
    if (jv_string_equals(name, "cycle")) return loop_method(r, loop, &cycle);
    if (jv_string_equals(name, "changed")) return loop_method(r, loop, &changed);
    if (jv_string_equals(name, "previtem")) {
        return loop->index0 > 0 ? loop->before : jv_undefined_hint(r, "there is no previous item");
    }
    if (jv_string_equals(name, "nextitem")) {
        jv next = loop_peek(r, loop);
        return next.kind != JV_MISSING ? next : jv_undefined_hint(r, "there is no next item");
    }
    return jv_missing();
}

/* --- globals ------------------------------------------------------------------------------------------------------- */
static jv global_range(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)self;
    int64_t start = 0, stop, step = 1;
    for (size_t i = 0; i < raw->n; i++) {
        if (a[i].kind == JV_NONE) return jr_error(r, "'NoneType' object cannot be interpreted as an integer");
    }
    if (!arg_int(r, a[0], 0, &stop)) return jv_none();
    if (a[1].kind != JV_MISSING) {
        start = stop;
        if (!arg_int(r, a[1], 0, &stop) || !arg_int(r, a[2], 1, &step)) return jv_none();
    }
    if (step == 0) return jr_error(r, "range() arg 3 must not be zero");
    uint64_t n = 0, stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 && start < stop) n = ((uint64_t)stop - (uint64_t)start - 1) / stride + 1;
    if (step < 0 && start > stop) n = ((uint64_t)start - (uint64_t)stop - 1) / stride + 1;
    if (n > MAX_RANGE) return jr_fail(r, NVLLM_ERR_LIMIT, "a range of more than %u items", MAX_RANGE);
    jv_range *range = jr_alloc(r, 1, sizeof *range);
    if (!range) return jv_none();
    *range = (jv_range){.start = start, .stop = stop, .step = step, .n = (size_t)n};
    return (jv){.kind = JV_RANGE, .as.range = range};
}

/* dict(mapping or pairs, **keywords) */
static jv global_dict(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)self;
    (void)a;
    jv d = jv_dict_new(r), pair;
    if (raw->n > 1) return jr_error(r, "dict expected at most 1 argument, got %zu", raw->n);
    const jv_dict *from = raw->n && (raw->pos[0].kind == JV_DICT) ? raw->pos[0].as.dict : NULL;
    for (size_t i = 0; from && i < from->n && !jr_failed(r); i++) {
        jv_dict_set(r, d.as.dict, from->keys[i], from->values[i]);
    }
    jinja_iter *it = raw->n && !from ? jinja_iter_open(r, raw->pos[0]) : NULL;
    while (it && jinja_iter_next(r, it, &pair)) {
        jv two = jv_to_list(r, pair);
        if (jr_failed(r)) return jv_none();
        if (two.as.list->n != 2) return jr_error(r, "dictionary update sequence element has not length 2");
        jv_dict_set(r, d.as.dict, two.as.list->items[0], two.as.list->items[1]);
    }
    for (size_t i = 0; i < raw->n_kw && !jr_failed(r); i++) {
        jv_dict_set(r, d.as.dict, jv_of_string(raw->kw[i].name), raw->kw[i].value);
    }
    return d;
}

static jv global_namespace(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    jv ns = global_dict(r, self, a, raw);
    if (jr_failed(r)) return jv_none();
    ns.kind = JV_NAMESPACE;
    for (size_t i = 0; i < ns.as.dict->n; i++) {
        jv key = ns.as.dict->keys[i];
        if (key.kind == JV_STRING && key.as.s->len && key.as.s->data[0] == '_') {
            return jr_error(r, "chat templates cannot store underscore-prefixed attributes on a namespace");
        }
    }
    return ns;
}

static jv global_raise(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)self;
    (void)raw;
    jv text = jv_to_string(r, a[0]);
    if (jr_failed(r)) return text;
    size_t n = text.as.s->len < 440 ? text.as.s->len : 440;
    while (n < text.as.s->len && ((unsigned char)text.as.s->data[n] & 0xC0) == 0x80) n--;
    return jr_error(r, "%.*s", (int)n, text.as.s->data);
}

static jv global_strftime(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)self;
    (void)raw;
    char format[256], text[1024];
    struct tm now = r->now;
    time_t seconds = time(NULL);
    if (!r->has_now && !localtime_r(&seconds, &now)) return jr_error(r, "strftime_now: no local time");
    if (a[0].kind != JV_STRING)
        return jr_error(r, "strftime() argument 1 must be str, not %s", jv_type(a[0]));
    const jv_string *s = a[0].as.s;
    if (s->len >= sizeof format)
        return jr_fail(r, NVLLM_ERR_LIMIT, "strftime_now: a format of %zu bytes", s->len);
    if (s->len == 0) return a[0];
    if (memchr(s->data, 0, s->len)) return jr_error(r, "strftime_now: embedded null character");
    memcpy(format, s->data, s->len);
    format[s->len] = 0;
    return jv_copy(r, text, strftime(text, sizeof text, format, &now));
}

static jv global_cycler(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)self;
    (void)a;
    if (!raw->n || raw->n_kw) return jr_error(r, "at least one item has to be provided");
    jv_cycler *c = jr_alloc(r, 1, sizeof *c);
    jv items = jv_list_new(r, raw->n);
    for (size_t i = 0; i < raw->n; i++) jv_push(r, items, raw->pos[i]);
    if (jr_failed(r)) return jv_none();
    c->items = items.as.list;
    return (jv){.kind = JV_CYCLER, .as.cycler = c};
}

static jv global_joiner(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)self;
    (void)raw;
    jv_joiner *j = jr_alloc(r, 1, sizeof *j);
    jv separator = a[0].kind == JV_MISSING ? jv_literal(r, ", ") : jv_to_string(r, a[0]);
    if (jr_failed(r)) return jv_none();
    j->separator = separator.as.s;
    return (jv){.kind = JV_JOINER, .as.joiner = j};
}

jv jinja_global(jv name)
{
    static const jinja_builtin rows[] = {
        {"range", "* * *", 1, global_range},
        {"dict", NULL, 0, global_dict},
        {"namespace", NULL, 0, global_namespace},
        {"raise_exception", "message", 1, global_raise},
        {"strftime_now", "format", 1, global_strftime},
        {"cycler", NULL, 0, global_cycler},
        {"joiner", "sep", 0, global_joiner},
    };
    static const jinja_function functions[] = {{&rows[0]}, {&rows[1]}, {&rows[2]}, {&rows[3]},
                                               {&rows[4]}, {&rows[5]}, {&rows[6]}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (jv_string_equals(name, rows[i].name))
            return (jv){.kind = JV_FUNCTION, .as.function = &functions[i]};
    }
    return jv_missing();
}

jv jinja_call(jinja_run *r, jv callee, const jv_args *args)
{
    switch (callee.kind) {
    case JV_FUNCTION: return jinja_builtin_call(r, callee.as.function->builtin, jv_none(), args);
    case JV_METHOD: return jinja_builtin_call(r, callee.as.method->builtin, callee.as.method->self, args);
    case JV_MACRO: return jinja_macro_call(r, callee.as.macro, args);
    case JV_LOOP:
        if (args->n != 1 || args->n_kw) return jr_error(r, "loop() takes exactly one argument");
        return jinja_loop_call(r, callee.as.loop, args->pos[0]);
    case JV_JOINER:
        if (!callee.as.joiner->used) {
            callee.as.joiner->used = true;
            return jv_literal(r, "");
        }
        return jv_of_string(callee.as.joiner->separator);
    case JV_UNDEFINED: return jv_fail_undefined(r, callee);
    default: return jr_error(r, "'%s' object is not callable", jv_type(callee));
    }
}
