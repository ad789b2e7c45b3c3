/* Log-probabilities in the two shapes of the OpenAI dialect, gathered token by token.
 *
 * chat: {"content":[{token,logprob,bytes,top_logprobs[]}]}. completions: {tokens,token_logprobs,top_logprobs,
 * text_offset}, where the token taken is always among the top ones with the same figure, a prompt's first token has
 * null, and a token that is no UTF-8 by itself is written "bytes:\xe2\x80" as OpenAI does. */
#ifndef NVLLM_SERVE_LOGPROBS_H
#define NVLLM_SERVE_LOGPROBS_H

#include "nanovllm.h"
#include "serve/wire.h"

typedef struct {
    const nvllm_tokenizer *tokenizer;
    bool hide_special; /* completions: special tokens are not in the text, so they have no length */
    wire content;      /* chat: items, separated by commas */
    wire tokens, values, top, offsets; /* completions: the same */
    int64_t characters;                /* completions: Unicode characters before the next token */
    size_t count;                      /* items now held */
} logprob_list;

void logprobs_add_chat(logprob_list *l, const nvllm_event *event);
/* `first_of_prompt`: it has no probability. */
void logprobs_add_completion(logprob_list *l, const nvllm_event *event, bool first_of_prompt);

/* The JSON value; then the list is empty again, for the next chunk. */
void logprobs_take_chat(logprob_list *l, wire *out);
void logprobs_take_completion(logprob_list *l, wire *out);
size_t logprobs_bytes(const logprob_list *l); /* held now */
void logprobs_free(logprob_list *l);

#endif
