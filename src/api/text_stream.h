/* From the tokens of one request to the text that its reader sees: detokenizer, then stop strings.
 *
 * Text that could still become a stop string is held back until it cannot, so the reader never sees part of one. */
#ifndef NVLLM_API_TEXT_STREAM_H
#define NVLLM_API_TEXT_STREAM_H

#include "base/buffer.h"
#include "text/detokenizer.h"

typedef struct {
    char **strings; /* [count] */
    size_t count, longest;
} stop_list;

typedef struct {
    detokenizer *detokenizer; /* NULL: tokens only, no text */
    stop_list stop;
    bool include_stop;
    buffer held;  /* decoded, not yet passed on */
    size_t skip;  /* characters at the front of what comes next that belong to the prompt */
    bool stopped; /* a stop string was met: nothing follows */
    bool failed;  /* out of memory: the text is not whole */
} text_stream;

/* Copies the strings. tokenizer NULL: no text comes out. */
nvllm_status text_stream_open(text_stream *out, const tokenizer *t, const nvllm_request *request,
                              nvllm_error *err);
void text_stream_close(text_stream *s);

/* The answer goes on after these tokens of a prompt: what a decoder does at the beginning of a text (SentencePiece
 * drops its first space) is not done to the answer. None of the prompt's text comes out. */
void text_stream_continue(text_stream *s, const int32_t *prompt, int32_t n_prompt);

/* Appends what is certain now to `out`; true: a stop string was met, and `out` ends the answer. */
bool text_stream_push(text_stream *s, int32_t token, buffer *out);

/* The end of the answer: appends what was held back (a stop string can still be met). */
bool text_stream_finish(text_stream *s, buffer *out);

#endif
