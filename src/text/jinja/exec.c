/* Statements, scopes, loops; and jinja_compile / jinja_render themselves. */
#include "text/jinja/eval.h"
#include "text/jinja/utf8.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SOURCE   (1024u * 1024u)
#define MAX_COMPILED (256u * 1024u * 1024u)

/* --- scopes ------------------------------------------------------------------------------------------------------ */
jinja_scope *jinja_scope_new(jinja_run *r, jinja_scope *parent)
{
    jinja_scope *s = jr_alloc(r, 1, sizeof *s);
    if (s) s->parent = parent;
    return s;
}

void jinja_assign_name(jinja_run *r, jinja_scope *scope, const jv_string *name, jv value)
{
    if (jr_failed(r) || !jr_charge(r, scope->n / 32)) return;
    for (size_t i = 0; i < scope->n; i++) {
        const jv_string *n = scope->variables[i].name;
        if (n->len == name->len && memcmp(n->data, name->data, n->len) == 0) {
            scope->variables[i].value = value;
            return;
        }
    }
    if (scope->n == scope->cap) {
        size_t cap = scope->cap ? scope->cap * 2 : 4;
        jinja_variable *variables = jr_alloc(r, cap, sizeof *variables);
        if (!variables) return;
        if (scope->n) memcpy(variables, scope->variables, scope->n * sizeof *variables);
        scope->variables = variables;
        scope->cap = cap;
    }
    scope->variables[scope->n++] = (jinja_variable){name, value};
}

static void assign_namespace(jinja_frame *f, const jinja_node *target, jv value)
{
    jinja_node name = {.kind = NODE_NAME, .line = target->line, .value = target->value};
    jv object = jinja_eval(f, &name);
    const jv_string *attribute = target->a->value.as.s;
    if (jr_failed(f->r)) return;
    if (object.kind != JV_NAMESPACE) {
        jr_error(f->r, "cannot assign attribute on non-namespace object");
    } else if (attribute->data[0] == '_') {
        jr_error(f->r,
                 "chat templates cannot store underscore-prefixed attributes on a namespace, but got '%.*s'",
                 (int)(attribute->len < 100 ? attribute->len : 100), attribute->data);
    } else {
        jv_dict_set(f->r, object.as.dict, target->a->value, value);
    }
}

static void unpack(jinja_frame *f, const jinja_node *target, jv value)
{
    jinja_run *r = f->r;
    size_t wanted = target->list.n, got = 0;
    jv item;
    if (!jv_iterable(value)) {
        jr_error(r, "cannot unpack non-iterable %s object", jv_type(value));
        return;
    }
    jv items = jv_tuple_new(r, wanted);
    jinja_iter *it = jinja_iter_open(r, value);
    for (; !jr_failed(r) && got <= wanted && jinja_iter_next(r, it, &item); got++) jv_push(r, items, item);
    if (jr_failed(r)) return;
    if (got < wanted) jr_error(r, "not enough values to unpack (expected %zu, got %zu)", wanted, got);
    if (got > wanted) jr_error(r, "too many values to unpack (expected %zu)", wanted);
    for (size_t i = 0; i < wanted && !jr_failed(r); i++) {
        jinja_assign(f, target->list.items[i], items.as.list->items[i]);
    }
}

void jinja_assign(jinja_frame *f, const jinja_node *target, jv value)
{
    if (jr_failed(f->r)) return;
    if (target->kind == NODE_NAME) jinja_assign_name(f->r, f->scope, target->value.as.s, value);
    if (target->kind == NODE_NAMESPACE_ATTRIBUTE) assign_namespace(f, target, value);
    if (target->kind == NODE_TUPLE) unpack(f, target, value);
}

/* --- loops ------------------------------------------------------------------------------------------------------- */
typedef struct {
    jinja_frame frame;
    const jinja_node *node;
} loop_filter;

/* `for x in items if test`: the test sees the targets in a scope of its own. */
static bool next_that_passes(jinja_run *r, jinja_iter *it, jv *out)
{
    loop_filter *filter = (loop_filter *)it->data;
    while (jinja_iter_next(r, it->inner, out)) {
        filter->frame.scope->n = 0;
        jinja_assign(&filter->frame, filter->node->a, *out);
        if (jr_failed(r)) return false;
        if (jv_truth(jinja_eval(&filter->frame, filter->node->c))) return !jr_failed(r);
    }
    return false;
}

static jinja_iter *filtered(jinja_frame *f, const jinja_node *node, jinja_iter *items)
{
    loop_filter *filter = jr_alloc(f->r, 1, sizeof *filter);
    jinja_iter *it = jinja_generator(f->r, items, next_that_passes);
    if (!filter || !it) return NULL;
    filter->frame = *f;
    filter->frame.scope = jinja_scope_new(f->r, f->scope);
    filter->node = node;
    it->data = filter;
    return filter->frame.scope ? it : NULL;
}

