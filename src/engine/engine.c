/* The step loop; see engine.h. */
#include "engine/engine.h"
#include "engine/kv_pages.h"
#include "engine/scheduler.h"
#include "engine/step_batch.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_SLOTS      64                 /* S: 16 KB per head in bf16 at C = 128 */
#define MAX_LOGIT_BYTES ((size_t)32 << 20) /* of the logits buffer, unless more sequences than that run */

struct engine {
    const model *model;
    runner *runner;
    engine_options options;
    kv_pages pages;
    step_batch batch;
    step_budget budget;
    sequence *waiting, **waiting_end;
    int32_t n_waiting, n_running;
    sequence **running;   /* [max_sequences], in order of admission */
    step_row *rows;       /* [max_sequences] */
    engine_event *events; /* [3 * max_sequences]: at most one end, one start and one token each */
    int32_t n_events;
    sample_logprob *top; /* [max_sequences, ENGINE_MAX_TOP_LOGPROBS] */
    float *raw_logits;   /* [V] of the row being sampled */
    void *sample_scratch;
    engine_counts counts;
};

/* ---- Opening and closing ------------------------------------------------------------------------------------- */

static int32_t pages_for(int64_t tokens)
{
    return (int32_t)((tokens + PAGE_SLOTS - 1) / PAGE_SLOTS);
}

static int32_t logits_for(const model *m, const engine_options *o)
{
    int64_t fit = (int64_t)(MAX_LOGIT_BYTES / ((size_t)m->config.V * sizeof(float)));
    if (fit > o->step_tokens) fit = o->step_tokens;
    return (int32_t)(fit > o->max_sequences ? fit : o->max_sequences);
}

static nvllm_status open_parts(engine *e, backend *b, nvllm_error *err)
{
    const engine_options *o = &e->options;
    size_t R = (size_t)o->max_sequences;
    runner_options ro = {.max_tokens = o->step_tokens,
                         .max_logits = e->budget.max_logits,
                         .max_context = o->context,
                         .pages = pages_for(o->kv_tokens),
                         .page_slots = PAGE_SLOTS,
                         .kv_type = o->kv_type};
    nvllm_status st = runner_open(&e->runner, e->model, b, &ro, err);
    if (!st) st = kv_pages_open(&e->pages, ro.pages, err);
    if (!st)
        st = step_batch_open(&e->batch, o->step_tokens, o->max_sequences, ro.max_logits,
                             pages_for(o->context), PAGE_SLOTS, err);
    if (st) return st;
    e->running = calloc(R, sizeof *e->running);
    e->rows = calloc(R, sizeof *e->rows);
    e->events = calloc(3 * R, sizeof *e->events);
    e->top = calloc(R * ENGINE_MAX_TOP_LOGPROBS, sizeof *e->top);
    e->raw_logits = calloc((size_t)e->model->config.V, sizeof *e->raw_logits);
    e->sample_scratch = malloc(sample_scratch(e->model->config.V));
    if (!e->running || !e->rows || !e->events || !e->top || !e->raw_logits || !e->sample_scratch)
        return error_memory(err, sample_scratch(e->model->config.V), "the engine's tables");
    return NVLLM_OK;
}

nvllm_status engine_open(engine **out, const model *m, backend *b, const engine_options *options,
                         nvllm_error *err)
{
    engine *e = calloc(1, sizeof *e);
    if (!e) return error_memory(err, sizeof *e, "the engine");
    e->model = m;
    e->options = *options;
    e->waiting_end = &e->waiting;
    e->budget =
        (step_budget){.step_tokens = options->step_tokens,
                      .row_tokens = options->row_tokens > 0 ? options->row_tokens : options->step_tokens,
                      .max_logits = logits_for(m, options)};
    nvllm_status st = open_parts(e, b, err);
    if (st) {
        engine_close(e);
        return st;
    }
    *out = e;
    return NVLLM_OK;
}

void engine_close(engine *e)
{
    if (!e) return;
    for (int32_t i = 0; i < e->n_running; i++) sequence_free(e->running[i]);
    for (sequence *s = e->waiting, *next; s; s = next) {
        next = s->next;
        sequence_free(s);
    }
    free(e->running);
    free(e->rows);
    free(e->events);
    free(e->top);
    free(e->raw_logits);
    free(e->sample_scratch);
    step_batch_close(&e->batch);
    kv_pages_close(&e->pages);
    runner_close(e->runner);
    free(e);
}

