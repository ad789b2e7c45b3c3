/* Expressions, by recursive descent; the grammar is that of jinja2/parser.py. */
#include "text/jinja/parser.h"
#include "text/jinja/filters.h"

#include <string.h>

static jinja_node *parse_unary(parser *p, bool with_filter);
static jinja_node *parse_postfix(parser *p, jinja_node *node);

static jinja_node *node_of(parser *p, jinja_node_kind kind, int op, jinja_node *a, jinja_node *b)
{
    jinja_node *node = parser_node(p, kind, a ? a->line : 0);
    if (!node) return NULL;
    node->op = op;
    node->a = a;
    node->b = b;
    return node;
}

static jinja_node *constant(parser *p, jv value)
{
    jinja_node *node = parser_node(p, NODE_CONST, parser_token(p)->line);
    if (node) node->value = value;
    return node;
}

bool parse_name(parser *p, jv *name)
{
    const jinja_token *t = parser_token(p);
    if (!parser_expect(p, TOKEN_NAME)) return false;
    *name = parser_string(p, t->text, t->len);
    return p->status == NVLLM_OK;
}

/* --- primaries --------------------------------------------------------------------------------------------- */
static jinja_node *parse_word(parser *p)
{
    static const struct {
        const char *word;
        jv value;
    } words[] = {
        {"true", {.kind = JV_BOOL, .as.b = true}},
        {"True", {.kind = JV_BOOL, .as.b = true}},
        {"false", {.kind = JV_BOOL}},
        {"False", {.kind = JV_BOOL}},
        {"none", {.kind = JV_NONE}},
        {"None", {.kind = JV_NONE}},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!parser_at_name(p, words[i].word)) continue;
        jinja_node *node = constant(p, words[i].value);
        parser_next(p);
        return node;
    }
    p->special |= (parser_at_name(p, "caller") ? MACRO_CALLER : 0u) |
                  (parser_at_name(p, "kwargs") ? MACRO_KWARGS : 0u) |
                  (parser_at_name(p, "varargs") ? MACRO_VARARGS : 0u);
    jinja_node *node = parser_node(p, NODE_NAME, parser_token(p)->line);
    if (!node || !parse_name(p, &node->value)) return NULL;
    return node;
}

/* Adjacent string literals are one. */
static jinja_node *parse_strings(parser *p)
{
    const jinja_token *first = parser_token(p);
    jinja_node *node = constant(p, jv_none());
    size_t len = 0, count = 0;
    for (; parser_at(p, TOKEN_STRING); parser_next(p), count++) len += parser_token(p)->len;
    if (!node) return NULL;
    if (count == 1) {
        node->value = parser_string(p, first->text, first->len);
        return node;
    }
    char *text = arena_alloc(p->memory, len + 1);
    if (!text) return parser_fail(p, "too large to compile");
    size_t at = 0;
    for (size_t i = 0; i < count; at += first[i++].len) {
        if (first[i].len) memcpy(text + at, first[i].text, first[i].len);
    }
    node->value = parser_string(p, text, len);
    return node;
}

static jinja_node *parse_list(parser *p)
{
    jinja_node *node = parser_node(p, NODE_LIST, parser_token(p)->line);
    node_list items = {0};
    parser_next(p);
    while (p->status == NVLLM_OK && !parser_at(p, TOKEN_RBRACKET)) {
        if (items.n && (!parser_expect(p, TOKEN_COMMA) || parser_at(p, TOKEN_RBRACKET))) break;
        parser_push(p, &items, parse_expression(p));
    }
    if (!parser_expect(p, TOKEN_RBRACKET) || !node) return NULL;
    node->list = parser_list(&items);
    return node;
}