static bool loop_next(jinja_run *r, jinja_loop *loop)
{
    jv item = loop->after;
    loop->after = jv_missing();
    if (item.kind == JV_MISSING && !jinja_iter_next(r, loop->items, &item)) return false;
    loop->index0++;
    loop->before = loop->current;
    loop->current = item;
    return true;
}

static jinja_loop *loop_new(jinja_frame *f, const jinja_node *node, jv iterable, int64_t depth0)
{
    jinja_run *r = f->r;
    jinja_iter *items = jinja_iter_open(r, iterable);
    if (items && node->c) {
        items = filtered(f, node, items);
        iterable = jv_of_iter(items);
    }
    jinja_loop *loop = jr_alloc(r, 1, sizeof *loop);
    if (!loop || !items) return NULL;
    *loop = (jinja_loop){.items = items,
                         .iterable = iterable,
                         .index0 = -1,
                         .length = -1,
                         .depth0 = depth0,
                         .scope = f->scope};
    if (node->op) loop->recursive = node;
    return loop;
}

/* The else branch runs when no iteration reached the end of the body: so does the reference, even where all of
 * them ended by break or continue. */
jinja_flow jinja_exec_for(jinja_frame *f, const jinja_node *node, jv iterable, int64_t depth0)
{
    static const jv_string loop_name = {.data = "loop", .len = 4, .chars = 4};
    jinja_run *r = f->r;
    jinja_frame body = *f;
    jinja_loop *loop = loop_new(f, node, iterable, depth0);
    bool completed = false;
    if (loop) body.scope = jinja_scope_new(r, f->scope);
    if (jr_failed(r)) return FLOW_STOP;
    while (loop_next(r, loop)) {
        body.scope->n = 0;
        jinja_assign_name(r, body.scope, &loop_name, (jv){.kind = JV_LOOP, .as.loop = loop});
        jinja_assign(&body, node->a, loop->current);
        jinja_flow flow = jinja_exec(&body, &node->list);
        if (flow == FLOW_STOP) return FLOW_STOP;
        if (flow == FLOW_BREAK) break;
        completed = completed || flow == FLOW_NEXT;
    }
    if (jr_failed(r)) return FLOW_STOP;
    if (completed || !node->list2.n) return FLOW_NEXT;
    body.scope = jinja_scope_new(r, f->scope);
    return body.scope ? jinja_exec(&body, &node->list2) : FLOW_STOP;
}

/* --- statements ---------------------------------------------------------------------------------------------------- */
static jinja_flow exec_scoped(jinja_frame *f, const jinja_nodes *body, jinja_text *out)
{
    jinja_frame inner = *f;
    inner.scope = jinja_scope_new(f->r, f->scope);
    inner.out = out;
    return inner.scope ? jinja_exec(&inner, body) : FLOW_STOP;
}

jv jinja_capture(jinja_frame *f, const jinja_nodes *body)
{
    jinja_text t = {0};
    exec_scoped(f, body, &t);
    return text_value(f->r, &t);
}

static jinja_flow exec_if(jinja_frame *f, const jinja_node *node)
{
    for (; node; node = node->b) {
        bool holds = jv_truth(jinja_eval(f, node->a));
        if (jr_failed(f->r)) return FLOW_STOP;
        if (holds) return jinja_exec(f, &node->list);
        if (!node->b) return jinja_exec(f, &node->list2);
    }
    return FLOW_NEXT;
}

/* A filter block, or a block set: the text of the body, through the filter where there is one. */
static jinja_flow exec_captured(jinja_frame *f, const jinja_node *node)
{
    jinja_text t = {0};
    jinja_flow flow = exec_scoped(f, &node->list, &t);
    if (flow != FLOW_NEXT) return flow;
    jinja_frame filter = *f;
    filter.input = text_value(f->r, &t);
    jv v = node->b ? jinja_eval(&filter, node->b) : filter.input;
    if (node->kind == NODE_SET_BLOCK) {
        jinja_assign(f, node->a, v);
    } else {
        jv_write(f->r, f->out, v);
    }
    return FLOW_NEXT;
}

static jinja_flow exec_with(jinja_frame *f, const jinja_node *node)
{
    jinja_frame inner = *f;
    inner.scope = jinja_scope_new(f->r, f->scope);
    for (size_t i = 0; i < node->list2.n && !jr_failed(f->r); i++) {
        jinja_assign(&inner, node->list2.items[i]->a, jinja_eval(f, node->list2.items[i]->b));
    }
    return jr_failed(f->r) ? FLOW_STOP : jinja_exec(&inner, &node->list);
}

static jv macro_value(jinja_frame *f, const jinja_node *node)
{
    jinja_macro *macro = jr_alloc(f->r, 1, sizeof *macro);
    if (!macro) return jv_none();
    *macro = (jinja_macro){.node = node, .scope = f->scope};
    return (jv){.kind = JV_MACRO, .as.macro = macro};
}

static void exec_call_block(jinja_frame *f, const jinja_node *node)
{
    static const jv_string caller = {.data = "caller", .len = 6, .chars = 6};
    jv_keyword extra = {&caller, macro_value(f, node->b)};
    jv_write(f->r, f->out, jinja_eval_call(f, node->a, &extra));
}

