/* Request JSON of the OpenAI dialect -> api_request. No model and no server is needed, so it can be fuzzed.
 *
 * One table row per field says its type and range; null means "not given" everywhere. A field that we do not know is
 * ignored and remembered for the log; one that we know but cannot honour (tools, response_format, ...) is refused by
 * name, because ignoring it would give a wrong answer. */
#ifndef NVLLM_SERVE_OPENAI_IN_H
#define NVLLM_SERVE_OPENAI_IN_H

#include "nanovllm.h"
#include "serve/api_error.h"

enum { API_MOST_CHOICES = 128, API_MOST_PROMPTS = 1024, API_MOST_STOPS = 64, API_MOST_LOGPROBS = 20 };

/* Text, or token ids when `ids` is set. */
typedef struct {
    char *text;
    size_t len;
    int32_t *ids;
    size_t n_ids;
} api_prompt;

typedef struct {
    bool chat;                  /* which endpoint: its answer has another shape */
    char *model;                /* NULL: not given */
    char *messages, *variables; /* chat: JSON for nvllm_chat_render */
    bool no_generation_prompt;
    api_prompt *prompts; /* completions: [n_prompts] */
    size_t n_prompts;

    nvllm_request sampling; /* all but the prompt; its arrays are the ones below */
    char **stop;
    int32_t *stop_ids;
    nvllm_logit_bias *bias;

    int64_t n;
    int64_t max_tokens;   /* -1: not given */
    int64_t top_logprobs; /* -1: no logprobs wanted */
    int64_t priority;
    int64_t seed;
    bool has_seed;
    bool stream, include_usage, continuous_usage, echo;
    bool no_special; /* completions: add_special_tokens false */

    char unknown[64]; /* the first field that was ignored, or "" */
} api_request;

/* *out is always fit for api_request_free. `defaults`: the model's sampling settings. */
bool openai_read_chat(api_request *out, const char *body, size_t len, const nvllm_request *defaults,
                      api_error *err);
bool openai_read_completion(api_request *out, const char *body, size_t len, const nvllm_request *defaults,
                            api_error *err);
void api_request_free_prompts(api_request *r); /* what tokenizing has made superfluous; n_prompts is 0 then */
void api_request_free(api_request *r);

#endif
