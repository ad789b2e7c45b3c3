/* The engine handle: one thread that owns the device, an inbox of requests, a queue of events.
 *
 * The lock guards the inbox, the event queue and the counters; it is never held while a step runs. The table of live
 * requests belongs to the engine's thread alone. */
#define _GNU_SOURCE
#include "api/engine_options.h"
#include "api/event_queue.h"
#include "api/profile.h"
#include "api/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_QUEUE 1024

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

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- The engine's thread: events ----------------------------------------------------------------------------- */

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

/* ---- The engine's thread: loop ------------------------------------------------------------------------------- */

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
    double before = now();
    pthread_mutex_unlock(&e->lock);
    nvllm_error failure = {0};
    if (e->profile) profile_begin(e->profile, engine_held_tokens(e->engine));
    int32_t n = engine_step(e->engine, &events, &failure);
    if (e->profile) profile_end(e->profile);
    double after = now();
    pthread_mutex_lock(&e->lock);
    e->kernels = e->backend->recorded_kernels;
    if (n < 0) e->failure = failure;
    for (int32_t i = 0; i < n; i++)
        handle_event(e, &events[i], events[i].kind == ENGINE_STARTED ? before : after);
    e->counts = engine_count(e->engine);
    if (n > 0) pthread_cond_broadcast(&e->news);
}

static void *engine_thread(void *arg)
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

/* ---- Opening and closing ------------------------------------------------------------------------------------- */

static void note_unfused(nvllm_engine *e)
{
    const fusion_report *f = runner_fusion(engine_runner(e->engine));
    if (f->refused)
        snprintf(e->unfused, sizeof e->unfused, "%s (%d of %d places)", f->reason, f->refused,
                 f->refused + f->fused);
}

static nvllm_status open_parts(nvllm_engine *e, const nvllm_engine_options *options, nvllm_error *err)
{
    static const nvllm_engine_options defaults = {0};
    if (!options) options = &defaults;
    if (options->threads < 0 || options->threads > 1024)
        return error_set(err, NVLLM_ERR_USAGE, "threads is %d, must be between 1 and 1024", options->threads);
    if (options->queue < 0)
        return error_set(err, NVLLM_ERR_USAGE, "queue is %d, must not be negative", options->queue);
    e->queue_limit = options->queue ? options->queue : DEFAULT_QUEUE;
    backend_options bo = {.threads = options->threads, .isa = options->isa};
    nvllm_status st = backend_open(&e->backend, options->device, &bo, err);
    if (!st) st = engine_options_resolve(&e->options, options, e->model->model, e->backend, err);
    if (!st) st = engine_memory_check(&e->options, e->model->model, e->backend, err);
    if (!st) st = engine_open(&e->engine, e->model->model, e->backend, &e->options, err);
    if (st) return st;
    e->counts = engine_count(e->engine);
    note_unfused(e);
    return NVLLM_OK;
}

static void free_parts(nvllm_engine *e)
{
    for (request *r = e->requests, *next; r; r = next) {
        next = r->next;
        request_free(r);
    }
    for (request *r = e->inbox, *next; r; r = next) {
        next = r->next;
        request_free(r);
    }
    profile_close(e->profile);
    engine_close(e->engine);
    backend_close(e->backend);
    event_queue_free(&e->events);
    buffer_free(&e->text);
    free(e->cancels);
    free(e);
}

nvllm_status nvllm_engine_open(nvllm_engine **out, const nvllm_model *m, const nvllm_engine_options *options,
                               nvllm_error *err)
{
    nvllm_engine *e = calloc(1, sizeof *e);
    if (!e) return error_memory(err, sizeof *e, "an engine");
    e->model = m;
    e->inbox_end = &e->inbox;
    e->next_id = 1;
    nvllm_status st = open_parts(e, options, err);
    if (st) {
        free_parts(e);
        return st;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int rc = pthread_create(&e->thread, NULL, engine_thread, e);
    if (rc) {
        free_parts(e);
        return error_set(err, NVLLM_ERR_MEMORY, "cannot start the engine's thread: %s", strerror(rc));
    }
    *out = e;
    return NVLLM_OK;
}

void nvllm_engine_close(nvllm_engine *e)
{
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    e->closing = true;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->news);
    free_parts(e);
}

