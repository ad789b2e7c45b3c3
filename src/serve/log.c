/* Lines on stderr; see log.h. Each is written with one call, so that lines of two processes do not mix. */
#include "serve/log.h"
#include "serve/wire.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char program[] = "nano-vllm: ";

/* There is nobody to tell when stderr does not take a line. */
static void put(const wire *w)
{
    if (!w->failed && write(STDERR_FILENO, w->data, w->len) < 0) return;
}

void log_line(const char *format, ...)
{
    char line[1200];
    va_list args;
    wire w = {0};
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    wire_text(&w, program);
    wire_text(&w, line);
    wire_text(&w, "\n");
    put(&w);
    wire_free(&w);
}

void log_text(const char *prefix, const char *text, size_t len)
{
    wire w = {0};
    wire_text(&w, program);
    wire_text(&w, prefix);
    wire_json_string(&w, text, len);
    wire_text(&w, "\n");
    put(&w);
    wire_free(&w);
}
