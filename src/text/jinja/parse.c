/* Statements, the token stream, and jinja_parse itself; see parser.h. */
#include "text/jinja/parser.h"
#include "text/jinja/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static jinja_nodes parse_body(parser *p, const char *const *ends);

/* --- what both halves use ------------------------------------------------------------------------------------ */
void *parser_fail(parser *p, const char *format, ...)
{
    if (p->status == NVLLM_OK) {
        char text[300];
        va_list ap;
        va_start(ap, format);
        vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        p->status =
            error_set(p->err, NVLLM_ERR_TEMPLATE, "template line %d: %s", parser_token(p)->line, text);
        p->pos = p->n - 1;
    }
    return NULL;
}

void *parser_unexpected(parser *p)
{
    const jinja_token *t = parser_token(p);
    if (t->type != TOKEN_NAME) return parser_fail(p, "unexpected '%s'", jinja_token_name(t->type));
    return parser_fail(p, "unexpected '%.*s'", (int)(t->len < 100 ? t->len : 100), t->text);
}

static void fail_limit(parser *p, const char *what)
{
    if (p->status != NVLLM_OK) return;
    p->status = error_set(p->err, NVLLM_ERR_LIMIT, "template line %d: %s", parser_token(p)->line, what);
    p->pos = p->n - 1;
}

jinja_node *parser_node(parser *p, jinja_node_kind kind, int line)
{
    if (p->status != NVLLM_OK) return NULL;
    jinja_node *node = arena_alloc(p->memory, sizeof *node);
    if (!node) {
        fail_limit(p, "too large to compile");
        return NULL;
    }
    node->kind = kind;
    node->line = line;
    return node;
}

bool parser_enter(parser *p)
{
    if (p->depth >= MAX_NESTING) fail_limit(p, "nested too deeply");
    if (p->status != NVLLM_OK) return false;
    p->depth++;
    return true;
}

void parser_leave(parser *p)
{
    p->depth--;
}

void parser_push(parser *p, node_list *list, jinja_node *node)
{
    if (!node || p->status != NVLLM_OK) return;
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4;
        jinja_node **items = arena_calloc(p->memory, cap, sizeof(jinja_node *));
        if (!items) {
            fail_limit(p, "too large to compile");
            return;
        }
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = node;
}

jinja_nodes parser_list(const node_list *list)
{
    return (jinja_nodes){list->items, list->n};
}

jv parser_string(parser *p, const char *text, size_t len)
{
    jv_string *s = arena_alloc(p->memory, sizeof *s);
    if (!s) {
        fail_limit(p, "too large to compile");
        return jv_none();
    }
    *s = (jv_string){.data = text, .len = len, .chars = jutf8_count(text, len)};
    return jv_of_string(s);
}

/* --- the token stream ---------------------------------------------------------------------------------------- */
const jinja_token *parser_token(const parser *p)
{
    return &p->tokens[p->pos];
}

const jinja_token *parser_look(const parser *p)
{
    return &p->tokens[p->pos + 1 < p->n ? p->pos + 1 : p->pos];
}

void parser_next(parser *p)
{
    if (p->pos + 1 < p->n) p->pos++;
}

bool parser_at(const parser *p, jinja_token_type type)
{
    return parser_token(p)->type == type;
}

bool token_is_name(const jinja_token *t, const char *name)
{
    return t->type == TOKEN_NAME && t->len == strlen(name) && memcmp(t->text, name, t->len) == 0;
}

bool parser_at_name(const parser *p, const char *name)
{
    return token_is_name(parser_token(p), name);
}

bool parser_skip(parser *p, jinja_token_type type)
{
    if (!parser_at(p, type)) return false;
    parser_next(p);
    return true;
}

bool parser_skip_name(parser *p, const char *name)
{
    if (!parser_at_name(p, name)) return false;
    parser_next(p);
    return true;
}

