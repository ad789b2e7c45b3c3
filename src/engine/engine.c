/* The step loop; see engine.h. */
#include "engine/state.h"

#include <stdlib.h>
#include <string.h>

#define MAX_LOGIT_BYTES ((size_t)32 << 20) /* of the logits buffer, unless more sequences than that run */

/* ---- Opening and closing ------------------------------------------------------------------------------------- */

static int32_t logits_for(const model *m, const engine_options *o)
{
    int64_t fit = (int64_t)(MAX_LOGIT_BYTES / ((size_t)m->config.V * sizeof(float)));
    if (fit > o->step_tokens) fit = o->step_tokens;
    return (int32_t)(fit > o->max_sequences ? fit : o->max_sequences);
}

static runner_options runner_options_of(const model *m, const engine_options *o)
{
    return (runner_options){.max_tokens = o->step_tokens,
                            .max_rows = o->max_sequences,
                            .max_logits = logits_for(m, o),
                            .max_context = o->context,
                            .pages = pages_for(o->kv_tokens),
                            .page_slots = PAGE_SLOTS,
                            .kv_type = o->kv_type,
                            .fusion = o->fusion};
}

memory_plan engine_plan(const model *m, backend *b, const engine_options *options)
{
    runner_options ro = runner_options_of(m, options);
    return memory_plan_of(m, b, &ro);
}

static nvllm_status open_parts(engine *e, backend *b, nvllm_error *err)
{
    const engine_options *o = &e->options;
    size_t R = (size_t)o->max_sequences;
    runner_options ro = runner_options_of(e->model, o);
    nvllm_status st = runner_open(&e->runner, e->model, b, &ro, err);
    if (!st) st = kv_pages_open(&e->pages, ro.pages, PAGE_SLOTS, err);
    if (!st)
        st = step_batch_open(&e->batch, o->step_tokens, o->max_sequences, ro.max_logits,
                             pages_for(o->context), PAGE_SLOTS, err);
    if (st) return st;
    e->running = calloc(R, sizeof *e->running);
    e->events = calloc(ENGINE_EVENTS * R, sizeof *e->events);
    for (int i = 0; i < 2; i++) e->flights[i].rows = calloc(R, sizeof(step_row));
    if (!e->running || !e->events || !e->flights[0].rows || !e->flights[1].rows)
        return error_memory(err, R * (sizeof *e->running + 2 * sizeof(step_row)), "the engine's tables");
    return NVLLM_OK;
}

nvllm_status engine_open(engine **out, const model *m, backend *b, const engine_options *options,
                         nvllm_error *err)
{
    engine *e = calloc(1, sizeof *e);
    if (!e) return error_memory(err, sizeof *e, "the engine");
    e->model = m;
    e->options = *options;
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
    free(e->flights[0].rows);
    free(e->flights[1].rows);
    free(e->events);
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
    residency_enqueue(e, s);
    return NVLLM_OK;
}

void engine_cancel(engine *e, uint64_t id)
{
    e->cancel_pending = true;
    for (int32_t i = 0; i < e->n_running; i++)
        if (e->running[i]->id == id) e->running[i]->cancelled = true;
    for (sequence *s = e->waiting; s; s = s->next)
        if (s->id == id) s->cancelled = true;
}

bool engine_idle(const engine *e)
{
    return e->n_running == 0 && e->n_waiting == 0;
}

/* ---- The step ------------------------------------------------------------------------------------------------ */

/* Plans again without the last of the running sequences until the pages suffice. One sequence alone always fits: what
 * never could was refused when it was added. While a step is in flight nobody is preempted: 0 rows. */
static int32_t plan(engine *e, flight *f)
{
    for (;;) {
        f->n_rows = scheduler_plan(f->rows, e->running, e->n_running, &e->budget);
        if (f->n_rows == 0 || residency_reserve(e, f->rows, f->n_rows)) return f->n_rows;
        if (e->n_flights > 0) return 0;
        residency_preempt(e);
    }
}

/* Plans and starts a step behind those in flight, if there is anything to do. */
static nvllm_status start_step(engine *e, nvllm_error *err)
{
    flight *f = &e->flights[e->n_flights];
    if (plan(e, f) == 0) return NVLLM_OK;
    const batch *step = step_batch_build(&e->batch, f->rows, f->n_rows, err);
    nvllm_status st = step ? runner_launch(e->runner, step, err) : NVLLM_ERR_MEMORY;
    if (st) return st;
    if (++e->steps_started == 0) e->steps_started = 1;
    f->number = e->steps_started;
    f->scores = false;
    for (int32_t r = 0; r < f->n_rows; r++) {
        sequence *s = f->rows[r].sequence;
        s->n_computed += f->rows[r].count;
        s->draw = f->rows[r].draw;
        s->draw_step = s->draw >= 0 ? f->number : 0;
        f->scores = f->scores || (s->request.score && !s->scored);
    }
    e->n_flights++;
    return NVLLM_OK;
}

/* May the next step be started before the tokens of the one in flight are known? Not when somebody waits for its end, and
 * not when the host needs its logits or tokens first. */
static bool may_run_ahead(const engine *e)
{
    const flight *f = &e->flights[0];
    if (e->n_flights != 1 || !runner_is_async(e->runner) || e->cancel_pending || f->scores) return false;
    for (int32_t r = 0; r < f->n_rows; r++)
        if (f->rows[r].sequence && f->rows[r].sequence->counts) return false; /* penalties count all tokens */
    return true;
}

/* The oldest step in flight: waits for it, and turns its draws into events. */
static nvllm_status collect(engine *e, nvllm_error *err)
{
    flight f = e->flights[0];
    const draw_result *draws;
    float *logits = NULL;
    nvllm_status st = runner_draws(e->runner, &draws, err);
    if (!st && f.scores) st = runner_logits(e->runner, &logits, err);
    if (st) return st;
    e->flights[0] = e->flights[1];
    e->flights[1] = f;
    e->n_flights--;
    finish_rows(e, &f, draws, logits);
    residency_list_pages(e, f.rows, f.n_rows);
    for (int32_t r = 0; e->n_flights > 0 && r < e->flights[0].n_rows; r++) {
        step_row *row = &e->flights[0].rows[r];
        if (row->sequence && row->sequence->ended) row->sequence = NULL;
    }
    residency_drop_ended(e);
    e->counts.steps++;
    return NVLLM_OK;
}

int32_t engine_step(engine *e, const engine_event **events, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    e->n_events = 0;
    *events = e->events;
    if (e->n_flights == 0) {
        residency_drop_cancelled(e);
        residency_admit(e);
        st = start_step(e, err);
    }
    if (!st && may_run_ahead(e)) {
        residency_admit(e);
        st = start_step(e, err);
    }
    if (!st && e->n_flights > 0) st = collect(e, err);
    return st ? -1 : e->n_events;
}

engine_counts engine_count(const engine *e)
{
    engine_counts c = e->counts;
    c.running = e->n_running;
    c.waiting = e->n_waiting;
    c.pages = e->pages.pages;
    c.pages_used = e->pages.pages - kv_pages_available(&e->pages);
    c.page_slots = PAGE_SLOTS;
    return c;
}

int64_t engine_held_tokens(const engine *e)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < e->n_running; i++) sum += e->running[i]->n_computed;
    return sum;
}

runner *engine_runner(engine *e)
{
    return e->runner;
}
