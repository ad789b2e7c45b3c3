/* The engine's own thread: takes the inbox, runs steps, turns what they made into events; see engine_state.h. */
#define _GNU_SOURCE
#include "api/engine_state.h"

#include <time.h>

double engine_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Events ---------------------------------------------------------------------------------------------------- */

static request **find_request(nvllm_engine *e, uint64_t id)
{
    request **at = &e->requests;
    while (*at && (*at)->id != id) at = &(*at)->next;
    return at;
}

static void set_times(request *r)
{
    double first = r->first > 0 ? r->first : r->last;
    r->usage.queue_ms = r->started > 0 ? (r->started - r->submitted) * 1e3 : 0;
    r->usage.prompt_ms = first > 0 && r->started > 0 ? (first - r->started) * 1e3 : 0;
    r->usage.generate_ms = r->last > 0 ? (r->last - first) * 1e3 : 0;
}

/* Queues the request's last event and forgets the request. Called with the lock held. */
static void end_request(nvllm_engine *e, request **at, const nvllm_event *last)
{
    request *r = *at;
    *at = r->next;
    e->live--;
    if (r->score)
        *r->score = last ? SCORE_FAILED : SCORE_DONE;
    else
        event_queue_push(&e->events, last);
    request_free(r);
}

static void fail_request(nvllm_engine *e, request **at, const char *sentence)
{
    end_request(e, at,
                &(nvllm_event){.request = (*at)->id,
                               .kind = NVLLM_EVENT_ERROR,
                               .token = -1,
                               .finish = NVLLM_FINISH_ERROR,
                               .error = sentence});
}

static void finish_request(nvllm_engine *e, request **at, nvllm_finish finish)
{
    request *r = *at;
    buffer_clear(&e->text);
    if (finish != NVLLM_FINISH_CANCELLED && text_stream_finish(&r->stream, &e->text))
        finish = NVLLM_FINISH_STOP;
    set_times(r);
    if (r->stream.failed || e->text.failed) {
        fail_request(e, at, "out of memory for the answer's text");
        return;
    }
    end_request(e, at,
                &(nvllm_event){.request = r->id,
                               .kind = NVLLM_EVENT_DONE,
                               .token = -1,
                               .text = e->text.data,
                               .text_len = e->text.len,
                               .finish = finish,
                               .usage = r->usage});
}

/* One generated token: text, stop strings, the event; then the end, if this was it. */
static void handle_token(nvllm_engine *e, request **at, const engine_event *event, double time)
{
    request *r = *at;
    bool met_stop = false;
    if (r->first == 0) r->first = time;
    r->last = time;
    r->usage.generated_tokens++;
    buffer_clear(&e->text);
    if (event->kind != ENGINE_STOP) {
        met_stop = text_stream_push(&r->stream, event->token, &e->text);
        event_queue_push(&e->events, &(nvllm_event){.request = r->id,
                                                    .kind = NVLLM_EVENT_TOKEN,
                                                    .token = event->token,
                                                    .seconds = time,
                                                    .text = e->text.data,
                                                    .text_len = e->text.len,
                                                    .logprob = event->logprob,
                                                    .top = (const nvllm_logprob *)event->top,
                                                    .n_top = (size_t)event->n_top});
    }
    if (met_stop && event->kind == ENGINE_TOKEN) engine_cancel(e->engine, r->id);
    if (met_stop || event->kind == ENGINE_STOP)
        finish_request(e, at, NVLLM_FINISH_STOP);
    else if (event->kind == ENGINE_LENGTH)
        finish_request(e, at, NVLLM_FINISH_LENGTH);
}

/* One event per prompt token, without text: its place in the prompt is its index. */
static void push_prompt_events(nvllm_engine *e, const request *r)
{
    size_t k = (size_t)r->sequence.top_logprobs;
    for (int32_t i = 0; i < r->sequence.n_prompt; i++)
        event_queue_push(&e->events, &(nvllm_event){.request = r->id,
                                                    .kind = NVLLM_EVENT_PROMPT,
                                                    .token = r->prompt[i],
                                                    .text = "",
                                                    .logprob = r->prompt_score[i],
                                                    .top = r->prompt_top + (size_t)i * k,
                                                    .n_top = i > 0 ? k : 0});
}

