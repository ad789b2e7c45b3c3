/* Reading tokenizer.json: small helpers for its parts, and a reader of our own for its large lists.
 *
 * The file is up to 20 MB, nearly all of it `vocab` and `merges`. A tree of those costs 0.2 s and ten times
 * the memory, so a cursor walks over them in place; every other value is handed to jansson as its own
 * span of bytes. The cursor is as strict as jansson where it reads values; skipping checks brackets and
 * strings only, and whatever is skipped is then read by one of the two. */
#ifndef NVLLM_TEXT_TOK_JSON_H
#define NVLLM_TEXT_TOK_JSON_H

#include "base/buffer.h"
#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

#define TOK_MAX_STEPS 64 /* of one normalizer, pre-tokenizer or decoder, Sequences flattened */
#define TOK_MAX_DEPTH 8  /* Sequences inside each other */

/* --- parts read by jansson; `where` names the part in errors ------------------------------------------ */

typedef enum { TOK_REQUIRED, TOK_DEFAULT_FALSE, TOK_DEFAULT_TRUE } tok_default;

/* The part's "type"; refuses what is not an object and Sequences nested too deeply. */
nvllm_status tok_json_type(const json_t *json, const char *where, int depth, const char **type,
                           nvllm_error *err);
nvllm_status tok_json_bool(const json_t *json, const char *key, const char *where, tok_default missing,
                           bool *out, nvllm_error *err);
/* A required string, copied into malloc'ed memory (never NULL on success). */
nvllm_status tok_json_text(const json_t *json, const char *key, const char *where, char **text, size_t *len,
                           nvllm_error *err);
/* A required string of exactly one character. */
nvllm_status tok_json_char(const json_t *json, const char *key, const char *where, char out[4], size_t *len,
                           nvllm_error *err);

/* --- the cursor ---------------------------------------------------------------------------------------- */

typedef struct {
    const char *begin, *at, *end;
    buffer scratch; /* the last string, where it had escapes */
    nvllm_error *err;
} tok_cursor;

typedef struct {
    const char *text;
    size_t len;
} tok_slice; /* len 0: absent */

/* `c` to walk over a slice, from its first byte. Free with tok_cursor_free. */
void tok_cursor_start(tok_cursor *c, tok_slice slice, nvllm_error *err);
void tok_cursor_free(tok_cursor *c);
nvllm_status tok_cursor_fail(tok_cursor *c, const char *what); /* "byte 123: expected ..." */

/* Walks over an object or list: call with first = true, then false; *more is false at its end. */
nvllm_status tok_cursor_item(tok_cursor *c, char open, char close, bool first, bool *more);
/* A string; *text points into the input or into scratch, until the next string. Valid UTF-8. */
nvllm_status tok_cursor_string(tok_cursor *c, const char **text, size_t *len);
nvllm_status tok_cursor_key(tok_cursor *c, const char **text, size_t *len); /* a string and its ':' */
nvllm_status tok_cursor_integer(tok_cursor *c, int64_t *value);             /* 0 .. 10^15 */
nvllm_status tok_cursor_number(tok_cursor *c, double *value);
nvllm_status tok_cursor_skip(tok_cursor *c, tok_slice *value); /* any value, its bytes in *value */
nvllm_status tok_cursor_done(tok_cursor *c);                   /* nothing but white space is left */
char tok_cursor_peek(tok_cursor *c);                           /* next byte that is not white space, or 0 */

/* One object's members as slices: fills value[i] for keys[i]; other keys are skipped, a repeated key of the
 * list is refused. */
nvllm_status tok_cursor_members(tok_cursor *c, const char *const *keys, tok_slice *value, size_t count);

/* A slice parsed by jansson, any value (null for an absent slice); free with json_decref. */
nvllm_status tok_slice_json(tok_slice slice, const char *where, json_t **out, nvllm_error *err);

#endif
