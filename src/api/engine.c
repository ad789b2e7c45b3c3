/* The engine handle: opening, closing, and the calls of other threads; see engine_state.h. */
#define _GNU_SOURCE
#include "api/engine_options.h"
#include "api/engine_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_QUEUE 1024

/* ---- Opening and closing --------------------------------------------------------------------------------------- */

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

/* ---- Calls from other threads ---------------------------------------------------------------------------------- */

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
    r->submitted = engine_now();
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
    const fusion_report *f = runner_fusion(r);
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
                         .unchained = *f->no_chain ? f->no_chain : NULL,
                         .failure = failure,
                         .passed_over = *e->backend->passed_over ? e->backend->passed_over : NULL,
                         .device = e->backend->type->name,
                         .isa = e->backend->isa};
}
