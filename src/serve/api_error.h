/* An error as an OpenAI client expects it: an HTTP status and {"error":{message,type,param,code}}. */
#ifndef NVLLM_SERVE_API_ERROR_H
#define NVLLM_SERVE_API_ERROR_H

#include "nanovllm.h"
#include "serve/wire.h"

typedef struct {
    unsigned status;   /* HTTP; 0: no error */
    const char *type;  /* "invalid_request_error", ... */
    const char *code;  /* "context_length_exceeded", ... or NULL */
    char param[64];    /* the field at fault, or "" */
    char message[640]; /* one sentence */
    int retry_after;   /* seconds; 0: no such header */
} api_error;

/* All return false, so that a reader can end with them. */
bool api_error_field(api_error *err, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool api_error_set(api_error *err, unsigned status, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* What the library said, with the status that goes with it; `param` may be NULL. */
bool api_error_from(api_error *err, const nvllm_error *from, const char *param);

void api_error_write(wire *w, const api_error *err); /* {"error":{...}} */

#endif
