/* The syntax tree of a template: one node type, whose fields mean what the table below says for each kind.
 *
 * Nodes live in the template's arena and never change after jinja_compile, so any number of renders may walk
 * the tree at once. `value` holds constants and names. */
#ifndef NVLLM_TEXT_JINJA_AST_H
#define NVLLM_TEXT_JINJA_AST_H

#include "text/jinja/value.h"

typedef enum {
    /* expressions: kind        value   op             a          b         c        list       list2 */
    NODE_CONST,     /*         value                                                                    */
    NODE_NAME,      /*         name                                                                     */
    NODE_INPUT,     /* what a filter block or a filtered block set feeds into its first filter          */
    NODE_TUPLE,     /*                                                              items               */
    NODE_LIST,      /*                                                              items               */
    NODE_DICT,      /*                                                              keys       values   */
    NODE_NEG,       /*                                a                                                 */
    NODE_POS,       /*                                a                                                 */
    NODE_NOT,       /*                                a                                                 */
    NODE_AND,       /*                                a          b                                      */
    NODE_OR,        /*                                a          b                                      */
    NODE_BINARY,    /*                 jinja_binary   a          b                                      */
    NODE_CONCAT,    /*                                                              items               */
    NODE_COMPARE,   /*                                first                         NODE_OPERAND        */
    NODE_OPERAND,   /*                 jinja_compare  right                                             */
    NODE_CONDITION, /*                                test       then      else|0                       */
    NODE_ATTRIBUTE, /*         name                   object                                            */
    NODE_ITEM,      /*                                object     key                                    */
    NODE_SLICE, /*                                object                        [3] start stop step, 0: none */
    NODE_CALL,  /*                                callee     *args|0   **kw|0   positional keywords */
    NODE_FILTER,  /*         name                   value      *args|0   **kw|0   positional keywords */
    NODE_TEST,    /*         name                   value      *args|0   **kw|0   positional keywords */
    NODE_KEYWORD, /*         name                   value                                             */
    NODE_NAMESPACE_ATTRIBUTE, /* name (of the namespace), attribute in a->value; target of set only      */
    /* statements */
    NODE_OUTPUT,    /*                                expression                                        */
    NODE_DATA,      /*         text                                                                     */
    NODE_IF,        /*                                test       elif|0             body       else     */
    NODE_FOR,       /*                 recursive      target     iterable  test|0   body       else     */
    NODE_SET,       /*                                target     value                                  */
    NODE_SET_BLOCK, /*                                target     filter|0           body                */
    NODE_MACRO, /*         name    MACRO_*                                      body       NODE_PARAMETER */
    NODE_PARAMETER,    /*         name                   default|0                                         */
    NODE_CALL_BLOCK,   /*                                call       NODE_MACRO                             */
    NODE_FILTER_BLOCK, /*                              filter                        body                */
    NODE_WITH,         /*                                                              body       NODE_SET */
    NODE_SCOPE,        /* generation and block                                         body                */
    NODE_BREAK,
    NODE_CONTINUE
} jinja_node_kind;

typedef enum {
    BINARY_ADD,
    BINARY_SUB,
    BINARY_MUL,
    BINARY_DIV,
    BINARY_FLOORDIV,
    BINARY_MOD,
    BINARY_POW
} jinja_binary;

typedef enum {
    COMPARE_EQ,
    COMPARE_NE,
    COMPARE_LT,
    COMPARE_LE,
    COMPARE_GT,
    COMPARE_GE,
    COMPARE_IN,
    COMPARE_NOT_IN
} jinja_compare;

/* Which special names a macro's body mentions, and so accepts. */
enum { MACRO_CALLER = 1, MACRO_KWARGS = 2, MACRO_VARARGS = 4 };

typedef struct jinja_node jinja_node;

typedef struct {
    jinja_node **items;
    size_t n;
} jinja_nodes;

struct jinja_node {
    jinja_node_kind kind;
    int op, line;
    jv value;
    jinja_node *a, *b, *c;
    jinja_nodes list, list2;
};

struct jinja_template {
    arena memory;
    jinja_nodes body;
};

/* Parses the normalised tokens of `source` into t->body. */
nvllm_status jinja_parse(jinja_template *t, const char *source, size_t len, nvllm_error *err);

#endif
