/* From parsed options to an open model, engine and request; and one request from submission to its end. */
#ifndef NVLLM_CLI_SESSION_H
#define NVLLM_CLI_SESSION_H

#include "cli.h"

/* Without -m: models/demo of the checkout that the program was built in, of the installed tree, or of the current
 * folder. In memory of the caller's (free); NULL after a sentence when there is none. */
char *default_model(void);

/* These return an exit code, CLI_OK on success; a failure was reported. */
int open_tokenizer(nvllm_tokenizer **out, const cli_args *args);
/* device: the one that the model will run on, made ready meanwhile; NULL: none. */
int open_model(nvllm_model **out, const cli_args *args, const char *device);
int open_engine(nvllm_engine **out, const nvllm_model *model, const cli_args *args);

/* The device that was asked for, or "auto". */
const char *device_name(const cli_args *args);

/* Says on stderr what the user should know of the device: the GPU was passed over, single ops run instead of fused. */
void report_engine(nvllm_engine *engine);

/* The same as open_engine for a command's own options: opens, and reports. */
int open_engine_as(nvllm_engine **out, const nvllm_model *model, const nvllm_engine_options *options);

/* The model's defaults, changed by what was given on the command line. */
nvllm_request make_request(const nvllm_model *model, const cli_args *args);

/* Called with every TOKEN event and with the DONE event. */
typedef void event_sink(void *context, const nvllm_event *event);

typedef struct {
    nvllm_finish finish;
    nvllm_usage usage;
} generation;

/* Runs one request to its end; Ctrl-C ends it early (NVLLM_FINISH_CANCELLED, still CLI_OK). */
int generate(generation *out, nvllm_engine *engine, const nvllm_request *request, event_sink *sink,
             void *context);

/* "prompt 12 tokens, 345.6 tok/s; generated 100 tokens, 38.2 tok/s" on stderr. */
void print_speed(const generation *result);

const char *finish_name(nvllm_finish finish);

#endif