/* ---- Requests ------------------------------------------------------------------------------------------------ */

nvllm_status engine_check_length(const engine *e, int64_t n_prompt, int64_t max_tokens, nvllm_error *err)
{
    int64_t context = e->options.context, total = n_prompt + max_tokens;
    if (n_prompt < 1) return error_set(err, NVLLM_ERR_USAGE, "the prompt has no tokens");
    if (max_tokens > 0 && n_prompt >= context)
        return error_set(
            err, NVLLM_ERR_LIMIT,
            "the prompt has %lld tokens; with one token of answer it does not fit the context of %lld",
            (long long)n_prompt, (long long)context);
    if (total > context)
        return error_set(err, NVLLM_ERR_LIMIT, "%lld tokens do not fit the context of %lld", (long long)total,
                         (long long)context);
    if (pages_for(total) > e->pages.pages)
        return error_set(err, NVLLM_ERR_LIMIT, "%lld tokens do not fit the KV cache of %lld",
                         (long long)total, (long long)e->pages.pages * PAGE_SLOTS);
    return NVLLM_OK;
}

nvllm_status engine_add(engine *e, const sequence_request *request, uint64_t id, nvllm_error *err)
{
    nvllm_status st = engine_check_length(e, request->n_prompt, request->max_tokens, err);
    if (st) return st;
    sequence *s;
    st = sequence_new(&s, request, id, pages_for((int64_t)request->n_prompt + request->max_tokens), err);
    if (st) return st;
    *e->waiting_end = s;
    e->waiting_end = &s->next;
    e->n_waiting++;
    return NVLLM_OK;
}

void engine_cancel(engine *e, uint64_t id)
{
    for (int32_t i = 0; i < e->n_running; i++)
        if (e->running[i]->id == id) e->running[i]->cancelled = true;
    for (sequence *s = e->waiting; s; s = s->next)
        if (s->id == id) s->cancelled = true;
}

bool engine_idle(const engine *e)
{
    return e->n_running == 0 && e->n_waiting == 0;
}

/* ---- The parts of a step ------------------------------------------------------------------------------------- */

static engine_event *emit(engine *e, const sequence *s, engine_event_kind kind, int32_t token)
{
    engine_event *event = &e->events[e->n_events++];
    *event = (engine_event){.id = s->id, .kind = kind, .token = token};
    return event;
}

/* Frees the sequences that have had their last event, keeping the others in order. */
static void drop_ended(engine *e)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < e->n_running; i++) {
        sequence *s = e->running[i];
        if (!s->ended) {
            e->running[kept++] = s;
            continue;
        }
        kv_pages_release(&e->pages, s->pages, s->n_pages);
        sequence_free(s);
    }
    e->n_running = kept;
}

static void drop_cancelled(engine *e)
{
    for (int32_t i = 0; i < e->n_running; i++) {
        sequence *s = e->running[i];
        if (!s->cancelled) continue;
        emit(e, s, ENGINE_CANCELLED, -1);
        s->ended = true;
    }
    drop_ended(e);
}

static sequence *pop_waiting(engine *e)
{
    sequence *s = e->waiting;
    e->waiting = s->next;
    if (!e->waiting) e->waiting_end = &e->waiting;
    e->n_waiting--;
    s->next = NULL;
    return s;
}

/* In order of arrival; the first that does not fit yet holds the rest back, so nobody is starved. At most
 * max_sequences cancelled ones are answered per step: that is the room in events. */
static void admit_waiting(engine *e)
{
    int32_t room = e->options.max_sequences - e->n_events;
    while (e->waiting) {
        sequence *s = e->waiting;
        if (s->cancelled) {
            if (room-- <= 0) return;
            emit(e, s, ENGINE_CANCELLED, -1);
            sequence_free(pop_waiting(e));
            continue;
        }
        int32_t need = pages_for((int64_t)s->request.n_prompt + s->request.max_tokens);
        if (e->n_running == e->options.max_sequences || !kv_pages_take(&e->pages, s->pages, need)) return;
        s->n_pages = need;
        emit(e, s, ENGINE_STARTED, -1);
        e->running[e->n_running++] = pop_waiting(e);
    }
}

