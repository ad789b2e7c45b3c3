/* A conversation in the terminal: its state, shared by the loop (chat.c), the /commands (chat_commands.c) and the
 * reader of lines (chat_input.c). */
#ifndef NVLLM_CLI_CHAT_H
#define NVLLM_CLI_CHAT_H

#include "cli.h"
#include "session.h"

#include <jansson.h>

typedef struct {
    cli_args args; /* changed by /set */
    nvllm_model *model;
    nvllm_engine *engine;
    json_t *messages; /* list of {"role", "content"} */
    json_t *kept;     /* strings that args points into */
    generation last;
    bool answered; /* last is valid */
} chat;

typedef enum { CHAT_GO_ON, CHAT_QUIT } chat_next;

/* Runs a line that begins with '/'. Answers go to stderr: stdout is for the model's text. */
chat_next chat_command(chat *c, char *line);

/* The system message becomes `text` (NULL or "": none); the conversation goes on with it. */
void chat_set_system(chat *c, const char *text);

/* Lines from the terminal, with editing and history, or from a pipe. */
typedef struct line_reader line_reader;

line_reader *reader_open(void);
void reader_close(line_reader *reader);

/* The next line without its newline, borrowed until the next call; lines that end in a backslash go on in the next
 * one. NULL at the end of input. */
char *reader_next(line_reader *reader);

#endif
