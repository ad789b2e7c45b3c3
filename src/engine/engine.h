/* The engine: requests of token ids in, one event per token out, one step at a time.
 *
 * engine.c holds the loop; residency.c says who has pages (admission, prefix hits, preemption); finish.c turns logits
 * into tokens; scheduler.c plans rows; step_batch.c builds the arrays.
 *
 * engine_step reads: drop the cancelled, admit the waiting, plan the rows (preempting when pages run out), build the
 * batch, start the step, collect the drawn tokens, list the full pages. On a device of its own the next step is started
 * before the tokens of this one are collected: it takes them on the device. A sequence that this step ends has then
 * computed a token for nothing. One thread owns an engine; it knows token ids and pages, never text, never a device. A step allocates
 * nothing and never waits for anybody. */
#ifndef NVLLM_ENGINE_ENGINE_H
#define NVLLM_ENGINE_ENGINE_H

#include "engine/sequence.h"
#include "model/memory_plan.h"
#include "model/runner.h"

#define ENGINE_MAX_TOP_LOGPROBS DRAW_MAX_TOP

typedef struct {
    int32_t context;       /* tokens per sequence */
    int32_t max_sequences; /* R */
    int32_t step_tokens;   /* T: budget of one step */
    int32_t row_tokens;    /* most tokens of one row in one step; 0: no limit but the budget */
    int64_t kv_tokens;     /* tokens that the cache holds in all */
    dtype kv_type;
    bool no_prefix_cache;
    fusion_mode fusion;
} engine_options;

typedef enum {
    ENGINE_STARTED,
    ENGINE_TOKEN,
    ENGINE_STOP,
    ENGINE_LENGTH,
    ENGINE_CANCELLED,
    ENGINE_FAILED,
    ENGINE_SCORED
} engine_event_kind;

/* STARTED: admitted, its first tokens are in this step. STOP, LENGTH: the sequence's last token, and its end. SCORED:
 * the prompt's log-probabilities are there; the end when max_tokens is 0. FAILED: no logit is a number, the end. STARTED, CANCELLED and SCORED carry none (token -1). */
typedef struct {
    uint64_t id;
    engine_event_kind kind;
    int32_t token;
    float logprob;             /* with top_logprobs >= 0 */
    const sample_logprob *top; /* [n_top], until the next step */
    int32_t n_top;
    int32_t cached_tokens; /* STARTED: of the prompt, found in the prefix cache */
} engine_event;

typedef struct {
    int32_t running, waiting;
    int32_t pages_used, pages, page_slots;
    uint64_t steps, prompt_tokens, generated_tokens;
    uint64_t prefix_queries, prefix_hits, preemptions;
} engine_counts;

typedef struct engine engine;

/* The model and the backend are borrowed until engine_close. */
nvllm_status engine_open(engine **out, const model *m, backend *b, const engine_options *options,
                         nvllm_error *err);
void engine_close(engine *e);

/* The memory that engine_open will take of the backend's. */
memory_plan engine_plan(const model *m, backend *b, const engine_options *options);

/* Queues a request under the caller's id. NVLLM_ERR_LIMIT when it can never fit. */
nvllm_status engine_add(engine *e, const sequence_request *request, uint64_t id, nvllm_error *err);
void engine_cancel(engine *e, uint64_t id);

bool engine_idle(const engine *e);
/* One step. *events: [returned count], until the next step. -1: the device failed, and the engine is of no more use. */
int32_t engine_step(engine *e, const engine_event **events, nvllm_error *err);

engine_counts engine_count(const engine *e);
runner *engine_runner(engine *e);            /* for hooks and memory figures */
int64_t engine_held_tokens(const engine *e); /* in the cache, of the running sequences */

/* Could a sequence of this many tokens ever run? The sentence says why not. */
nvllm_status engine_check_length(const engine *e, int64_t n_prompt, int64_t max_tokens, nvllm_error *err);

#endif