bool parser_expect(parser *p, jinja_token_type type)
{
    if (p->status != NVLLM_OK) return false;
    if (parser_skip(p, type)) return true;
    const jinja_token *t = parser_token(p);
    bool named = t->type == TOKEN_NAME;
    const char *got = named ? t->text : jinja_token_name(t->type);
    size_t len = named ? t->len : strlen(got);
    parser_fail(p, "expected '%s', got '%.*s'", jinja_token_name(type), (int)(len < 100 ? len : 100), got);
    return false;
}

/* --- targets --------------------------------------------------------------------------------------------------- */
static void check_target(parser *p, const jinja_node *target, bool allow_namespace)
{
    if (!target || p->status != NVLLM_OK) return;
    if (target->kind == NODE_NAME || (allow_namespace && target->kind == NODE_NAMESPACE_ATTRIBUTE)) return;
    if (target->kind != NODE_TUPLE) {
        parser_fail(p, "cannot assign to this expression");
        return;
    }
    if (!parser_enter(p)) return;
    for (size_t i = 0; i < target->list.n; i++) check_target(p, target->list.items[i], allow_namespace);
    parser_leave(p);
}

static jinja_node *parse_assign_target(parser *p, const char *stop, bool allow_namespace)
{
    jinja_node *target = parse_tuple(p, TUPLE_TARGET, stop);
    check_target(p, target, allow_namespace);
    return target;
}

/* --- statements -------------------------------------------------------------------------------------------------- */
static jinja_node *parse_set(parser *p, jinja_node *node)
{
    static const char *const ends[] = {"endset", NULL};
    node->a = parse_assign_target(p, NULL, true);
    if (parser_skip(p, TOKEN_ASSIGN)) {
        node->kind = NODE_SET;
        node->b = parse_tuple(p, TUPLE_PLAIN, NULL);
        return node;
    }
    node->kind = NODE_SET_BLOCK;
    if (parser_skip(p, TOKEN_PIPE)) node->b = parse_filters(p, parser_node(p, NODE_INPUT, node->line));
    node->list = parse_body(p, ends);
    parser_next(p);
    return node;
}

static jinja_node *parse_for(parser *p, jinja_node *node)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    static const char *const last[] = {"endfor", NULL};
    if (parser_at_name(p, "loop")) return parser_fail(p, "cannot assign to the special loop variable");
    node->a = parse_assign_target(p, "in", false);
    if (!parser_skip_name(p, "in")) return parser_fail(p, "expected 'in' in a for statement");
    node->b = parse_tuple(p, TUPLE_NO_CONDITION, "recursive");
    if (parser_skip_name(p, "if")) node->c = parse_expression(p);
    node->op = parser_skip_name(p, "recursive");
    p->loops++;
    node->list = parse_body(p, ends);
    p->loops--;
    if (parser_skip_name(p, "else")) node->list2 = parse_body(p, last);
    parser_next(p);
    return node;
}

/* `elif` chains are linked by node->b, not nested, so that their number does not count as depth. */
static jinja_node *parse_if(parser *p, jinja_node *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    const jinja_node *unknown = p->unknown;
    jinja_node *branch = node;
    while (p->status == NVLLM_OK) {
        branch->a = parse_tuple(p, TUPLE_NO_CONDITION, NULL);
        branch->list = parse_body(p, ends);
        if (!parser_at_name(p, "elif")) break;
        parser_next(p);
        branch->b = parser_node(p, NODE_IF, parser_token(p)->line);
        if (!branch->b) return NULL;
        branch = branch->b;
    }
    if (parser_skip_name(p, "else")) branch->list2 = parse_body(p, last);
    parser_next(p);
    p->unknown = unknown;
    return node;
}

/* `(a, b=1)` of a macro or call block. */
static void parse_signature(parser *p, jinja_node *macro)
{
    node_list parameters = {0};
    bool has_default = false;
    parser_expect(p, TOKEN_LPAREN);
    while (p->status == NVLLM_OK && !parser_at(p, TOKEN_RPAREN)) {
        if (parameters.n && !parser_expect(p, TOKEN_COMMA)) return;
        jinja_node *parameter = parser_node(p, NODE_PARAMETER, parser_token(p)->line);
        if (!parameter || !parse_name(p, &parameter->value)) return;
        if (parser_skip(p, TOKEN_ASSIGN)) {
            parameter->a = parse_expression(p);
            has_default = true;
        } else if (has_default) {
            parser_fail(p, "non-default argument follows default argument");
        }
        parser_push(p, &parameters, parameter);
    }
    parser_expect(p, TOKEN_RPAREN);
    macro->list2 = parser_list(&parameters);
}

