/* The engine's state, shared by its three parts: the loop (engine.c), who has pages (residency.c), and what comes out
 * of a step (finish.c). */
#ifndef NVLLM_ENGINE_STATE_H
#define NVLLM_ENGINE_STATE_H

#include "engine/engine.h"
#include "engine/kv_pages.h"
#include "engine/scheduler.h"
#include "engine/step_batch.h"

#define PAGE_SLOTS 64 /* S: 16 KB per head in bf16 at C = 128 */

/* A step that has been started. Rows whose sequence ended meanwhile have none. */
typedef struct {
    step_row *rows; /* [max_sequences] */
    int32_t n_rows;
    uint32_t number; /* of the step; never 0 */
    bool scores;     /* some row's logits are wanted on the host */
} flight;

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
    sequence **running; /* [max_sequences], by priority, then by admission */
    flight flights[2];  /* the steps in flight, the older first */
    int32_t n_flights;
    uint32_t steps_started;
    engine_event *events; /* [ENGINE_EVENTS * max_sequences] */
    int32_t n_events;
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
void residency_enqueue(engine *e, sequence *s); /* into the waiting queue */
void residency_drop_cancelled(engine *e);       /* running and waiting */
void residency_drop_ended(engine *e);           /* running ones that have had their last event */
void residency_admit(engine *e);                /* waiting ones, while slots and pages last */
/* Pages for the planned rows; false: not enough. */
bool residency_reserve(engine *e, const step_row *rows, int32_t n_rows);
void residency_preempt(engine *e); /* the last of the running ones goes back to waiting */
void residency_list_pages(engine *e, const step_row *rows,
                          int32_t n_rows); /* full ones, into the prefix index */

/* finish.c */
/* logits: NULL unless the step scores. */
void finish_rows(engine *e, const flight *f, const draw_result *draws, const float *logits);

#endif
