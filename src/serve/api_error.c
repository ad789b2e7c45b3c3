/* Errors as OpenAI clients expect them; see api_error.h. */
#include "serve/api_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *type_of(unsigned status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 500: return "server_error";
    case 503: return "service_unavailable";
    default: return "invalid_request_error";
    }
}

bool api_error_field(api_error *err, const char *param, const char *format, ...)
{
    va_list args;
    *err = (api_error){.status = 400, .type = type_of(400)};
    snprintf(err->param, sizeof err->param, "%s", param);
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return false;
}

bool api_error_set(api_error *err, unsigned status, const char *code, const char *format, ...)
{
    va_list args;
    *err = (api_error){.status = status, .type = type_of(status), .code = code};
    if (status == 429 || status == 503) err->retry_after = 1;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return false;
}

bool api_error_from(api_error *err, const nvllm_error *from, const char *param)
{
    unsigned status = 400;
    const char *code = NULL;
    switch (from->code) {
    case NVLLM_ERR_BUSY:
        status = 429;
        code = "queue_full";
        break;
    case NVLLM_ERR_MEMORY:
    case NVLLM_ERR_IO:
    case NVLLM_ERR_DEVICE: status = 500; break;
    case NVLLM_ERR_LIMIT: code = "context_length_exceeded"; break;
    default: break;
    }
    api_error_set(err, status, code, "%s", from->message[0] ? from->message : nvllm_status_name(from->code));
    if (param) snprintf(err->param, sizeof err->param, "%s", param);
    return false;
}

void api_error_write(wire *w, const api_error *err)
{
    wire_text(w, "{\"error\":{\"message\":");
    wire_json_string(w, err->message, strlen(err->message));
    wire_text(w, ",\"type\":\"");
    wire_text(w, err->type);
    wire_text(w, "\",\"param\":");
    if (err->param[0])
        wire_json_string(w, err->param, strlen(err->param));
    else
        wire_text(w, "null");
    wire_text(w, ",\"code\":");
    if (err->code)
        wire_json_string(w, err->code, strlen(err->code));
    else
        wire_text(w, "null");
    wire_text(w, "}}");
}
