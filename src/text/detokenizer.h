/* Streaming detokenizer: token ids come one by one, text leaves as soon as it is certain.
 *
 * The pieces and the end together are exactly tokenizer_decode of all ids. Every piece is valid UTF-8. Held back
 * are parts of a character, runs of byte tokens until they end (one bad byte makes U+FFFD of the whole run,
 * as in the reference), and white space that the decoder may still strip.
 * One detokenizer serves one sequence, on one thread at a time; the tokenizer must outlive it. */
#ifndef NVLLM_TEXT_DETOKENIZER_H
#define NVLLM_TEXT_DETOKENIZER_H

#include "text/tokenizer.h"

typedef struct detokenizer detokenizer;

/* `flags`: TOKENIZER_SKIP_SPECIAL or 0. */
nvllm_status detokenizer_open(detokenizer **out, const tokenizer *t, unsigned flags, nvllm_error *err);
void detokenizer_close(detokenizer *d);

/* Appends to *out, maybe nothing. After an error only reset and close are allowed. */
nvllm_status detokenizer_push(detokenizer *d, int32_t id, buffer *out, nvllm_error *err);
nvllm_status detokenizer_finish(detokenizer *d, buffer *out, nvllm_error *err); /* and is as new after it */
void detokenizer_reset(detokenizer *d);

#endif
