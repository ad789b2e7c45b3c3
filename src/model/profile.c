/* Marks after every op, and what becomes of them; see profile.h. */
#define _GNU_SOURCE
#include "model/profile.h"

#include <stdlib.h>
#include <time.h>

struct profile {
    runner *runner;
    backend *backend;
    double zero; /* host clock at mark 0 */
    profile_step *steps;
    profile_op *ops;
    int32_t *mark_of; /* [n_ops] the mark after the op; the one before it has the number before */
    int32_t n_steps, step_capacity, n_ops, op_capacity, n_marks;
    int32_t open;   /* steps before this one have their end */
    bool recording; /* false: the step in progress is dropped */
    double begin;   /* of the step in progress */
    int64_t held;   /* see profile_begin */
    int64_t dropped;
};

static double host_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static double host_time(const profile *p)
{
    return host_clock() - p->zero;
}

/* ---- Recording ----------------------------------------------------------------------------------------------- */

static bool room_for_step(profile *p)
{
    if (p->n_steps < p->step_capacity) return true;
    int32_t capacity = p->step_capacity ? 2 * p->step_capacity : 64;
    profile_step *steps = realloc(p->steps, (size_t)capacity * sizeof *steps);
    if (!steps) return false;
    p->steps = steps;
    p->step_capacity = capacity;
    return true;
}

static bool room_for_op(profile *p)
{
    if (p->n_ops < p->op_capacity) return true;
    if (p->n_ops >= PROFILE_MAX_OPS) return false;
    int32_t capacity = p->op_capacity ? 2 * p->op_capacity : 4096;
    profile_op *ops = realloc(p->ops, (size_t)capacity * sizeof *ops);
    if (ops) p->ops = ops;
    int32_t *mark_of = realloc(p->mark_of, (size_t)capacity * sizeof *mark_of);
    if (mark_of) p->mark_of = mark_of;
    if (!ops || !mark_of) return false;
    p->op_capacity = capacity;
    return true;
}

static bool set_mark(profile *p)
{
    if (!p->backend->type->mark(p->backend, p->n_marks)) return false;
    p->n_marks++;
    return true;
}

/* So long that the host has started all ops of the step before the first one runs, as far as steps are alike. */
static void pause_device(profile *p)
{
    enum { FIRST_US = 2000, MOST_US = 50000 };
    double us = FIRST_US;
    for (int32_t i = p->n_steps > 8 ? p->n_steps - 8 : 0; i < p->n_steps; i++) {
        double took = 1.5 * (p->steps[i].launched - p->steps[i].launch);
        if (took > us) us = took;
    }
    if (p->backend->type->pause) p->backend->type->pause(p->backend, us < MOST_US ? us : MOST_US);
}

static void begin_step(profile *p, const batch *s)
{
    pause_device(p);
    p->recording = p->n_ops < PROFILE_MAX_OPS && room_for_step(p) && set_mark(p);
    if (!p->recording) {
        p->dropped++;
        return;
    }
    p->steps[p->n_steps++] = (profile_step){.T = s->T,
                                            .R = s->R,
                                            .N = s->N,
                                            .kv_tokens = p->held + s->T,
                                            .first = p->n_ops,
                                            .begin = p->begin,
                                            .launch = host_time(p)};
}

/* The step in progress did not fit: it goes, and so will those after it. */
static void drop_step(profile *p)
{
    p->n_ops = p->steps[--p->n_steps].first;
    p->recording = false;
    p->dropped++;
}

static void record_op(void *context, const runner *r, int32_t op, const batch *s)
{
    (void)r;
    profile *p = context;
    if (op < 0) {
        begin_step(p, s);
        return;
    }
    if (!p->recording) return;
    profile_step *step = &p->steps[p->n_steps - 1];
    if (!room_for_op(p) || !set_mark(p)) {
        drop_step(p);
        return;
    }
    p->ops[p->n_ops] = (profile_op){.op = op};
    p->mark_of[p->n_ops++] = p->n_marks - 1;
    step->count++;
    step->launched = host_time(p);
}

