/* Running a syntax tree: what statements, expressions and calls share. */
#ifndef NVLLM_TEXT_JINJA_EVAL_H
#define NVLLM_TEXT_JINJA_EVAL_H

#include "text/jinja/ast.h"
#include "text/jinja/builtin.h"
#include "text/jinja/iter.h"

typedef struct {
    const jv_string *name;
    jv value;
} jinja_variable;

/* Names of one loop body, macro call, ... and, through parent, of all around it. Assignments go to the
 * innermost scope only. */
typedef struct jinja_scope jinja_scope;
struct jinja_scope {
    jinja_scope *parent;
    jinja_variable *variables;
    size_t n, cap;
};

typedef struct {
    jinja_run *r;
    jinja_scope *scope;
    jinja_text *out;
    jv input; /* of NODE_INPUT */
} jinja_frame;

struct jinja_macro {
    const jinja_node *node;
    jinja_scope *scope; /* where it was defined */
};

struct jinja_loop {
    jinja_iter *items;
    jv iterable;
    jv current, before, after, changed; /* JV_MISSING: not there */
    int64_t index0;
    int64_t length; /* -1: not asked for yet */
    int64_t depth0;
    const jinja_node *recursive; /* the for statement, when it may be called; else NULL */
    jinja_scope *scope;          /* around that statement */
};

typedef enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_STOP } jinja_flow;

jv jinja_eval(jinja_frame *f, const jinja_node *node);
jinja_flow jinja_exec(jinja_frame *f, const jinja_nodes *body);

void jinja_assign_name(jinja_run *r, jinja_scope *scope, const jv_string *name, jv value);
void jinja_assign(jinja_frame *f, const jinja_node *target, jv value);
jinja_scope *jinja_scope_new(jinja_run *r, jinja_scope *parent);

/* The text that a body writes, as a string; the body runs in a new scope. */
jv jinja_capture(jinja_frame *f, const jinja_nodes *body);

/* Evaluates a call's, filter's or test's arguments; `extra` keyword is added when its name is not NULL. */
bool jinja_eval_args(jinja_frame *f, const jinja_node *call, const jv_keyword *extra, jv_args *out);
jv jinja_eval_call(jinja_frame *f, const jinja_node *call, const jv_keyword *extra);

jinja_flow jinja_exec_for(jinja_frame *f, const jinja_node *node, jv iterable, int64_t depth0);
jv jinja_macro_call(jinja_run *r, const jinja_macro *macro, const jv_args *args);
jv jinja_loop_call(jinja_run *r, const jinja_loop *loop, jv iterable);

#endif
