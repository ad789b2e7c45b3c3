/* The inside of an engine handle, for the files of this room that make it up: engine.c opens and closes it and has the
 * calls of other threads, engine_thread.c is its own thread, engine_errands.c what others have that thread do.
 *
 * The lock guards the inbox, the event queue and the counters; it is never held while a step runs. The table of live
 * requests belongs to the engine's thread alone. */
#ifndef NVLLM_API_ENGINE_STATE_H
#define NVLLM_API_ENGINE_STATE_H

#include "api/event_queue.h"
#include "api/profile.h"
#include "api/request.h"

/* What another thread asks of the engine's, between two steps; lives on that thread's stack. */
typedef struct {
    void (*run)(nvllm_engine *e, void *context);
    void *context;
    bool done;
} errand;

struct nvllm_engine {
    const nvllm_model *model;
    backend *backend;
    engine *engine;
    engine_options options;
    int32_t queue_limit;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, news; /* for the engine's thread; for those who poll or score */
    bool closing;
    errand *errand; /* NULL: none */
    request *inbox, **inbox_end;
    uint64_t *cancels; /* ids to cancel, [n_cancels] */
    size_t n_cancels, cancel_capacity;
    event_queue events;
    int32_t live; /* submitted, last event not yet queued */
    uint64_t next_id;
    engine_counts counts;
    char unfused[128]; /* empty: every group of ops that could be fused was */

    request *requests;   /* the engine thread's: live requests that have left the inbox */
    nvllm_error failure; /* of the device; code NVLLM_OK: it works */
    profile *profile;    /* the engine thread's; NULL: none is taken */
    int32_t kernels;     /* of the op list recorded last */
    buffer text;         /* the engine thread's: text of the event being made */
};

double engine_now(void); /* seconds of the monotonic clock */

/* The thread's function: steps while there is something to do, until the engine is closing. */
void *engine_thread(void *engine);

#endif