static void handle_event(nvllm_engine *e, const engine_event *event, double time)
{
    request **at = find_request(e, event->id);
    if (!*at) return; /* ended by a stop string; this is the echo of our cancel */
    switch (event->kind) {
    case ENGINE_STARTED:
        (*at)->started = time;
        (*at)->usage.cached_tokens = event->cached_tokens;
        break;
    case ENGINE_TOKEN:
    case ENGINE_STOP:
    case ENGINE_LENGTH: handle_token(e, at, event, time); break;
    case ENGINE_CANCELLED: finish_request(e, at, NVLLM_FINISH_CANCELLED); break;
    case ENGINE_FAILED:
        fail_request(e, at, "the model's logits are not numbers: its weights are damaged");
        break;
    case ENGINE_SCORED:
        if ((*at)->score)
            end_request(e, at, NULL);
        else
            push_prompt_events(e, *at);
        break;
    }
}

/* ---- Loop ------------------------------------------------------------------------------------------------------ */

/* With the lock held: hands new requests and cancellations to the engine. */
static void take_inbox(nvllm_engine *e)
{
    while (e->inbox) {
        request *r = e->inbox;
        nvllm_error err = {0};
        e->inbox = r->next;
        r->next = e->requests;
        e->requests = r;
        if (engine_add(e->engine, &r->sequence, r->id, &err)) {
            pthread_cond_broadcast(&e->news);
            fail_request(e, &e->requests, "out of memory for a sequence");
        }
    }
    e->inbox_end = &e->inbox;
    for (size_t i = 0; i < e->n_cancels; i++) engine_cancel(e->engine, e->cancels[i]);
    e->n_cancels = 0;
}

/* With the lock held, which is free while the errand runs. */
static void run_errand(nvllm_engine *e)
{
    errand *a = e->errand;
    pthread_mutex_unlock(&e->lock);
    a->run(e, a->context);
    pthread_mutex_lock(&e->lock);
    a->done = true;
    e->errand = NULL;
    pthread_cond_broadcast(&e->news);
}

/* The device failed: every request ends with its sentence, and no new one is taken. */
static void fail_all(nvllm_engine *e)
{
    while (e->requests) fail_request(e, &e->requests, e->failure.message);
    pthread_cond_broadcast(&e->news);
}

/* One step, without the lock; then its events, with it. */
static void step(nvllm_engine *e)
{
    const engine_event *events;
    double before = engine_now();
    pthread_mutex_unlock(&e->lock);
    nvllm_error failure = {0};
    if (e->profile) profile_begin(e->profile, engine_held_tokens(e->engine));
    int32_t n = engine_step(e->engine, &events, &failure);
    if (e->profile) profile_end(e->profile);
    double after = engine_now();
    pthread_mutex_lock(&e->lock);
    e->kernels = e->backend->recorded_kernels;
    if (n < 0) e->failure = failure;
    for (int32_t i = 0; i < n; i++)
        handle_event(e, &events[i], events[i].kind == ENGINE_STARTED ? before : after);
    e->counts = engine_count(e->engine);
    if (n > 0) pthread_cond_broadcast(&e->news);
}

void *engine_thread(void *arg)
{
    nvllm_engine *e = arg;
    backend_enter(e->backend);
    pthread_mutex_lock(&e->lock);
    while (!e->closing) {
        take_inbox(e);
        if (e->errand)
            run_errand(e);
        else if (e->failure.code && e->requests)
            fail_all(e);
        else if (!e->failure.code && !engine_idle(e->engine))
            step(e);
        else if (!e->inbox && !e->n_cancels)
            pthread_cond_wait(&e->work, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}
