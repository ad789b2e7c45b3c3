/* Error values; see error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

nvllm_status error_set(nvllm_error *err, nvllm_status code, const char *format, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return code;
}

nvllm_status error_prefix(nvllm_error *err, const char *format, ...)
{
    if (!err) return NVLLM_ERR_FORMAT;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    size_t at = used > 0 ? (size_t)used : 0, room = sizeof err->message;
    if (at + 3 < room) { /* cut at the end, like every sentence */
        size_t len = strlen(old) < room - at - 3 ? strlen(old) : room - at - 3;
        memcpy(err->message + at, ": ", 2);
        memcpy(err->message + at + 2, old, len);
        err->message[at + 2 + len] = '\0';
    }
    return err->code;
}

nvllm_status error_memory(nvllm_error *err, size_t bytes, const char *what)
{
    return error_set(err, NVLLM_ERR_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}
