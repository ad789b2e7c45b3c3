/* The program's own small framework: a table of commands, a table of options per command, and what they share.
 *
 * The tables are data: parsing (options.c), --help, the man page and shell completion (help.c) all read them.
 * A command gets the parsed values in one struct and returns the exit code: 0 done, 1 failed (one sentence was
 * printed), 2 wrong usage. Data go to stdout, everything else to stderr. The program talks to the library through
 * nanovllm.h alone. */
#ifndef NVLLM_CLI_H
#define NVLLM_CLI_H

#include "nanovllm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

typedef enum {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_INTEGER,
    OPTION_REAL,
    OPTION_LIST,
    OPTION_SIZE,
    OPTION_CHOICE /* one of the words of its metavariable, "on|ops|off": its number, an int */
} option_kind;

typedef struct {
    bool given;
    int64_t value;
} option_integer;

typedef struct {
    bool given;
    double value;
} option_real;

enum { OPTION_LIST_MAX = 64 };

typedef struct {
    const char *item[OPTION_LIST_MAX];
    size_t count;
} option_list;

/* Every value that any command takes; a command's tables say which of them it reads. */
typedef struct {
    const char *model, *random_weights, *dtype; /* which model */
    const char *device, *isa;                   /* where it runs */
    option_integer threads, context, kv_memory;
    option_real temperature, top_p, min_p; /* sampling */
    option_integer top_k, seed, max_tokens;
    option_real repetition_penalty, presence_penalty, frequency_penalty;
    option_list stop;
    bool ignore_eos;
    const char *prompt, *system; /* run, chat */
    bool chat, raw;
    option_integer logprobs;
    option_integer prompt_tokens, gen_tokens, batch, reps; /* bench */
    const char *file;                                      /* perplexity */
    bool special, no_bos;                                  /* tokenize, detokenize */
    const char *template_file, *context_file, *now;        /* render */
    const char *host, *served_model_name, *api_key_file;   /* serve */
    option_integer port, max_sequences, step_tokens, max_queue, max_connections, max_body, max_header,
        max_buffer, max_answer;
    option_integer idle_timeout, drain_timeout, keepalive;
    option_list api_keys, cors;
    int fusion;
    bool no_prefix_cache, log_requests, log_prompts;
    const char *contexts, *batches; /* bench: lists */
    bool op_times, measure_again;
    const char *output, *against; /* profile; check */
    bool layers;
    option_real bound;
    bool json, help;
    const char *argument; /* the one positional argument, where the command takes one */
} cli_args;

typedef struct {
    const char *name; /* long name, without dashes; NULL ends a table */
    char letter;      /* short name, or 0 */
    option_kind kind;
    size_t offset;       /* of the field in cli_args; OPTION_SIZE: an option_integer, bytes */
    const char *value;   /* placeholder in the help text; NULL for flags */
    const char *help;    /* one line */
    double least, most;  /* OPTION_INTEGER and OPTION_REAL: accepted range */
    const char *refusal; /* OPTION_CHOICE: what any other word is */
} cli_option;

enum { CLI_TABLES_MAX = 8 };

typedef struct {
    const char *name;
    const char *summary;     /* one line for the list of commands */
    const char *usage;       /* what follows the name: "[-m MODEL] [options]" */
    const char *description; /* a paragraph for --help and the man page */
    const char *argument;    /* choices of the positional argument, separated by '|'; NULL: takes none */
    const cli_option *tables[CLI_TABLES_MAX];
    int (*run)(const cli_args *args);
} cli_command;

/* Ends with a row whose name is NULL. */
extern const cli_command cli_commands[];

/* Tables that several commands share (options.c). */
extern const cli_option options_model[], options_device[], options_context[], options_memory[],
    options_sampling[], options_common[];

/* Fills *args from argv (argv[0] is the command's name). Returns CLI_OK, or CLI_USAGE after printing why. */
int options_parse(cli_args *args, const cli_command *command, int argc, char **argv);

/* Stores one value as its option says; false and *why (a static text) when it is not one. */
bool option_store(cli_args *args, const cli_option *option, const char *text, const char **why);

/* The name among cli_commands (or a command's options) that is nearest to a mistyped one; NULL: none is near. */
const char *nearest_command(const char *name);
const char *nearest_option(const cli_command *command, const char *name);

/* help.c: all on stdout. */
void help_program(void);
void help_command(const cli_command *command);
void help_man_page(void);
void help_completion(void);

/* report.c: one sentence on stderr; the value returned is the exit code to return. */
int report_failure(const nvllm_error *err);
int report_sentence(const char *format, ...) __attribute__((format(printf, 1, 2)));
int report_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Flushes stdout; CLI_FAILED with a sentence when what was written did not arrive (a full disk). */
int finish_output(void);

int command_run(const cli_args *args);
int command_chat(const cli_args *args);
int command_serve(const cli_args *args);
int command_bench(const cli_args *args);
int command_profile(const cli_args *args);
int command_check(const cli_args *args);
int command_perplexity(const cli_args *args);
int command_tokenize(const cli_args *args);
int command_detokenize(const cli_args *args);
int command_render(const cli_args *args);
int command_inspect(const cli_args *args);

#endif
