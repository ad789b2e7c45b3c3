/* The engine's state, shared by its three parts: the loop (engine.c), who has pages (residency.c), and what comes out
 * of a step (finish.c). */
#ifndef NVLLM_ENGINE_STATE_H
#define NVLLM_ENGINE_STATE_H

#include "engine/engine.h"
#include "engine/kv_pages.h"
#include "engine/scheduler.h"
#include "engine/step_batch.h"

#define PAGE_SLOTS 64 /* S: 16 KB per head in bf16 at C = 128 */

struct engine {
    const model *model;
    runner *runner;
    engine_options options;
    kv_pages pages;
    step_batch batch;
    step_budget budget;
    sequence *waiting; /* by priority, then by arrival; a preempted one before those that never ran */
    int32_t n_waiting, n_running;
    bool cancel_pending;
    sequence **running;   /* [max_sequences], by priority, then by admission */
    step_row *rows;       /* [max_sequences] */
    engine_event *events; /* [ENGINE_EVENTS * max_sequences] */
    int32_t n_events;
    sample_logprob *top; /* [max_sequences, ENGINE_MAX_TOP_LOGPROBS] */
    float *raw_logits;   /* [V] of the row being sampled */
    void *sample_scratch;
    engine_counts counts;
};

/* Per sequence slot and step at most: two cancellations (one running, one waiting), a start, a score, a token. */
#define ENGINE_EVENTS 5

static inline int32_t pages_for(int64_t tokens)
{
    return (int32_t)((tokens + PAGE_SLOTS - 1) / PAGE_SLOTS);
}

static inline engine_event *engine_emit(engine *e, const sequence *s, engine_event_kind kind, int32_t token)
{
    engine_event *event = &e->events[e->n_events++];
    *event = (engine_event){.id = s->id, .kind = kind, .token = token};
    return event;
}

/* residency.c */
void residency_enqueue(engine *e, sequence *s);       /* into the waiting queue */
void residency_drop_cancelled(engine *e);             /* running and waiting */
void residency_drop_ended(engine *e);                 /* running ones that have had their last event */
void residency_admit(engine *e);                      /* waiting ones, while slots and pages last */
bool residency_reserve(engine *e, int32_t n_rows);    /* pages for the planned rows; false: not enough */
void residency_preempt(engine *e);                    /* the last of the running ones goes back to waiting */
void residency_list_pages(engine *e, int32_t n_rows); /* full pages of the rows into the prefix index */

/* finish.c */
void finish_rows(engine *e, int32_t n_rows, float *logits);

#endif
