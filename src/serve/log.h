/* What the server says on stderr: one line each, control characters of strangers escaped. */
#ifndef NVLLM_SERVE_LOG_H
#define NVLLM_SERVE_LOG_H

#include <stddef.h>

void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* `prefix` and then `text`, of which bytes outside printable ASCII and UTF-8 are escaped as in JSON. */
void log_text(const char *prefix, const char *text, size_t len);

#endif
