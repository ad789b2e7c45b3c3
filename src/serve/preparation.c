/* What is made of a body, and by which thread; see preparation.h. */
#include "serve/preparation.h"

#include <stdlib.h>

/* Bytes of a body that is prepared at once: half a millisecond, two at worst. (Prose is tokenized at 10 to 20 MB/s, a
 * run of one letter or of spaces at 2 to 8; a chat template takes less.) */
enum { SHORT_BODY = 4096 };

static void preparation_free(preparation *p)
{
    wire_free(&p->body);
    wire_free(&p->answer);
    generation_free(p->generation);
    free(p);
}

static void run(task *t)
{
    preparation *p = (preparation *)t;
    p->make(p);
    wire_free(&p->body);
}

/* Gives the exchange what was made for it; what nobody waits for is dropped. */
static void hand_over(preparation *p)
{
    exchange *x = p->exchange;
    if (x) {
        x->preparation = NULL;
        x->error = p->error;
        x->answer = p->answer;
        p->answer = (wire){0};
        if (p->generation) exchange_submit(x, p->generation);
        p->generation = NULL;
    }
    preparation_free(p);
}

enum MHD_Result exchange_prepare(exchange *x, bool (*make)(preparation *p))
{
    server *s = x->server;
    api_error err;
    preparation *p = calloc(1, sizeof *p);
    if (!p) {
        api_error_set(&err, 500, NULL, "out of memory for the request");
        return exchange_send_error(x, &err);
    }
    *p = (preparation){.task.run = run, .exchange = x, .server = s, .make = make, .body = x->body};
    x->body = (wire){0};
    if (p->body.len <= SHORT_BODY) {
        run(&p->task);
        hand_over(p);
        return exchange_answer(x);
    }
    if (worker_add(s->worker, &p->task)) {
        s->metrics.preparing++;
        x->preparation = p;
        if (x->peer->gone) exchange_abandon(x);
        return exchange_answer(x);
    }
    preparation_free(p);
    api_error_set(&err, 429, "queue_full", "too many long prompts are waiting to be tokenized already");
    return exchange_send_error(x, &err);
}

void preparations_take(server *s)
{
    for (task *t = worker_take(s->worker), *next; t; t = next) {
        preparation *p = (preparation *)t;
        exchange *x = p->exchange;
        next = t->next;
        hand_over(p);
        if (!x) continue;
        s->metrics.preparing--;
        exchange_resume(x);
    }
}

void preparation_abandon(exchange *x)
{
    preparation *p = x->preparation;
    x->server->metrics.preparing--;
    x->preparation = NULL;
    p->exchange = NULL;
    if (worker_remove(x->server->worker, &p->task)) preparation_free(p);
}

void preparations_close(server *s)
{
    for (task *t = worker_close(s->worker), *next; t; t = next) {
        next = t->next;
        preparation_free((preparation *)t);
    }
    s->worker = NULL;
}
