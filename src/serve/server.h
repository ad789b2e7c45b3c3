/* The server's state, for the files of this room.
 *
 * Threads: the I/O thread (the one that called serve_run) owns everything here; the loader opens the model and then
 * ends; the event pump waits for the engine; the worker prepares long prompts. They ring the I/O thread at one eventfd
 * (the bell).
 * libmicrohttpd runs inside our epoll loop. While an answer is being made its connection is suspended, and then
 * libmicrohttpd does not look at it; so every connection is also in our own epoll, which tells at once when the
 * client has gone (EPOLLRDHUP). */
#ifndef NVLLM_SERVE_SERVER_H
#define NVLLM_SERVE_SERVER_H

#include "serve/event_pump.h"
#include "serve/generation.h"
#include "serve/metrics.h"
#include "serve/serve.h"
#include "serve/worker.h"

#include <microhttpd.h>
#include <pthread.h>

enum { LIVE_BUCKETS = 4096 };

typedef enum { LOAD_RUNNING, LOAD_DONE, LOAD_FAILED } load_state;

/* What the loader thread makes; the I/O thread reads it once `state` says that it has ended. */
typedef struct {
    pthread_t thread;
    pthread_mutex_t lock;
    load_state state;
    nvllm_model *model;
    nvllm_engine *engine;
    const nvllm_tokenizer *tokenizer;
    int32_t context;
    nvllm_error error;
    const serve_options *options;
    int bell;
} loader;

typedef struct exchange exchange;

/* An open connection. */
typedef struct peer {
    int fd;
    bool gone; /* the client will send nothing more */
    struct peer *next_gone;
    exchange *current;
} peer;

typedef struct {
    const serve_options *options;
    struct MHD_Daemon *daemon;
    int epoll, bell, signals;
    loader loading;
    bool ready; /* the model is loaded */
    generation_model model;
    nvllm_request defaults; /* the model's sampling settings */
    char *model_name;
    const char *const *keys; /* [n_keys] */
    size_t n_keys;
    char *key_text; /* what api_key_file held */
    const char **key_list;
    int64_t started; /* Unix time */
    event_pump *pump;
    worker *worker;
    choice *live[LIVE_BUCKETS]; /* by engine id */
    metrics metrics;
    exchange *exchanges; /* all that are not finished */
    size_t n_exchanges;
    int n_peers;
    peer *gone;            /* clients that have gone and whose connections are still open */
    double reap_at;        /* seconds; when to look at them, 0: not yet */
    double next_keepalive; /* seconds; when the first silent stream may want one, 0: there is no stream */
    int signals_seen;
    bool draining;
    double drain_end;
    int exit_code;
} server;

/* loader.c */
bool loader_start(loader *l, const serve_options *options, int bell);
load_state loader_look(loader *l);
char *model_name_of(const serve_options *options); /* free */

/* keys.c: s->keys from the options and the file; false after printing why. */
bool keys_open(server *s);
void keys_close(server *s);

/* live.c: the choices that the engine works on. */
void live_add(server *s, generation *g);
void live_remove(server *s, generation *g);
void live_take_events(server *s); /* hands the pump's events to their choices */

#endif
