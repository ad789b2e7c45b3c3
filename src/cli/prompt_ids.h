/* What bench, profile and check run on: prompts as token ids, random ones where there is no text or no tokenizer. */
#ifndef NVLLM_CLI_PROMPT_IDS_H
#define NVLLM_CLI_PROMPT_IDS_H

#include "cli.h"

/* ids: [n], each in [0, vocab); *state is the seed, and then whatever the next call goes on from. */
void random_ids(int32_t *ids, size_t n, int32_t vocab, uint64_t *state);

/* The prompt of --prompt; or --prompt-tokens random ids; or, when neither is given, `text` where there is one and the
 * model has a tokenizer, else n_random random ids. *ids: [*n], freed with nvllm_free. An exit code. */
int prompt_ids(int32_t **ids, size_t *n, const nvllm_model *model, const cli_args *args, const char *text,
               size_t n_random);

/* Options that exclude each other, for commands that take all of these; an exit code. */
int check_model_options(const char *command, const cli_args *args);

#endif
