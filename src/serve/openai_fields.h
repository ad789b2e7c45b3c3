/* Tables of request fields, shared by the readers of the OpenAI dialect's endpoints. */
#ifndef NVLLM_SERVE_OPENAI_FIELDS_H
#define NVLLM_SERVE_OPENAI_FIELDS_H

#include "serve/openai_in.h"

#include <jansson.h>

typedef bool field_reader(api_request *r, const char *name, const json_t *value, api_error *err);

typedef enum {
    FIELD_REAL,    /* a float */
    FIELD_INTEGER, /* an int64_t */
    FIELD_COUNT,   /* an int32_t */
    FIELD_FLAG,    /* a bool */
    FIELD_NOT,     /* a bool that is stored negated */
    FIELD_READ,    /* by `read` */
    FIELD_PASS     /* known, and without effect on the answer */
} field_kind;

typedef struct {
    const char *name; /* NULL ends a table */
    field_kind kind;
    size_t offset;      /* in api_request */
    double least, most; /* accepted range */
    field_reader *read;
} api_field;

/* The request body as an object; NULL after an error. The caller drops it with json_decref. */
json_t *fields_parse(const char *body, size_t len, api_error *err);

/* Reads every member of `body` by `own` and then by the fields that both endpoints share. */
bool fields_read(api_request *r, const json_t *body, const api_field *own, api_error *err);

/* Readers that both dialects' tables may name. */
field_reader field_refuse; /* anything but null, false, "" and empty lists and objects */

/* A string's or a list's copy; false after an error. */
bool field_copy_text(char **out, const char *name, const json_t *value, api_error *err);
bool field_copy_ids(int32_t **out, size_t *n, const char *name, const json_t *list, api_error *err);

#endif
