/* What the two halves of the parser share: parse.c (statements) and parse_expr.c (expressions).
 *
 * Failure is sticky: the first message wins, the token stream jumps to its end, and functions return NULL, which
 * their callers may store but not follow. Nesting is bounded by MAX_NESTING. */
#ifndef NVLLM_TEXT_JINJA_PARSER_H
#define NVLLM_TEXT_JINJA_PARSER_H

#include "text/jinja/ast.h"
#include "text/jinja/lex.h"

#define MAX_NESTING 200u

typedef struct {
    const jinja_token *tokens;
    size_t n, pos;
    arena *memory;
    size_t depth;
    unsigned loops;            /* loops open in the current function: break and continue are allowed */
    unsigned special;          /* MACRO_*: special names mentioned since the innermost macro began */
    const jinja_node *unknown; /* the first filter or test of no known name that is not inside an `if` */
    nvllm_status status;
    nvllm_error *err;
} parser;

typedef struct {
    jinja_node **items;
    size_t n, cap;
} node_list;

typedef enum { TUPLE_PLAIN, TUPLE_NO_CONDITION, TUPLE_PARENTHESES, TUPLE_TARGET } tuple_mode;

void *parser_fail(parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *parser_unexpected(parser *p); /* "unexpected 'x'" for the current token */
jinja_node *parser_node(parser *p, jinja_node_kind kind, int line);
bool parser_enter(parser *p);
void parser_leave(parser *p);
void parser_push(parser *p, node_list *list, jinja_node *node);
jinja_nodes parser_list(const node_list *list);
jv parser_string(parser *p, const char *text, size_t len);

/* The token stream. */
const jinja_token *parser_token(const parser *p);
const jinja_token *parser_look(const parser *p);
void parser_next(parser *p);
bool parser_at(const parser *p, jinja_token_type type);
bool parser_at_name(const parser *p, const char *name);
bool parser_skip(parser *p, jinja_token_type type);
bool parser_skip_name(parser *p, const char *name);
bool parser_expect(parser *p, jinja_token_type type);
bool token_is_name(const jinja_token *t, const char *name);

/* Expressions. `stop` is a name that ends a tuple ("in", "recursive"), or NULL. */
jinja_node *parse_expression(parser *p);
jinja_node *parse_or(parser *p);
jinja_node *parse_primary(parser *p);
jinja_node *parse_tuple(parser *p, tuple_mode mode, const char *stop);
jinja_node *parse_filters(parser *p,
                          jinja_node *input); /* `name(args)|name...`, the first `|` already gone */
bool parse_name(parser *p, jv *name);

#endif