/* The body of a function: loops around it do not reach inside, and special names in it are its own. */
static void parse_function_body(parser *p, jinja_node *macro, const char *end)
{
    const char *const ends[] = {end, NULL};
    unsigned loops = p->loops, special = p->special;
    p->loops = 0;
    p->special = 0;
    macro->list = parse_body(p, ends);
    macro->op = (int)p->special;
    p->loops = loops;
    p->special |= special;
    parser_next(p);
}

static jinja_node *parse_macro(parser *p, jinja_node *node)
{
    if (!parse_name(p, &node->value)) return NULL;
    parse_signature(p, node);
    parse_function_body(p, node, "endmacro");
    return node;
}

static jinja_node *parse_call_block(parser *p, jinja_node *node)
{
    node->b = parser_node(p, NODE_MACRO, node->line);
    if (!node->b) return NULL;
    if (parser_at(p, TOKEN_LPAREN)) parse_signature(p, node->b);
    node->a = parse_expression(p);
    if (!node->a || node->a->kind != NODE_CALL) return parser_fail(p, "expected call");
    parse_function_body(p, node->b, "endcall");
    return node;
}

static jinja_node *parse_filter_block(parser *p, jinja_node *node)
{
    static const char *const ends[] = {"endfilter", NULL};
    node->b = parse_filters(p, parser_node(p, NODE_INPUT, node->line));
    node->list = parse_body(p, ends);
    parser_next(p);
    return node;
}

static jinja_node *parse_with(parser *p, jinja_node *node)
{
    static const char *const ends[] = {"endwith", NULL};
    node_list sets = {0};
    while (p->status == NVLLM_OK && !parser_at(p, TOKEN_BLOCK_END)) {
        if (sets.n && !parser_expect(p, TOKEN_COMMA)) break;
        jinja_node *set = parser_node(p, NODE_SET, parser_token(p)->line);
        if (!set) return NULL;
        set->a = parse_primary(p);
        check_target(p, set->a, false);
        parser_expect(p, TOKEN_ASSIGN);
        set->b = parse_expression(p);
        parser_push(p, &sets, set);
    }
    node->list2 = parser_list(&sets);
    node->list = parse_body(p, ends);
    parser_next(p);
    return node;
}

static jinja_node *parse_block(parser *p, jinja_node *node)
{
    static const char *const ends[] = {"endblock", NULL};
    jv name, again;
    if (!parse_name(p, &name)) return NULL;
    parser_skip_name(p, "scoped");
    unsigned loops = p->loops;
    p->loops = 0;
    node->list = parse_body(p, ends);
    p->loops = loops;
    parser_next(p);
    if (parser_at(p, TOKEN_NAME)) parse_name(p, &again);
    return node;
}

/* A block whose assistant tokens the reference tracks; to the text it makes no difference. */
static jinja_node *parse_generation(parser *p, jinja_node *node)
{
    parse_function_body(p, node, "endgeneration");
    return node;
}

static jinja_node *parse_print(parser *p, jinja_node *node)
{
    node_list outputs = {0};
    while (p->status == NVLLM_OK && !parser_at(p, TOKEN_BLOCK_END)) {
        if (outputs.n && !parser_expect(p, TOKEN_COMMA)) break;
        jinja_node *output = parser_node(p, NODE_OUTPUT, node->line);
        if (!output) return NULL;
        output->a = parse_expression(p);
        parser_push(p, &outputs, output);
    }
    node->list = parser_list(&outputs);
    return node;
}

static jinja_node *parse_loop_control(parser *p, jinja_node *node)
{
    if (!p->loops)
        return parser_fail(p, "'%s' outside of a loop", node->kind == NODE_BREAK ? "break" : "continue");
    return node;
}