static jinja_node *parse_dict(parser *p)
{
    jinja_node *node = parser_node(p, NODE_DICT, parser_token(p)->line);
    node_list keys = {0}, values = {0};
    parser_next(p);
    while (p->status == NVLLM_OK && !parser_at(p, TOKEN_RBRACE)) {
        if (keys.n && (!parser_expect(p, TOKEN_COMMA) || parser_at(p, TOKEN_RBRACE))) break;
        parser_push(p, &keys, parse_expression(p));
        parser_expect(p, TOKEN_COLON);
        parser_push(p, &values, parse_expression(p));
    }
    if (!parser_expect(p, TOKEN_RBRACE) || !node) return NULL;
    node->list = parser_list(&keys);
    node->list2 = parser_list(&values);
    return node;
}

static jinja_node *parse_parentheses(parser *p)
{
    parser_next(p);
    jinja_node *node = parse_tuple(p, TUPLE_PARENTHESES, NULL);
    return parser_expect(p, TOKEN_RPAREN) ? node : NULL;
}

jinja_node *parse_primary(parser *p)
{
    const jinja_token *t = parser_token(p);
    jinja_node *node;
    switch (t->type) {
    case TOKEN_NAME: return parse_word(p);
    case TOKEN_STRING: return parse_strings(p);
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
        node = constant(p, t->type == TOKEN_FLOAT ? jv_float(t->number.f) : jv_int(t->number.i));
        parser_next(p);
        return node;
    case TOKEN_LPAREN: return parse_parentheses(p);
    case TOKEN_LBRACKET: return parse_list(p);
    case TOKEN_LBRACE: return parse_dict(p);
    default: return parser_unexpected(p);
    }
}

/* `ns.attribute` as a target of set; otherwise a primary. */
static jinja_node *parse_target(parser *p)
{
    if (!parser_at(p, TOKEN_NAME) || parser_look(p)->type != TOKEN_DOT) return parse_primary(p);
    jinja_node *node = parser_node(p, NODE_NAMESPACE_ATTRIBUTE, parser_token(p)->line);
    jinja_node *attribute = parser_node(p, NODE_CONST, parser_token(p)->line);
    if (!node || !attribute || !parse_name(p, &node->value)) return NULL;
    parser_next(p);
    if (!parse_name(p, &attribute->value)) return NULL;
    node->a = attribute;
    return node;
}

static bool at_tuple_end(const parser *p, const char *stop)
{
    jinja_token_type t = parser_token(p)->type;
    return t == TOKEN_VARIABLE_END || t == TOKEN_BLOCK_END || t == TOKEN_RPAREN ||
           (stop && parser_at_name(p, stop));
}

jinja_node *parse_tuple(parser *p, tuple_mode mode, const char *stop)
{
    int line = parser_token(p)->line;
    node_list items = {0};
    bool is_tuple = false;
    while (p->status == NVLLM_OK && !at_tuple_end(p, stop)) {
        jinja_node *item = mode == TUPLE_TARGET         ? parse_target(p)
                           : mode == TUPLE_NO_CONDITION ? parse_or(p)
                                                        : parse_expression(p);
        parser_push(p, &items, item);
        if (!parser_skip(p, TOKEN_COMMA)) break;
        is_tuple = true;
    }
    if (p->status != NVLLM_OK) return NULL;
    if (!is_tuple && items.n) return items.items[0];
    if (!is_tuple && mode != TUPLE_PARENTHESES) return parser_unexpected(p);
    jinja_node *node = parser_node(p, NODE_TUPLE, line);
    if (node) node->list = parser_list(&items);
    return node;
}

/* --- postfix: attributes, items, calls --------------------------------------------------------------------- */
/* An optional part of a slice: NULL where the next token ends it. */
static jinja_node *parse_bound(parser *p)
{
    jinja_token_type t = parser_token(p)->type;
    return t == TOKEN_COLON || t == TOKEN_RBRACKET || t == TOKEN_COMMA ? NULL : parse_expression(p);
}

static jinja_node *parse_slice(parser *p, jinja_node *object, jinja_node *start, int line)
{
    jinja_node *node = parser_node(p, NODE_SLICE, line);
    jinja_node **bounds = arena_calloc(p->memory, 3, sizeof(jinja_node *));
    if (!node || !bounds) return parser_fail(p, "too large to compile");
    bounds[0] = start;
    parser_next(p);
    bounds[1] = parse_bound(p);
    if (parser_skip(p, TOKEN_COLON)) bounds[2] = parse_bound(p);
    node->a = object;
    node->list = (jinja_nodes){bounds, 3};
    return node;
}

