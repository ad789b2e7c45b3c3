/* One HTTP request and its answer, between libmicrohttpd's callbacks (intake.h) and the routes. */
#ifndef NVLLM_SERVE_EXCHANGE_H
#define NVLLM_SERVE_EXCHANGE_H

#include "serve/server.h"

typedef struct route route;
typedef struct preparation preparation;

struct exchange {
    server *server;
    struct MHD_Connection *connection;
    peer *peer;
    exchange *previous, *next;
    const route *route;
    char *url;
    const char *method;
    char request_id[80];
    const char *origin; /* the CORS origin to allow, or NULL */
    wire body;
    size_t received;  /* bytes of the body, those beyond the limit too */
    api_error error;  /* status 0: none so far */
    bool close_after; /* the rest of the connection cannot be trusted, or is not wanted */
    double started;   /* seconds */
    unsigned status;  /* sent; 0: none yet */

    preparation *preparation; /* the worker's; NULL: it has nothing of this exchange */
    wire answer;              /* a JSON document to send */
    generation *generation;
    bool suspended;   /* libmicrohttpd does not look at the connection */
    bool gone;        /* nobody waits for the answer any more */
    size_t sent;      /* bytes of generation->out that have left */
    double last_sent; /* seconds */
};

/* For routes: queue an answer. */
enum MHD_Result exchange_send(exchange *x, unsigned status, const char *type, const void *body, size_t len);
enum MHD_Result exchange_send_json(exchange *x, wire *body); /* takes the body's memory */
enum MHD_Result exchange_send_error(exchange *x, const api_error *err);
enum MHD_Result exchange_send_preflight(exchange *x); /* what pages of an allowed origin may ask for */

/* Starts the generation, which is taken; its answer follows, or x->error. */
void exchange_submit(exchange *x, generation *g);
/* Sends what there is: x->error, x->answer or the generation's; suspends the connection when there is nothing yet. */
enum MHD_Result exchange_answer(exchange *x);
/* Wakes the connection, if it was suspended. */
void exchange_resume(exchange *x);

/* The generation has news: wake the connection where it waits for them. */
void exchange_stir(exchange *x);
/* Is an answer being made? */
bool exchange_in_progress(const exchange *x);
/* The client does not wait any longer: ends the preparation or the generation. */
void exchange_abandon(exchange *x);
/* Comments for silent streams; returns when to come again (seconds), 0: never. */
double exchanges_keepalive(server *s, double now);

#endif