static void add_logprobs(engine *e, engine_event *event, const sequence *s, int32_t row)
{
    int32_t k = s->request.top_logprobs;
    if (k > ENGINE_MAX_TOP_LOGPROBS) k = ENGINE_MAX_TOP_LOGPROBS;
    sample_logprob *top = e->top + (size_t)row * ENGINE_MAX_TOP_LOGPROBS;
    event->logprob = sample_logprobs(e->raw_logits, e->model->config.V, event->token, top, k);
    event->top = top;
    event->n_top = k;
}

static int32_t draw(engine *e, const sequence *s, float *logits)
{
    const sequence_request *q = &s->request;
    bool too_short = sequence_generated(s) < q->min_tokens;
    return sample_token(&(sample_args){.logits = logits,
                                       .V = e->model->config.V,
                                       .params = &q->sampling,
                                       .step = (uint64_t)sequence_generated(s),
                                       .counts = s->counts,
                                       .n_counts = s->n_counts,
                                       .bias = q->bias,
                                       .n_bias = q->n_bias,
                                       .banned = q->stop_ids,
                                       .n_banned = too_short ? q->n_stop_ids : 0,
                                       .scratch = e->sample_scratch});
}

/* Log-probabilities of the prompt tokens that follow the row's tokens. */
static bool score_row(engine *e, const step_row *row, const float *logits)
{
    sequence *s = row->sequence;
    int32_t V = e->model->config.V, first = s->n_computed - row->count;
    for (int32_t i = 0; i < row->count; i++) {
        int32_t next = first + i + 1;
        if (next < s->request.n_prompt)
            s->request.score[next] =
                sample_logprobs(logits + (size_t)i * (size_t)V, V, s->tokens[next], NULL, 0);
    }
    if (s->n_computed < s->request.n_prompt) return false;
    emit(e, s, ENGINE_SCORED, -1);
    return true;
}

/* Draws the row's next token; true when the sequence has ended. Penalties change the logits in place, and
 * log-probabilities are of the model's own distribution: so a copy is kept for those who ask. */
static bool sample_row(engine *e, const step_row *row, int32_t index, float *logits)
{
    sequence *s = row->sequence;
    bool wants_logprobs = s->request.top_logprobs >= 0;
    if (wants_logprobs) memcpy(e->raw_logits, logits, (size_t)e->model->config.V * sizeof *logits);
    int32_t token = draw(e, s, logits);
    sequence_push(s, token);
    e->counts.generated_tokens++;
    bool stop = sequence_is_stop(s, token), full = sequence_generated(s) >= s->request.max_tokens;
    engine_event *event = emit(e, s, stop ? ENGINE_STOP : full ? ENGINE_LENGTH : ENGINE_TOKEN, token);
    if (wants_logprobs) add_logprobs(e, event, s, index);
    return stop || full;
}

static void finish_rows(engine *e, int32_t n_rows, float *logits)
{
    for (int32_t r = 0; r < n_rows; r++) {
        step_row *row = &e->rows[r];
        sequence *s = row->sequence;
        if (s->n_computed < s->request.n_prompt) {
            int32_t left = s->request.n_prompt - s->n_computed;
            e->counts.prompt_tokens += (uint64_t)(row->count < left ? row->count : left);
        }
        s->n_computed += row->count;
        if (row->logits == 0) continue;
        float *own = logits + (size_t)row->first_logit * (size_t)e->model->config.V;
        s->ended = s->request.score ? score_row(e, row, own) : sample_row(e, row, r, own);
    }
}

int32_t engine_step(engine *e, const engine_event **events)
{
    e->n_events = 0;
    *events = e->events;
    drop_cancelled(e);
    admit_waiting(e);
    int32_t n_rows = scheduler_plan(e->rows, e->running, e->n_running, &e->budget);
    if (n_rows == 0) return e->n_events;
    const batch *step = step_batch_build(&e->batch, e->rows, n_rows);
    float *logits = runner_step(e->runner, step);
    finish_rows(e, n_rows, logits);
    drop_ended(e);
    e->counts.steps++;
    return e->n_events;
}

engine_counts engine_count(const engine *e)
{
    engine_counts c = e->counts;
    c.running = e->n_running;
    c.waiting = e->n_waiting;
    c.pages = e->pages.pages;
    c.pages_used = e->pages.pages - e->pages.n_free;
    c.page_slots = PAGE_SLOTS;
    return c;
}

runner *engine_runner(engine *e)
{
    return e->runner;
}
