/* What the program reads: text files and stdin, whole; and the few facts about the terminal and the environment. */
#ifndef NVLLM_CLI_INPUT_H
#define NVLLM_CLI_INPUT_H

#include <stdbool.h>
#include <stddef.h>

/* Reads `path`, or stdin for "-", into *text (NUL-terminated, the caller frees it). Prints why and returns false when
 * it cannot be read or is longer than 1 GiB. */
bool read_bytes(char **text, size_t *len, const char *path);

/* The same, and the bytes must be UTF-8; the sentence names the first wrong byte. */
bool read_text(char **text, size_t *len, const char *path);

/* What to call `path` in a sentence: "standard input" for "-". */
const char *input_name(const char *path);

/* Offset of the first byte that is not UTF-8; len when all is well. */
size_t utf8_valid_length(const char *text, size_t len);

bool stdin_is_terminal(void);
bool stdout_is_terminal(void);
bool stderr_is_terminal(void);

/* The environment, read here only: colours wanted (NO_COLOR, and stdout is a terminal); the history file of chat, in
 * memory of the caller's, its folder made (XDG_STATE_HOME, HOME), NULL when there is no home; a file of things that
 * can be made again, the same way (XDG_CACHE_HOME, HOME). */
bool colour_wanted(void);
char *history_path(void);
char *cache_path(const char *name);

#endif
