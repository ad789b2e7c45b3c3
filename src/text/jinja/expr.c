/* Expressions: one function per kind of node. */
#include "text/jinja/eval.h"
#include "text/jinja/ops.h"

#include <string.h>

static bool same_name(const jv_string *a, const jv_string *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static jv eval_name(jinja_frame *f, const jinja_node *node)
{
    const jv_string *name = node->value.as.s;
    for (jinja_scope *s = f->scope; s; s = s->parent) {
        if (!jr_charge(f->r, s->n / 32)) return jv_none();
        for (size_t i = 0; i < s->n; i++) {
            if (same_name(s->variables[i].name, name)) return s->variables[i].value;
        }
    }
    const jv *found = jv_dict_get(f->r, f->r->context, node->value);
    if (found) return *found;
    jv global = jinja_global(node->value);
    return global.kind != JV_MISSING ? global : jv_undefined_name(f->r, node->value);
}

static jv eval_items(jinja_frame *f, const jinja_node *node)
{
    jv out = node->kind == NODE_LIST ? jv_list_new(f->r, node->list.n) : jv_tuple_new(f->r, node->list.n);
    for (size_t i = 0; i < node->list.n && !jr_failed(f->r); i++) {
        jv item = jinja_eval(f, node->list.items[i]);
        jv_push(f->r, out, item);
    }
    return out;
}

static jv eval_dict(jinja_frame *f, const jinja_node *node)
{
    jv out = jv_dict_new(f->r);
    for (size_t i = 0; i < node->list.n && !jr_failed(f->r); i++) {
        jv key = jinja_eval(f, node->list.items[i]);
        jv value = jinja_eval(f, node->list2.items[i]);
        if (!jr_failed(f->r)) jv_dict_set(f->r, out.as.dict, key, value);
    }
    return out;
}

static jv eval_concat(jinja_frame *f, const jinja_node *node)
{
    jinja_text t = {0};
    for (size_t i = 0; i < node->list.n && !jr_failed(f->r); i++) {
        jv_write(f->r, &t, jinja_eval(f, node->list.items[i]));
    }
    return text_value(f->r, &t);
}

/* a < b < c is (a < b) and (b < c), each evaluated once. */
static jv eval_compare(jinja_frame *f, const jinja_node *node)
{
    jv left = jinja_eval(f, node->a);
    for (size_t i = 0; i < node->list.n; i++) {
        const jinja_node *operand = node->list.items[i];
        jv right = jinja_eval(f, operand->a);
        if (jr_failed(f->r) || !jv_compare(f->r, (jinja_compare)operand->op, left, right))
            return jv_bool(false);
        left = right;
    }
    return jv_bool(true);
}

static jv eval_condition(jinja_frame *f, const jinja_node *node)
{
    if (jv_truth(jinja_eval(f, node->a))) return jr_failed(f->r) ? jv_none() : jinja_eval(f, node->b);
    if (node->c) return jinja_eval(f, node->c);
    return jv_undefined_hint(
        f->r, "the inline if-expression on line %d evaluated to false and no else section was defined.",
        node->line);
}

static jv eval_slice(jinja_frame *f, const jinja_node *node)
{
    jv bounds[3], object = jinja_eval(f, node->a);
    for (size_t i = 0; i < 3; i++)
        bounds[i] = node->list.items[i] ? jinja_eval(f, node->list.items[i]) : jv_none();
    return jv_slice(f->r, object, bounds[0], bounds[1], bounds[2]);
}

/* --- arguments ------------------------------------------------------------------------------------------------- */
static void push_dynamic_args(jinja_frame *f, const jinja_node *node, jv list)
{
    jv more = jinja_eval(f, node), item;
    jinja_iter *it = jr_failed(f->r) ? NULL : jinja_iter_open(f->r, more);
    while (it && jinja_iter_next(f->r, it, &item)) jv_push(f->r, list, item);
}

static bool push_keyword(jinja_run *r, jv_keyword *kw, size_t *n, const jv_string *name, jv value)
{
    for (size_t i = 0; i < *n; i++) {
        if (!same_name(kw[i].name, name)) continue;
        jr_error(r, "got multiple values for keyword argument '%.*s'", (int)name->len, name->data);
        return false;
    }
    kw[(*n)++] = (jv_keyword){name, value};
    return jr_charge(r, 1 + *n / 16);
}

static bool eval_keywords(jinja_frame *f, const jinja_node *call, const jv_keyword *extra, jv_args *out)
{
    jinja_run *r = f->r;
    jv more = call->c ? jinja_eval(f, call->c) : jv_none();
    if (jr_failed(r)) return false;
    if (call->c && more.kind != JV_DICT) {
        jr_error(r, "argument after ** must be a mapping, not %s", jv_type(more));
        return false;
    }
    size_t dynamic = call->c ? more.as.dict->n : 0;
    if (!dynamic && !call->list2.n && !extra) return true;
    jv_keyword *kw = jr_alloc(r, call->list2.n + dynamic + 1, sizeof *kw);
    size_t n = 0;
    for (size_t i = 0; kw && i < call->list2.n; i++) {
        jv value = jinja_eval(f, call->list2.items[i]->a);
        if (jr_failed(r) || !push_keyword(r, kw, &n, call->list2.items[i]->value.as.s, value)) return false;
    }
    for (size_t i = 0; kw && i < dynamic; i++) {
        jv key = more.as.dict->keys[i];
        if (key.kind != JV_STRING) jr_error(r, "keywords must be strings");
        if (jr_failed(r) || !push_keyword(r, kw, &n, key.as.s, more.as.dict->values[i])) return false;
    }
    if (kw && extra && !push_keyword(r, kw, &n, extra->name, extra->value)) return false;
    out->kw = kw;
    out->n_kw = n;
    return kw != NULL;
}

bool jinja_eval_args(jinja_frame *f, const jinja_node *call, const jv_keyword *extra, jv_args *out)
{
    *out = (jv_args){0};
    if (call->list.n || call->b) {
        jv list = jv_list_new(f->r, call->list.n);
        for (size_t i = 0; i < call->list.n && !jr_failed(f->r); i++) {
            jv item = jinja_eval(f, call->list.items[i]);
            jv_push(f->r, list, item);
        }
        if (call->b && !jr_failed(f->r)) push_dynamic_args(f, call->b, list);
        if (jr_failed(f->r)) return false;
        out->pos = list.as.list->items;
        out->n = list.as.list->n;
    }
    return eval_keywords(f, call, extra, out) && !jr_failed(f->r);
}

jv jinja_eval_call(jinja_frame *f, const jinja_node *call, const jv_keyword *extra)
{
    jv_args args;
    jv callee = jinja_eval(f, call->a);
    if (jr_failed(f->r) || !jinja_eval_args(f, call, extra, &args)) return jv_none();
    f->r->line = call->line;
    return jinja_call(f->r, callee, &args);
}

static jv eval_filter(jinja_frame *f, const jinja_node *node)
{
    jv_args args;
    jv value = jinja_eval(f, node->a);
    if (jr_failed(f->r) || !jinja_eval_args(f, node, NULL, &args)) return jv_none();
    f->r->line = node->line;
    return jinja_filter_apply(f->r, node->value, value, &args);
}

static jv eval_test(jinja_frame *f, const jinja_node *node)
{
    jv_args args;
    jv value = jinja_eval(f, node->a);
    if (jr_failed(f->r) || !jinja_eval_args(f, node, NULL, &args)) return jv_none();
    f->r->line = node->line;
    return jv_bool(jinja_test_apply(f->r, node->value, value, &args));
}

/* --- the switch ------------------------------------------------------------------------------------------------ */
static jv eval_binary(jinja_frame *f, const jinja_node *node)
{
    jv a = jinja_eval(f, node->a);
    jv b = jinja_eval(f, node->b);
    f->r->line = jr_failed(f->r) ? f->r->line : node->line;
    return jv_binary(f->r, (jinja_binary)node->op, a, b);
}

static jv eval_logic(jinja_frame *f, const jinja_node *node)
{
    jv a = jinja_eval(f, node->a);
    if (jr_failed(f->r) || jv_truth(a) == (node->kind == NODE_OR)) return a;
    return jinja_eval(f, node->b);
}

static jv eval_node(jinja_frame *f, const jinja_node *node)
{
    switch (node->kind) {
    case NODE_CONST: return node->value;
    case NODE_NAME: return eval_name(f, node);
    case NODE_INPUT: return f->input;
    case NODE_TUPLE:
    case NODE_LIST: return eval_items(f, node);
    case NODE_DICT: return eval_dict(f, node);
    case NODE_NEG: return jv_negate(f->r, jinja_eval(f, node->a));
    case NODE_POS: return jv_positive(f->r, jinja_eval(f, node->a));
    case NODE_NOT: return jv_bool(!jv_truth(jinja_eval(f, node->a)));
    case NODE_AND:
    case NODE_OR: return eval_logic(f, node);
    case NODE_BINARY: return eval_binary(f, node);
    case NODE_CONCAT: return eval_concat(f, node);
    case NODE_COMPARE: return eval_compare(f, node);
    case NODE_CONDITION: return eval_condition(f, node);
    case NODE_ATTRIBUTE: return jv_get_attribute(f->r, jinja_eval(f, node->a), node->value);
    case NODE_ITEM: {
        jv object = jinja_eval(f, node->a);
        return jv_get_item(f->r, object, jinja_eval(f, node->b));
    }
    case NODE_SLICE: return eval_slice(f, node);
    case NODE_CALL: return jinja_eval_call(f, node, NULL);
    case NODE_FILTER: return eval_filter(f, node);
    case NODE_TEST: return eval_test(f, node);
    default: return jr_error(f->r, "not an expression");
    }
}

jv jinja_eval(jinja_frame *f, const jinja_node *node)
{
    jv v = jv_none();
    if (jr_enter(f->r) && jr_charge(f->r, 1)) {
        f->r->line = node->line;
        v = eval_node(f, node);
    }
    jr_leave(f->r);
    return v;
}