static jinja_flow exec_node(jinja_frame *f, const jinja_node *node)
{
    switch (node->kind) {
    case NODE_DATA: text_append(f->r, f->out, node->value.as.s->data, node->value.as.s->len); break;
    case NODE_OUTPUT: {
        jv v = jinja_eval(f, node->a);
        if (!jr_failed(f->r)) jv_write(f->r, f->out, v);
        break;
    }
    case NODE_IF: return exec_if(f, node);
    case NODE_FOR: return jinja_exec_for(f, node, jinja_eval(f, node->b), 0);
    case NODE_SET: jinja_assign(f, node->a, jinja_eval(f, node->b)); break;
    case NODE_SET_BLOCK:
    case NODE_FILTER_BLOCK: return exec_captured(f, node);
    case NODE_MACRO: jinja_assign_name(f->r, f->scope, node->value.as.s, macro_value(f, node)); break;
    case NODE_CALL_BLOCK: exec_call_block(f, node); break;
    case NODE_WITH: return exec_with(f, node);
    case NODE_SCOPE: return exec_scoped(f, &node->list, f->out);
    case NODE_BREAK: return FLOW_BREAK;
    case NODE_CONTINUE: return FLOW_CONTINUE;
    default: jr_error(f->r, "not a statement");
    }
    return FLOW_NEXT;
}

jinja_flow jinja_exec(jinja_frame *f, const jinja_nodes *body)
{
    jinja_flow flow = FLOW_NEXT;
    bool ok = jr_enter(f->r);
    for (size_t i = 0; ok && flow == FLOW_NEXT && i < body->n && jr_charge(f->r, 1); i++) {
        f->r->line = body->items[i]->line;
        flow = exec_node(f, body->items[i]);
    }
    jr_leave(f->r);
    return jr_failed(f->r) ? FLOW_STOP : flow;
}

/* --- the API --------------------------------------------------------------------------------------------------------- */
nvllm_status jinja_compile(jinja_template **out, const char *source, size_t len, nvllm_error *err)
{
    *out = NULL;
    if (len > MAX_SOURCE) {
        return error_set(err, NVLLM_ERR_LIMIT, "the template has %zu bytes, more than %u", len, MAX_SOURCE);
    }
    if (utf8_valid_prefix(source, len) != len)
        return error_set(err, NVLLM_ERR_TEMPLATE, "the template is not valid UTF-8");
    jinja_template *t = calloc(1, sizeof *t);
    if (!t) return error_memory(err, sizeof *t, "the template");
    t->memory.limit = MAX_COMPILED;
    nvllm_status status = jinja_parse(t, source, len, err);
    if (status == NVLLM_OK) {
        *out = t;
    } else {
        jinja_free(t);
    }
    return status;
}

void jinja_free(jinja_template *t)
{
    if (!t) return;
    arena_free(&t->memory);
    free(t);
}

static void run_init(jinja_run *r, const jinja_options *opt)
{
    static const jinja_options usual = {0};
    if (!opt) opt = &usual;
    r->memory.limit = opt->max_memory ? opt->max_memory : (size_t)256 << 20;
    r->max_steps = opt->max_steps ? opt->max_steps : 4000000;
    r->max_depth = opt->max_depth ? opt->max_depth : 1000;
    r->max_output = opt->max_output ? opt->max_output : (size_t)32 << 20;
    r->has_now = opt->has_now;
    r->now = opt->now;
}

static nvllm_status finish(jinja_run *r, const jinja_text *out, char **text, size_t *len, nvllm_error *err)
{
    if (jr_failed(r)) {
        const char *what =
            r->status == NVLLM_ERR_LIMIT ? "the template was stopped at line" : "template line";
        return error_set(err, r->status, "%s %d: %s", what, r->line, r->message);
    }
    *text = malloc(out->len + 1);
    if (!*text) return error_memory(err, out->len + 1, "the rendered template");
    if (out->len) memcpy(*text, out->data, out->len);
    (*text)[out->len] = 0;
    *len = out->len;
    return NVLLM_OK;
}

nvllm_status jinja_render(const jinja_template *t, const json_t *context, const jinja_options *opt,
                          char **text, size_t *len, nvllm_error *err)
{
    jinja_run r = {.status = NVLLM_OK};
    jinja_text out = {0};
    *text = NULL;
    *len = 0;
    if (context && !json_is_object(context)) {
        return error_set(err, NVLLM_ERR_USAGE, "the template's context is not a JSON object");
    }
    run_init(&r, opt);
    jv variables = context ? jv_from_json(&r, context, JSON_STRINGS_BORROWED) : jv_dict_new(&r);
    jinja_scope root = {0};
    if (!jr_failed(&r)) {
        r.context = variables.as.dict;
        jinja_frame f = {.r = &r, .scope = &root, .out = &out, .input = jv_none()};
        jinja_exec(&f, &t->body);
    }
    nvllm_status status = finish(&r, &out, text, len, err);
    arena_free(&r.memory);
    return status;
}
