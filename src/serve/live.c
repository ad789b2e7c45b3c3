/* The choices that the engine works on, found by the engine's id; and the events' way to them. */
#include "serve/exchange.h"
#include "serve/server.h"

static choice **bucket(server *s, uint64_t id)
{
    return &s->live[id % LIVE_BUCKETS];
}

void live_add(server *s, generation *g)
{
    for (size_t i = 0; i < g->n_choices; i++) {
        choice *c = &g->choices[i], **head = bucket(s, c->id);
        c->next = *head;
        *head = c;
    }
}

static void remove_choice(server *s, const choice *c)
{
    choice **at = bucket(s, c->id);
    while (*at && *at != c) at = &(*at)->next;
    if (*at) *at = c->next;
}

void live_remove(server *s, generation *g)
{
    for (size_t i = 0; i < g->n_choices; i++) remove_choice(s, &g->choices[i]);
}

static choice *find(server *s, uint64_t id)
{
    choice *c = *bucket(s, id);
    while (c && c->id != id) c = c->next;
    return c;
}

static void count(server *s, choice *c, const nvllm_event *event, double time)
{
    const generation *g = c->owner;
    if (event->kind == NVLLM_EVENT_TOKEN) {
        if (c->last_time > 0)
            metrics_next_token(&s->metrics, time - c->last_time);
        else
            metrics_first_token(&s->metrics, g->prompt_tokens[c->prompt], time - g->submitted);
        c->last_time = time;
    } else if (event->kind == NVLLM_EVENT_DONE) {
        metrics_end(&s->metrics, event->finish, &event->usage, time - g->submitted);
    } else if (event->kind == NVLLM_EVENT_ERROR) {
        s->metrics.finished[NVLLM_FINISH_ERROR]++;
    }
}

/* Events were lost: nobody knows whose, so all answers in progress end with that error. */
static void fail_all(server *s, const nvllm_event *event)
{
    for (size_t i = 0; i < LIVE_BUCKETS; i++) {
        for (choice *c = s->live[i], *next; c; c = next) {
            next = c->next;
            nvllm_cancel(s->model.engine, c->id);
            remove_choice(s, c);
            if (c->live) generation_take(c->owner, c, event);
            exchange_stir(c->owner->exchange);
        }
    }
}

void live_take_events(server *s)
{
    const nvllm_event *events;
    const double *times;
    size_t n = event_pump_take(s->pump, &events, &times);
    for (size_t i = 0; i < n; i++) {
        if (events[i].request == 0) {
            fail_all(s, &events[i]);
            continue;
        }
        choice *c = find(s, events[i].request);
        if (!c || !c->live) continue; /* its client has gone */
        count(s, c, &events[i], times[i]);
        generation *g = c->owner;
        generation_take(g, c, &events[i]);
        if (!c->live) remove_choice(s, c);
        exchange_stir(g->exchange);
    }
    if (n == 0) return;
    nvllm_stats stats = nvllm_engine_stats(s->model.engine);
    metrics_steps(&s->metrics, &stats);
}
