/* From a request's body to something that can be submitted or sent: JSON, chat template, tokenizer.
 *
 * That takes time with the body's length. So a long one is prepared by the worker while its connection is suspended,
 * and streams of others go on; a short one at once on the I/O thread, which costs less than waking another and lets it
 * pass those that are long. What was prepared is submitted on the I/O thread, in the order in which it was asked for.
 *
 * A client that leaves takes its preparation out of the queue. One that is being worked on is finished and dropped. */
#ifndef NVLLM_SERVE_PREPARATION_H
#define NVLLM_SERVE_PREPARATION_H

#include "serve/exchange.h"

/* The worker may use all but `exchange`, and of the server what does not change once it is ready: options, model,
 * model_name, defaults. */
struct preparation {
    task task;          /* first */
    exchange *exchange; /* the I/O thread's; NULL: nobody waits for it any more */
    const server *server;
    bool (*make)(preparation *p); /* sets `generation` or `answer`; false: `error` */
    wire body;
    generation *generation; /* not submitted yet */
    wire answer;            /* a JSON document */
    api_error error;
};

/* For routes that need the body, which is taken: makes the answer with `make`, now or soon. */
enum MHD_Result exchange_prepare(exchange *x, bool (*make)(preparation *p));

/* Goes on with the exchanges whose preparation was done by the worker. */
void preparations_take(server *s);

/* The exchange does not wait for its preparation any longer. */
void preparation_abandon(exchange *x);

/* Ends the worker; all exchanges must have been abandoned. */
void preparations_close(server *s);

#endif
