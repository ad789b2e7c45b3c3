/* Requests of the OpenAI dialect: what follows from several fields together; see openai_in.h. */
#include "serve/openai_in_parts.h"

#include <stdlib.h>

void request_begin(api_request *r, const nvllm_request *defaults)
{
    *r = (api_request){.sampling = *defaults, .n = 1, .max_tokens = -1, .top_logprobs = -1};
    r->sampling.logprobs = -1;
}

bool request_finish(api_request *r, api_error *err)
{
    nvllm_request *q = &r->sampling;
    if ((r->include_usage || r->continuous_usage) && !r->stream)
        return api_error_field(err, "stream_options", "stream_options is for stream: true only");
    if (r->max_tokens == 0 && !r->echo)
        return api_error_field(err, "max_tokens", "max_tokens is 0, must be at least 1");
    if (r->max_tokens >= 0 && q->min_tokens > r->max_tokens)
        return api_error_field(err, "min_tokens", "min_tokens is %d, more than max_tokens %lld",
                               q->min_tokens, (long long)r->max_tokens);
    if (q->top_k < 0) q->top_k = 0; /* vLLM's -1: all */
    q->logprobs = (int32_t)r->top_logprobs;
    q->prompt_logprobs = r->echo && r->top_logprobs >= 0;
    q->priority = (int32_t)-r->priority; /* vLLM: the lower value runs first */
    if (r->has_seed) q->seed = (uint64_t)r->seed;
    return true;
}

void api_request_free_prompts(api_request *r)
{
    free(r->messages);
    free(r->variables);
    for (size_t i = 0; i < r->n_prompts; i++) {
        free(r->prompts[i].text);
        free(r->prompts[i].ids);
    }
    free(r->prompts);
    r->messages = r->variables = NULL;
    r->prompts = NULL;
    r->n_prompts = 0;
}

void api_request_free(api_request *r)
{
    free(r->model);
    api_request_free_prompts(r);
    for (size_t i = 0; r->stop && i < r->sampling.n_stop; i++) free(r->stop[i]);
    free(r->stop);
    free(r->stop_ids);
    free(r->bias);
    *r = (api_request){0};
}