static jinja_node *parse_subscript(parser *p, jinja_node *object)
{
    int line = parser_token(p)->line;
    parser_next(p);
    jinja_node *key = parser_at(p, TOKEN_COLON) ? NULL : parse_expression(p);
    jinja_node *node;
    if (parser_at(p, TOKEN_COLON)) {
        node = parse_slice(p, object, key, line);
    } else if (parser_at(p, TOKEN_COMMA)) {
        node_list items = {0};
        parser_push(p, &items, key);
        while (parser_skip(p, TOKEN_COMMA)) parser_push(p, &items, parse_expression(p));
        jinja_node *tuple = parser_node(p, NODE_TUPLE, line);
        if (tuple) tuple->list = parser_list(&items);
        node = node_of(p, NODE_ITEM, 0, object, tuple);
    } else {
        node = node_of(p, NODE_ITEM, 0, object, key);
    }
    return parser_expect(p, TOKEN_RBRACKET) ? node : NULL;
}

static jinja_node *parse_attribute(parser *p, jinja_node *object)
{
    parser_next(p);
    if (parser_at(p, TOKEN_INTEGER)) {
        jinja_node *key = parse_primary(p);
        return node_of(p, NODE_ITEM, 0, object, key);
    }
    jinja_node *node = node_of(p, NODE_ATTRIBUTE, 0, object, NULL);
    return node && parse_name(p, &node->value) ? node : NULL;
}

static void parse_argument(parser *p, jinja_node *call, node_list *args, node_list *keywords)
{
    bool ok;
    if (parser_skip(p, TOKEN_MUL)) {
        ok = !call->b && !call->c;
        call->b = parse_expression(p);
    } else if (parser_skip(p, TOKEN_POW)) {
        ok = !call->c;
        call->c = parse_expression(p);
    } else if (parser_at(p, TOKEN_NAME) && parser_look(p)->type == TOKEN_ASSIGN) {
        jinja_node *keyword = parser_node(p, NODE_KEYWORD, parser_token(p)->line);
        ok = !call->c;
        if (!keyword || !parse_name(p, &keyword->value)) return;
        parser_next(p);
        keyword->a = parse_expression(p);
        parser_push(p, keywords, keyword);
    } else {
        ok = !call->b && !call->c && !keywords->n;
        parser_push(p, args, parse_expression(p));
    }
    if (!ok) parser_fail(p, "invalid syntax for function call expression");
}

/* `(arguments)` into a call, filter or test node. */
static void parse_arguments(parser *p, jinja_node *call)
{
    node_list args = {0}, keywords = {0};
    bool more = false;
    parser_expect(p, TOKEN_LPAREN);
    while (p->status == NVLLM_OK && !parser_at(p, TOKEN_RPAREN)) {
        if (more && (!parser_expect(p, TOKEN_COMMA) || parser_at(p, TOKEN_RPAREN))) break;
        parse_argument(p, call, &args, &keywords);
        more = true;
    }
    parser_expect(p, TOKEN_RPAREN);
    call->list = parser_list(&args);
    call->list2 = parser_list(&keywords);
}

static jinja_node *parse_call(parser *p, jinja_node *callee)
{
    jinja_node *node = parser_node(p, NODE_CALL, parser_token(p)->line);
    if (!node) return NULL;
    node->a = callee;
    parse_arguments(p, node);
    return node;
}

