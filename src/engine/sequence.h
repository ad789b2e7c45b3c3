/* One request's state in the engine: its tokens, how many of them are in the KV cache, its pages, its sampling.
 *
 * All its memory is one arena, sized when the request is added, so a step allocates nothing. */
#ifndef NVLLM_ENGINE_SEQUENCE_H
#define NVLLM_ENGINE_SEQUENCE_H

#include "base/arena.h"
#include "base/error.h"
#include "ops/sample.h"

#include <stdbool.h>
#include <stdint.h>

/* What a sequence is asked to do. Pointers are copied by sequence_new. */
typedef struct {
    const int32_t *prompt; /* [n_prompt], n_prompt >= 1 */
    int32_t n_prompt;
    int32_t max_tokens; /* to generate; 0 for a score request */
    int32_t min_tokens;
    sample_params sampling;
    const sample_bias *bias;
    int32_t n_bias;
    const int32_t *stop_ids; /* [n_stop_ids] end of sequence ids and the request's own */
    int32_t n_stop_ids;
    int32_t top_logprobs; /* -1: none; K: also the K best */
    int32_t priority;     /* higher first */
    float *score; /* not NULL: [n_prompt] log-probability of each prompt token, the caller's until the end */
    sample_logprob *score_top; /* NULL, or [n_prompt, top_logprobs]: the best at each prompt position */
} sequence_request;

typedef struct sequence sequence;
struct sequence {
    sequence *next; /* in the engine's queue */
    uint64_t id;
    arena memory;
    sequence_request request;
    int32_t *tokens;              /* [n_prompt + max_tokens] */
    int32_t n_tokens, n_computed; /* known; in the KV cache, those of steps in flight included */
    int32_t *pages, n_pages;      /* [pages of prompt + max_tokens] */
    int32_t n_listed;             /* leading full pages that the prefix index knows, or knows an equal of */
    int32_t listed_parent;        /* the last of them, as the index has it */
    uint32_t listed_generation;   /* ... and its generation then */
    bool admitted;                /* has run before: it was preempted */
    bool scored;                  /* its prompt has been scored */
    sample_count *counts;         /* distinct tokens so far; NULL without penalties */
    int32_t n_counts;
    int32_t *count_index; /* open addressing over counts, -1: empty; capacity is a power of two */
    uint32_t count_mask;
    int32_t draw; /* with draw_step == the number of a step in flight: its draw that gives the next token */
    uint32_t draw_step; /* 0: none is in flight */
    bool cancelled;     /* asked to end; answered by the next step */
    bool ended;         /* has had its last event */
};

nvllm_status sequence_new(sequence **out, const sequence_request *request, uint64_t id, int32_t max_pages,
                          nvllm_error *err);
void sequence_free(sequence *s);

void sequence_push(sequence *s, int32_t token); /* a generated token */

static inline int32_t sequence_generated(const sequence *s)
{
    return s->n_tokens - s->request.n_prompt;
}

/* Tokens that it may be asked to compute now: known ones, or the one that a draw in flight will give. */
int32_t sequence_pending(const sequence *s);

bool sequence_is_stop(const sequence *s, int32_t token);

#endif