/* ---- Calls from other threads -------------------------------------------------------------------------------- */

/* Takes ownership of r, also when it fails. */
static nvllm_status enqueue(nvllm_engine *e, request *r, uint64_t *id, nvllm_error *err)
{
    nvllm_status st = engine_check_length(e->engine, r->sequence.n_prompt, r->sequence.max_tokens, err);
    if (st) {
        request_free(r);
        return st;
    }
    pthread_mutex_lock(&e->lock);
    if (e->failure.code) {
        nvllm_error failure = e->failure;
        pthread_mutex_unlock(&e->lock);
        request_free(r);
        return error_set(err, failure.code, "%s", failure.message);
    }
    if (e->live >= e->queue_limit + e->options.max_sequences) {
        pthread_mutex_unlock(&e->lock);
        request_free(r);
        return error_set(err, NVLLM_ERR_BUSY, "%d requests are waiting already", e->queue_limit);
    }
    r->id = e->next_id++;
    r->submitted = now();
    if (id) *id = r->id;
    *e->inbox_end = r;
    e->inbox_end = &r->next;
    e->live++;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    return NVLLM_OK;
}

nvllm_status nvllm_submit(nvllm_engine *e, const nvllm_request *from, uint64_t *id, nvllm_error *err)
{
    request *r;
    nvllm_status st = request_new(&r, e->model, from, e->options.context, err);
    return st ? st : enqueue(e, r, id, err);
}

