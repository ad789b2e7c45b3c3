/* A request on its way through the engine: checked and tokenized by the caller's thread, then owned by the
 * engine's thread until its last event. */
#ifndef NVLLM_API_REQUEST_H
#define NVLLM_API_REQUEST_H

#include "api/handles.h"
#include "api/text_stream.h"
#include "engine/engine.h"

typedef enum { SCORE_PENDING, SCORE_DONE, SCORE_FAILED } score_state;

typedef struct request request;
struct request {
    request *next;
    uint64_t id;
    int32_t *prompt;   /* [sequence.n_prompt] */
    int32_t *stop_ids; /* the model's EOS ids (unless ignored) and the request's own */
    sample_bias *bias;
    sequence_request sequence; /* points to the arrays above */
    text_stream stream;
    nvllm_usage usage;
    double submitted, started, first, last; /* seconds, monotonic; 0: not yet */
    float *prompt_score;       /* [n_prompt] with prompt_logprobs; then each prompt token has an event */
    nvllm_logprob *prompt_top; /* [n_prompt, logprobs] */
    score_state *score;        /* not NULL: a nvllm_score call waits for it; under the engine handle's lock */
};

/* Checks every field and tokenizes the prompt; `context` bounds prompt and answer. */
nvllm_status request_new(request **out, const nvllm_model *m, const nvllm_request *from, int32_t context,
                         nvllm_error *err);
/* A request that scores ids [n_ids] into logprobs [n_ids]. */
nvllm_status request_new_score(request **out, const nvllm_model *m, const int32_t *ids, size_t n_ids,
                               float *logprobs, nvllm_error *err);
void request_free(request *r);

#endif
