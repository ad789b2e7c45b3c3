/* The lexer: a template's source as one array of tokens, with white space control already applied.
 *
 * Follows jinja2/lexer.py with trim_blocks and lstrip_blocks on and keep_trailing_newline off: a tag's `-` and `+`,
 * raw blocks, comments and line ends are gone from what the parser sees. */
#ifndef NVLLM_TEXT_JINJA_LEX_H
#define NVLLM_TEXT_JINJA_LEX_H

#include "base/arena.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
    TOKEN_EOF,
    TOKEN_DATA,
    TOKEN_VARIABLE_BEGIN,
    TOKEN_VARIABLE_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_ADD,
    TOKEN_SUB,
    TOKEN_MUL,
    TOKEN_POW,
    TOKEN_DIV,
    TOKEN_FLOORDIV,
    TOKEN_MOD,
    TOKEN_TILDE,
    TOKEN_EQ,
    TOKEN_NE,
    TOKEN_LT,
    TOKEN_LE,
    TOKEN_GT,
    TOKEN_GE,
    TOKEN_ASSIGN,
    TOKEN_DOT,
    TOKEN_COLON,
    TOKEN_PIPE,
    TOKEN_COMMA,
    TOKEN_SEMICOLON,
    TOKEN_LPAREN,
    TOKEN_RPAREN,
    TOKEN_LBRACKET,
    TOKEN_RBRACKET,
    TOKEN_LBRACE,
    TOKEN_RBRACE
} jinja_token_type;

typedef struct {
    jinja_token_type type;
    int line;
    const char *text; /* data, name, or string with its escapes resolved */
    size_t len;
    union {
        int64_t i;
        double f;
    } number;
} jinja_token;

typedef struct {
    const jinja_token *tokens; /* the last one is TOKEN_EOF */
    size_t n;
} jinja_tokens;

/* `text` (template data and names) goes to `keep`, which the caller keeps as long as the template; the tokens
 * themselves go to `scratch`. */
nvllm_status jinja_lex(jinja_tokens *out, const char *source, size_t len, arena *keep, arena *scratch,
                       nvllm_error *err);

const char *jinja_token_name(jinja_token_type type); /* for messages: "end of print statement", "(" */

#endif
