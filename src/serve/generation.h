/* One request of a client from its prompts to its answer: n choices of one or several prompts, each of which is a
 * request of the engine.
 *
 * Once prepared it belongs to the I/O thread. Events of the engine come in through generation_take; the answer leaves as bytes in
 * `out`: stream chunks as they come, or one document at the end. The engine is met in generation_submit and
 * generation_cancel only. */
#ifndef NVLLM_SERVE_GENERATION_H
#define NVLLM_SERVE_GENERATION_H

#include "serve/logprobs.h"
#include "serve/openai_in.h"
#include "serve/reasoning.h"

typedef struct generation generation;

/* A choice; `id` is the engine's name for it. */
typedef struct choice {
    generation *owner;
    struct choice *next; /* in the server's table of live choices */
    uint64_t id;
    int32_t index, prompt;
    bool live, started; /* started: something of it was sent, or a token came */
    int32_t tokens, prompt_tokens_seen;
    double last_time; /* of its last token, seconds */
    reasoning split;
    wire thought, text; /* not yet sent, or the whole answer */
    logprob_list logprobs;
    nvllm_finish finish;
    nvllm_usage usage; /* once it has ended */
} choice;

struct generation {
    api_request request;
    char id[48]; /* "chatcmpl-..." */
    const char *model_name;
    int64_t created;        /* Unix time */
    double submitted;       /* seconds */
    int32_t **prompt_ids;   /* [prompts][prompt_tokens] until they are submitted */
    int32_t *prompt_tokens; /* [prompts] */
    char **prompt_text;     /* [prompts] what echo repeats; NULL without echo */
    size_t *prompt_text_len;
    choice *choices;
    size_t n_choices, n_live, n_prompts;
    bool failed; /* an error was sent, or is `error` */
    api_error error;
    bool complete;          /* nothing will be added to `out` */
    size_t held, most_held; /* bytes that the choices hold, not yet in `out` */
    wire out;
    void *exchange; /* the server's */
};

/* What a generation needs of a loaded model. */
typedef struct {
    const nvllm_model *model;
    nvllm_engine *engine;
    const nvllm_tokenizer *tokenizer;
    const char *name;
    int32_t context;
    size_t max_answer; /* bytes */
} generation_model;

/* Takes the request's contents (the caller's struct is emptied), renders and tokenizes. Any thread may call it. */
bool generation_prepare(generation **out, api_request *request, const generation_model *m, api_error *err);

/* Hands its prompts to the engine. On false *err says why and nothing is left in the engine. */
bool generation_submit(generation *g, const generation_model *m, api_error *err);

/* One event of one of its choices. `now`: seconds. */
void generation_take(generation *g, choice *c, const nvllm_event *event);

/* Ends all live choices in the engine; their events may be dropped from now on. */
void generation_cancel(generation *g, nvllm_engine *engine);
/* The same when they hold more than they may: the answer is an error, and what they held is freed. */
void generation_overflow(generation *g, nvllm_engine *engine);
void generation_free(generation *g);

/* Sums over the choices. */
nvllm_usage generation_usage(const generation *g);

#endif
