/* Jinja2 for chat templates: compile once, render many times.
 *
 * Semantics are those of Python's jinja2 3.1 in the environment that transformers' apply_chat_template
 * sets up: an immutable sandbox with trim_blocks, lstrip_blocks, loop controls, `generation` blocks,
 * json.dumps as tojson, raise_exception, strftime_now. Values print as Python prints them.
 * Differences: integers are int64 and overflow is an error; `from_json` exists; include, import, extends,
 * autoescape and some HTML filters are refused by name.
 *
 * Templates come from the network, so a render is bounded in steps, depth, memory and output.
 * A template is const after jinja_compile: any number of threads may render it at once. */
#ifndef NVLLM_TEXT_JINJA_H
#define NVLLM_TEXT_JINJA_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

typedef struct jinja_template jinja_template;

/* NULL or zero initialisation means: the local time now, default limits. */
typedef struct {
    bool has_now; /* strftime_now shows `now` instead of the local time */
    struct tm now;
    size_t max_steps;  /* evaluations; 0: 4 million */
    size_t max_depth;  /* nested evaluations (macro calls, values in values); 0: 1000 */
    size_t max_memory; /* bytes of values; 0: 256 MiB */
    size_t max_output; /* bytes of text; 0: 32 MiB */
} jinja_options;

/* Parses `source` (UTF-8, need not be NUL-terminated). NVLLM_ERR_TEMPLATE: "template line N: ...";
 * NVLLM_ERR_LIMIT: nested too deeply or larger than 1 MiB. */
nvllm_status jinja_compile(jinja_template **out, const char *source, size_t len, nvllm_error *err);

/* Renders with the variables of `context` (an object; NULL: none). *text is NUL-terminated and the caller's
 * (free). NVLLM_ERR_TEMPLATE: an error that Python would raise too, or what raise_exception says;
 * NVLLM_ERR_LIMIT: a limit of `opt` was met. `context` is only read. */
nvllm_status jinja_render(const jinja_template *t, const json_t *context, const jinja_options *opt,
                          char **text, size_t *len, nvllm_error *err);

void jinja_free(jinja_template *t);

#endif