static const struct {
    const char *tag;
    jinja_node_kind kind;
    jinja_node *(*parse)(parser *p, jinja_node *node);
} statements[] = {
    {"if", NODE_IF, parse_if},
    {"for", NODE_FOR, parse_for},
    {"set", NODE_SET, parse_set},
    {"macro", NODE_MACRO, parse_macro},
    {"call", NODE_CALL_BLOCK, parse_call_block},
    {"filter", NODE_FILTER_BLOCK, parse_filter_block},
    {"with", NODE_WITH, parse_with},
    {"block", NODE_SCOPE, parse_block},
    {"generation", NODE_SCOPE, parse_generation},
    {"print", NODE_SCOPE, parse_print},
    {"break", NODE_BREAK, parse_loop_control},
    {"continue", NODE_CONTINUE, parse_loop_control},
};

static jinja_node *parse_statement(parser *p)
{
    const jinja_token *tag = parser_token(p);
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!token_is_name(tag, statements[i].tag)) continue;
        jinja_node *node = parser_node(p, statements[i].kind, tag->line);
        if (!node || !parser_enter(p)) return NULL;
        parser_next(p);
        node = statements[i].parse(p, node);
        parser_leave(p);
        return node;
    }
    if (tag->type != TOKEN_NAME) return parser_fail(p, "tag name expected");
    return parser_fail(p, "the tag '%.*s' is unknown, misplaced or not supported",
                       (int)(tag->len < 100 ? tag->len : 100), tag->text);
}

static bool at_end_tag(const parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++) {
        if (parser_at_name(p, *ends)) return true;
    }
    return false;
}

/* Statements up to an end tag, whose name is then the current token; `ends` NULL: up to the end. */
static jinja_nodes parse_statements(parser *p, const char *const *ends)
{
    node_list body = {0};
    while (p->status == NVLLM_OK && !parser_at(p, TOKEN_EOF)) {
        const jinja_token *t = parser_token(p);
        jinja_node *node = NULL;
        parser_next(p);
        if (t->type == TOKEN_DATA) {
            node = parser_node(p, NODE_DATA, t->line);
            if (node) node->value = parser_string(p, t->text, t->len);
        } else if (t->type == TOKEN_VARIABLE_BEGIN) {
            node = parser_node(p, NODE_OUTPUT, t->line);
            if (node) node->a = parse_tuple(p, TUPLE_PLAIN, NULL);
            parser_expect(p, TOKEN_VARIABLE_END);
        } else {
            if (at_end_tag(p, ends)) return parser_list(&body);
            node = parse_statement(p);
            parser_expect(p, TOKEN_BLOCK_END);
        }
        parser_push(p, &body, node);
    }
    if (ends) parser_fail(p, "unexpected end of template, '%s' is missing", ends[0]);
    return parser_list(&body);
}

/* The rest of an opening tag and the body behind it. */
static jinja_nodes parse_body(parser *p, const char *const *ends)
{
    parser_skip(p, TOKEN_COLON);
    if (!parser_expect(p, TOKEN_BLOCK_END)) return (jinja_nodes){0};
    return parse_statements(p, ends);
}

nvllm_status jinja_parse(jinja_template *t, const char *source, size_t len, nvllm_error *err)
{
    arena scratch = {.limit = t->memory.limit};
    jinja_tokens tokens;
    nvllm_status status = jinja_lex(&tokens, source, len, &t->memory, &scratch, err);
    if (status == NVLLM_OK) {
        parser p = {.tokens = tokens.tokens, .n = tokens.n, .memory = &t->memory, .err = err};
        t->body = parse_statements(&p, NULL);
        if (p.status == NVLLM_OK && p.unknown) {
            const jv_string *name = p.unknown->value.as.s;
            p.status = error_set(err, NVLLM_ERR_TEMPLATE, "template line %d: no %s named '%.*s'",
                                 p.unknown->line, p.unknown->kind == NODE_TEST ? "test" : "filter",
                                 (int)(name->len < 100 ? name->len : 100), name->data);
        }
        status = p.status;
    }
    arena_free(&scratch);
    return status;
}
