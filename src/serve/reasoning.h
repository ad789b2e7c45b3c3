/* Splits the answer of a <think> model into reasoning and content, as its pieces arrive.
 *
 * Only the beginning of an answer is looked at: reasoning starts when the template has opened <think> already or when
 * the answer's first word is <think>, and ends at </think>. White space around both tags goes. What may still become
 * a tag is held back. */
#ifndef NVLLM_SERVE_REASONING_H
#define NVLLM_SERVE_REASONING_H

#include "serve/wire.h"

typedef enum {
    REASONING_AT_START,
    REASONING_OPENED,
    REASONING_INSIDE,
    REASONING_CLOSED,
    REASONING_NONE
} reasoning_state;

typedef struct {
    reasoning_state state;
    wire held;
} reasoning;

/* How the answer to this prompt begins: after an open <think> or not. */
reasoning_state reasoning_after_prompt(const char *prompt, size_t len);

/* Appends what is certain to *thought and *content. */
void reasoning_push(reasoning *r, const char *text, size_t len, wire *thought, wire *content);
void reasoning_finish(reasoning *r, wire *thought, wire *content);
void reasoning_free(reasoning *r);

#endif
