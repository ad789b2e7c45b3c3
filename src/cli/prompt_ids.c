/* Prompts as token ids; see prompt_ids.h. */
#define _GNU_SOURCE
#include "prompt_ids.h"
#include "input.h"

#include <stdlib.h>
#include <string.h>

/* Steele, Lea, Flood: SplitMix64. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void random_ids(int32_t *ids, size_t n, int32_t vocab, uint64_t *state)
{
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(next_random(state) % (uint64_t)vocab);
}

static int tokenize(int32_t **ids, size_t *n, const nvllm_model *model, const char *text)
{
    nvllm_error err = {0};
    const nvllm_tokenizer *tokenizer;
    if (nvllm_model_tokenizer(model, &tokenizer, &err) ||
        nvllm_tokenize(tokenizer, text, strlen(text), NVLLM_ADD_SPECIAL, ids, n, &err))
        return report_failure(&err);
    if (*n) return CLI_OK;
    nvllm_free(*ids);
    return report_sentence("the prompt has no tokens");
}

int prompt_ids(int32_t **ids, size_t *n, const nvllm_model *model, const cli_args *args, const char *text,
               size_t n_random)
{
    nvllm_model_info info = nvllm_model_describe(model);
    uint64_t seed = (uint64_t)args->seed.value;
    if (args->prompt && strcmp(args->prompt, "-") == 0) {
        char *read;
        size_t len;
        if (!read_text(&read, &len, args->prompt)) return CLI_FAILED;
        int rc = tokenize(ids, n, model, read);
        free(read);
        return rc;
    }
    if (args->prompt) return tokenize(ids, n, model, args->prompt);
    if (!args->prompt_tokens.given && text && info.has_tokenizer) return tokenize(ids, n, model, text);
    *n = args->prompt_tokens.given ? (size_t)args->prompt_tokens.value : n_random;
    *ids = malloc(*n * sizeof **ids);
    if (!*ids) return report_sentence("out of memory");
    random_ids(*ids, *n, info.vocab_size, &seed);
    return CLI_OK;
}

int check_model_options(const char *command, const cli_args *args)
{
    if (args->model && args->random_weights)
        return report_usage(command, "%s: -m and --random-weights exclude each other", command);
    if (args->dtype && !args->random_weights)
        return report_usage(command, "%s: --dtype is for --random-weights; a model has its own", command);
    if (args->prompt && args->prompt_tokens.given)
        return report_usage(command, "%s: --prompt and --prompt-tokens exclude each other", command);
    return CLI_OK;
}