void profile_begin(profile *p, int64_t held)
{
    p->begin = host_time(p);
    p->held = held;
}

void profile_end(profile *p)
{
    for (; p->open < p->n_steps; p->open++) p->steps[p->open].end = host_time(p);
}

nvllm_status profile_open(profile **out, runner *r, backend *b, nvllm_error *err)
{
    profile *p = calloc(1, sizeof *p);
    if (!p || !b->type->mark(b, 0)) {
        free(p);
        return error_memory(err, sizeof *p, "a profile");
    }
    p->runner = r;
    p->backend = b;
    p->n_marks = 1;
    b->type->between(b, 0, 0); /* waits: from here on both clocks run together */
    p->zero = host_clock();
    runner_set_hook(r, record_op, p);
    *out = p;
    return NVLLM_OK;
}

void profile_close(profile *p)
{
    if (!p) return;
    runner_set_hook(p->runner, NULL, NULL);
    free(p->steps);
    free(p->ops);
    free(p->mark_of);
    free(p);
}

/* ---- Reading ------------------------------------------------------------------------------------------------- */

void profile_read(profile *p)
{
    double (*between)(backend * b, int32_t i, int32_t j) = p->backend->type->between;
    for (int32_t s = 0; s < p->n_steps; s++) {
        const profile_step *step = &p->steps[s];
        if (step->count == 0) continue;
        int32_t first = p->mark_of[step->first] - 1;
        double begin = between(p->backend, 0, first);
        for (int32_t i = step->first; i < step->first + step->count; i++) {
            int32_t mark = p->mark_of[i];
            p->ops[i].start = begin + between(p->backend, first, mark - 1);
            p->ops[i].took = between(p->backend, mark - 1, mark);
        }
    }
}

int32_t profile_steps(const profile *p, const profile_step **steps)
{
    *steps = p->steps;
    return p->n_steps;
}

const profile_op *profile_ops(const profile *p)
{
    return p->ops;
}

int64_t profile_dropped(const profile *p)
{
    return p->dropped;
}

/* ---- What an op costs at least ------------------------------------------------------------------------------- */

static bool attends(const graph_op *op)
{
    return op->kind == OP_ATTENTION || op->kind == OP_ROPE_ATTENTION;
}

static bool writes_kv(const graph_op *op)
{
    return op->kind == OP_KV_WRITE || op->kind == OP_ROPE_ATTENTION;
}

/* Positions that one row's tokens see together, none twice. */
static double visible(const model *m, const graph_op *op, const profile_step *s)
{
    double tokens = (double)s->T / s->R, length = (double)s->kv_tokens / s->R;
    double window = m->config.slides[op->layer] ? m->config.window + tokens - 1 : length;
    return length < window ? length : window;
}

int64_t profile_op_bytes(const model *m, dtype kv_type, const graph_op *op, const profile_step *s)
{
    int64_t bytes = (int64_t)graph_op_weight_bytes(op, &m->weights);
    int64_t per_position = 2 * (int64_t)m->config.K * (int64_t)dtype_row_bytes(kv_type, m->config.C);
    if (op->kind == OP_EMBED) bytes *= s->T; /* one row of the table each */
    if (attends(op)) bytes += (int64_t)(visible(m, op, s) * s->R * (double)per_position);
    if (writes_kv(op)) bytes += s->T * per_position;
    return bytes;
}

int64_t profile_op_flops(const model *m, const graph_op *op, const profile_step *s)
{
    int64_t flops = graph_op_flops(op, &m->weights) * (op->per_logit ? s->N : s->T);
    if (!attends(op)) return flops;
    double tokens = (double)s->T / s->R, length = (double)s->kv_tokens / s->R;
    double seen = tokens * length - tokens * (tokens - 1) / 2; /* causal: the last token sees all */
    double most = m->config.slides[op->layer] ? tokens * m->config.window : seen;
    return flops + (int64_t)(4.0 * m->config.H * m->config.C * s->R * (seen < most ? seen : most));
}