static jinja_node *parse_postfix(parser *p, jinja_node *node)
{
    while (p->status == NVLLM_OK) {
        if (parser_at(p, TOKEN_DOT)) {
            node = parse_attribute(p, node);
        } else if (parser_at(p, TOKEN_LBRACKET)) {
            node = parse_subscript(p, node);
        } else if (parser_at(p, TOKEN_LPAREN)) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    return node;
}

/* --- filters and tests --------------------------------------------------------------------------------------- */
/* Reads a dotted name into node->value. */
static bool parse_dotted_name(parser *p, jinja_node *node)
{
    if (!parse_name(p, &node->value)) return false;
    if (parser_at(p, TOKEN_DOT)) parser_fail(p, "no filter or test has a dotted name");
    return p->status == NVLLM_OK;
}

jinja_node *parse_filters(parser *p, jinja_node *input)
{
    do {
        jinja_node *node = parser_node(p, NODE_FILTER, parser_token(p)->line);
        if (!node || !parse_dotted_name(p, node)) return NULL;
        const jv_string *name = node->value.as.s;
        if (!p->unknown && !jinja_filter_find(name->data, name->len)) p->unknown = node;
        node->a = input;
        if (parser_at(p, TOKEN_LPAREN)) parse_arguments(p, node);
        input = node;
    } while (parser_skip(p, TOKEN_PIPE));
    return input;
}

static bool at_test_argument(const parser *p)
{
    switch (parser_token(p)->type) {
    case TOKEN_NAME:
        return !parser_at_name(p, "else") && !parser_at_name(p, "or") && !parser_at_name(p, "and");
    case TOKEN_STRING:
    case TOKEN_INTEGER:
    case TOKEN_FLOAT:
    case TOKEN_LBRACKET:
    case TOKEN_LBRACE: return true;
    default: return false;
    }
}

static jinja_node *parse_test(parser *p, jinja_node *value)
{
    jinja_node *node = parser_node(p, NODE_TEST, parser_token(p)->line);
    parser_next(p);
    bool negated = parser_skip_name(p, "not");
    if (!node || !parse_dotted_name(p, node)) return NULL;
    const jv_string *name = node->value.as.s;
    if (!p->unknown && !jinja_test_find(name->data, name->len)) p->unknown = node;
    node->a = value;
    if (parser_at(p, TOKEN_LPAREN)) {
        parse_arguments(p, node);
    } else if (at_test_argument(p)) {
        if (parser_at_name(p, "is")) return parser_fail(p, "you cannot chain multiple tests with is");
        node_list args = {0};
        parser_push(p, &args, parse_postfix(p, parse_primary(p)));
        node->list = parser_list(&args);
    }
    return negated ? node_of(p, NODE_NOT, 0, node, NULL) : node;
}

static jinja_node *parse_filter_expression(parser *p, jinja_node *node)
{
    while (p->status == NVLLM_OK) {
        if (parser_skip(p, TOKEN_PIPE)) {
            node = parse_filters(p, node);
        } else if (parser_at_name(p, "is")) {
            node = parse_test(p, node);
        } else if (parser_at(p, TOKEN_LPAREN)) {
            node = parse_call(p, node);
        } else {
            break;
        }
    }
    return node;
}

/* --- operators, loosest last ----------------------------------------------------------------------------------- */
static jinja_node *parse_unary(parser *p, bool with_filter)
{
    if (!parser_enter(p)) return NULL;
    jinja_node *node;
    if (parser_at(p, TOKEN_SUB) || parser_at(p, TOKEN_ADD)) {
        jinja_node_kind kind = parser_at(p, TOKEN_SUB) ? NODE_NEG : NODE_POS;
        parser_next(p);
        node = node_of(p, kind, 0, parse_unary(p, false), NULL);
    } else {
        node = parse_primary(p);
    }
    node = parse_postfix(p, node);
    if (with_filter) node = parse_filter_expression(p, node);
    parser_leave(p);
    return node;
}

static jinja_node *parse_power(parser *p)
{
    jinja_node *left = parse_unary(p, true);
    while (parser_skip(p, TOKEN_POW)) left = node_of(p, NODE_BINARY, BINARY_POW, left, parse_unary(p, true));
    return left;
}

static jinja_node *parse_product(parser *p)
{
    jinja_node *left = parse_power(p);
    for (;;) {
        jinja_binary op;
        switch (parser_token(p)->type) {
        case TOKEN_MUL: op = BINARY_MUL; break;
        case TOKEN_DIV: op = BINARY_DIV; break;
        case TOKEN_FLOORDIV: op = BINARY_FLOORDIV; break;
        case TOKEN_MOD: op = BINARY_MOD; break;
        default: return left;
        }
        parser_next(p);
        left = node_of(p, NODE_BINARY, (int)op, left, parse_power(p));
    }
}

static jinja_node *parse_concat(parser *p)
{
    jinja_node *first = parse_product(p);
    if (!parser_at(p, TOKEN_TILDE)) return first;
    node_list items = {0};
    parser_push(p, &items, first);
    while (parser_skip(p, TOKEN_TILDE)) parser_push(p, &items, parse_product(p));
    jinja_node *node = parser_node(p, NODE_CONCAT, first ? first->line : 0);
    if (node) node->list = parser_list(&items);
    return node;
}

static jinja_node *parse_sum(parser *p)
{
    jinja_node *left = parse_concat(p);
    while (parser_at(p, TOKEN_ADD) || parser_at(p, TOKEN_SUB)) {
        int op = parser_at(p, TOKEN_ADD) ? BINARY_ADD : BINARY_SUB;
        parser_next(p);
        left = node_of(p, NODE_BINARY, op, left, parse_concat(p));
    }
    return left;
}

/* Moves over a comparison operator; -1: there is none. */
static int parse_compare_operator(parser *p)
{
    jinja_token_type t = parser_token(p)->type;
    int op = t == TOKEN_EQ   ? COMPARE_EQ
             : t == TOKEN_NE ? COMPARE_NE
             : t == TOKEN_LT ? COMPARE_LT
             : t == TOKEN_LE ? COMPARE_LE
             : t == TOKEN_GT ? COMPARE_GT
             : t == TOKEN_GE ? COMPARE_GE
                             : -1;
    if (parser_at_name(p, "in")) op = COMPARE_IN;
    if (parser_at_name(p, "not") && token_is_name(parser_look(p), "in")) {
        op = COMPARE_NOT_IN;
        parser_next(p);
    }
    if (op >= 0) parser_next(p);
    return op;
}

static jinja_node *parse_compare(parser *p)
{
    jinja_node *first = parse_sum(p);
    node_list operands = {0};
    for (int op; (op = parse_compare_operator(p)) >= 0;) {
        parser_push(p, &operands, node_of(p, NODE_OPERAND, op, parse_sum(p), NULL));
    }
    if (!operands.n) return first;
    jinja_node *node = node_of(p, NODE_COMPARE, 0, first, NULL);
    if (node) node->list = parser_list(&operands);
    return node;
}

static jinja_node *parse_not(parser *p)
{
    if (!parser_at_name(p, "not")) return parse_compare(p);
    if (!parser_enter(p)) return NULL;
    parser_next(p);
    jinja_node *node = node_of(p, NODE_NOT, 0, parse_not(p), NULL);
    parser_leave(p);
    return node;
}

static jinja_node *parse_and(parser *p)
{
    jinja_node *left = parse_not(p);
    while (parser_skip_name(p, "and")) left = node_of(p, NODE_AND, 0, left, parse_not(p));
    return left;
}

jinja_node *parse_or(parser *p)
{
    jinja_node *left = parse_and(p);
    while (parser_skip_name(p, "or")) left = node_of(p, NODE_OR, 0, left, parse_and(p));
    return left;
}

jinja_node *parse_expression(parser *p)
{
    if (!parser_enter(p)) return NULL;
    const jinja_node *unknown = p->unknown;
    jinja_node *value = parse_or(p);
    while (parser_skip_name(p, "if")) {
        jinja_node *node = node_of(p, NODE_CONDITION, 0, parse_or(p), value);
        if (parser_skip_name(p, "else") && node) node->c = parse_expression(p);
        p->unknown = unknown; /* its parts may never be evaluated */
        value = node;
    }
    parser_leave(p);
    return value;
}