static struct timespec deadline_in(int timeout_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

size_t nvllm_poll(nvllm_engine *e, nvllm_event *events, size_t capacity, int timeout_ms)
{
    struct timespec deadline = deadline_in(timeout_ms > 0 ? timeout_ms : 0);
    pthread_mutex_lock(&e->lock);
    while (event_queue_empty(&e->events)) {
        if (timeout_ms < 0) {
            if (e->live == 0) break;
            pthread_cond_wait(&e->news, &e->lock);
        } else if (pthread_cond_timedwait(&e->news, &e->lock, &deadline) == ETIMEDOUT) {
            break;
        }
    }
    size_t n = event_queue_read(&e->events, events, capacity);
    pthread_mutex_unlock(&e->lock);
    return n;
}

void nvllm_cancel(nvllm_engine *e, uint64_t id)
{
    pthread_mutex_lock(&e->lock);
    if (e->n_cancels == e->cancel_capacity) {
        size_t capacity = e->cancel_capacity ? 2 * e->cancel_capacity : 16;
        uint64_t *more = realloc(e->cancels, capacity * sizeof *more);
        if (more) {
            e->cancels = more;
            e->cancel_capacity = capacity;
        }
    }
    if (e->n_cancels < e->cancel_capacity) e->cancels[e->n_cancels++] = id;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

nvllm_status nvllm_score(nvllm_engine *e, const int32_t *ids, size_t n_ids, float *logprobs, nvllm_error *err)
{
    request *r;
    score_state state = SCORE_PENDING;
    nvllm_status st = request_new_score(&r, e->model, ids, n_ids, logprobs, err);
    if (st) return st;
    r->score = &state;
    st = enqueue(e, r, NULL, err);
    if (st) return st;
    pthread_mutex_lock(&e->lock);
    while (state == SCORE_PENDING) pthread_cond_wait(&e->news, &e->lock);
    nvllm_error failure = e->failure;
    pthread_mutex_unlock(&e->lock);
    if (state == SCORE_DONE) return NVLLM_OK;
    if (failure.code) return error_set(err, failure.code, "%s", failure.message);
    return error_memory(err, n_ids * sizeof *ids, "a sequence");
}

nvllm_stats nvllm_engine_stats(nvllm_engine *e)
{
    const model *m = e->model->model;
    const runner *r = engine_runner(e->engine);
    pthread_mutex_lock(&e->lock);
    engine_counts c = e->counts;
    int32_t kernels = e->kernels;
    const char *failure = e->failure.code ? e->failure.message : NULL; /* set once */
    pthread_mutex_unlock(&e->lock);
    return (nvllm_stats){.running = c.running,
                         .waiting = c.waiting,
                         .kv_tokens_used = (int64_t)c.pages_used * c.page_slots,
                         .kv_tokens = (int64_t)c.pages * c.page_slots,
                         .steps = c.steps,
                         .prompt_tokens = c.prompt_tokens,
                         .generated_tokens = c.generated_tokens,
                         .prefix_queries = c.prefix_queries,
                         .prefix_hits = c.prefix_hits,
                         .preemptions = c.preemptions,
                         .kv_bytes_per_token = (int64_t)model_kv_bytes_per_token(m, e->options.kv_type),
                         .kv_bytes = (int64_t)runner_kv_bytes(r),
                         .workspace_bytes = (int64_t)runner_workspace_bytes(r),
                         .step_tokens = e->options.step_tokens,
                         .kernels_per_step = kernels,
                         .threads = e->backend->threads,
                         .device_id = e->backend->id,
                         .unfused = *e->unfused ? e->unfused : NULL,
                         .failure = failure,
                         .passed_over = *e->backend->passed_over ? e->backend->passed_over : NULL,
                         .device = e->backend->type->name,
                         .isa = e->backend->isa};
}

/* ---- Errands -------------------------------------------------------------------------------------------------- */

/* Returns when the engine's thread has run it. */
static void send_errand(nvllm_engine *e, void (*run)(nvllm_engine *e, void *context), void *context)
{
    errand mine = {run, context, false};
    pthread_mutex_lock(&e->lock);
    while (e->errand) pthread_cond_wait(&e->news, &e->lock);
    /* cppcheck-suppress autoVariables ; taken away before this returns */
    e->errand = &mine;
    pthread_cond_signal(&e->work);
    while (!mine.done) pthread_cond_wait(&e->news, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

static void measure(nvllm_engine *e, void *limits)
{
    backend_limits found = backend_measure(e->backend);
    *(nvllm_limits *)limits = (nvllm_limits){found.read_bytes_per_s * 1e-9, found.bf16_flops * 1e-9};
}

nvllm_limits nvllm_measure_limits(nvllm_engine *e)
{
    nvllm_limits limits = {0};
    send_errand(e, measure, &limits);
    return limits;
}

typedef struct {
    char *json;
    nvllm_status status;
    nvllm_error *err;
} profile_errand;

static void start_profile(nvllm_engine *e, void *context)
{
    profile_errand *a = context;
    if (e->profile)
        a->status = error_set(a->err, NVLLM_ERR_USAGE, "a profile is being taken already");
    else
        a->status = profile_open(&e->profile, engine_runner(e->engine), e->backend, a->err);
}

static void stop_profile(nvllm_engine *e, void *context)
{
    profile_errand *a = context;
    if (!e->profile) {
        a->status = error_set(a->err, NVLLM_ERR_USAGE, "no profile is being taken");
        return;
    }
    profile_read(e->profile);
    a->json = profile_json(e->profile, engine_runner(e->engine), e->model->model, e->options.kv_type);
    if (!a->json) a->status = error_memory(a->err, 0, "the profile's document");
    profile_close(e->profile);
    e->profile = NULL;
}

nvllm_status nvllm_profile_start(nvllm_engine *e, nvllm_error *err)
{
    profile_errand a = {.err = err};
    send_errand(e, start_profile, &a);
    return a.status;
}

nvllm_status nvllm_profile_stop(nvllm_engine *e, char **json, nvllm_error *err)
{
    profile_errand a = {.err = err};
    send_errand(e, stop_profile, &a);
    if (!a.status) *json = a.json;
    return a.status;
}
