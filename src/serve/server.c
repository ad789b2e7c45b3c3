/* The server's life: open, loop, drain, close; see server.h. */
#define _GNU_SOURCE
#include "serve/intake.h"
#include "serve/listener.h"
#include "serve/log.h"
#include "serve/notify.h"
#include "serve/peers.h"
#include "serve/preparation.h"
#include "serve/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* ---- Opening ----------------------------------------------------------------------------------------------- */

/* A connection takes one file; the soft limit is often 1,024. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static bool watch(server *s, int fd, void *tag)
{
    return fd >= 0 && epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd,
                                &(struct epoll_event){.events = EPOLLIN, .data.ptr = tag}) == 0;
}

/* Signals come as reads, in this thread; the mask is inherited by all threads that are started later. */
static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static bool open_descriptors(server *s)
{
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->signals = open_signals();
    if (s->epoll >= 0 && watch(s, s->bell, &s->bell) && watch(s, s->signals, &s->signals)) return true;
    log_line("cannot wait for events: %s", strerror(errno));
    return false;
}

static struct MHD_Daemon *start_daemon(server *s, int listener)
{
    const serve_options *o = s->options;
    unsigned limit = (unsigned)o->max_connections + 16; /* those too many are answered with 503 */
    return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, intake_on_request, s,
                            MHD_OPTION_LISTEN_SOCKET, (MHD_socket)listener, MHD_OPTION_CONNECTION_LIMIT,
                            limit, MHD_OPTION_CONNECTION_MEMORY_LIMIT, 2 * o->max_header,
                            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->idle_s, MHD_OPTION_NOTIFY_COMPLETED,
                            intake_on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, peers_on_connection, s,
                            MHD_OPTION_END);
}

static bool open_daemon(server *s)
{
    char url[1200];
    int listener = listener_open(s->options->host, s->options->port, url, sizeof url);
    if (listener < 0) {
        log_line("%s", url);
        return false;
    }
    s->daemon = start_daemon(s, listener);
    if (!s->daemon) {
        close(listener);
        log_line("cannot start the HTTP daemon");
        return false;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info || !watch(s, info->epoll_fd, s->daemon)) {
        log_line("cannot wait for the HTTP daemon: %s", strerror(errno));
        return false;
    }
    printf("listening on %s\n", url);
    fflush(stdout);
    return true;
}

static bool server_open(server *s)
{
    raise_file_limit();
    metrics_open(&s->metrics);
    s->started = (int64_t)time(NULL);
    s->model_name = model_name_of(s->options);
    if (!s->model_name || !keys_open(s) || !open_descriptors(s) || !open_daemon(s)) return false;
    if (loader_start(&s->loading, s->options, s->bell)) return true;
    log_line("cannot start the loader's thread");
    return false;
}

/* ---- Events of the loop ------------------------------------------------------------------------------------ */

static bool start_threads(server *s)
{
    enum { DEFAULT_QUEUE = 1024 }; /* as in nvllm_engine_options */
    int32_t queue = s->options->engine.queue;
    s->pump = event_pump_open(s->loading.engine, s->bell);
    s->worker = worker_open(s->bell, (size_t)(queue > 0 ? queue : DEFAULT_QUEUE));
    return s->pump && s->worker;
}

/* The loader has ended: the engine is ours, or the server has nothing to serve. */
static void take_model(server *s)
{
    loader *l = &s->loading;
    load_state state = loader_look(l);
    if (state == LOAD_RUNNING) return;
    pthread_join(l->thread, NULL);
    l->thread = 0;
    if (state == LOAD_FAILED || !start_threads(s)) {
        log_line("%s", state == LOAD_FAILED ? l->error.message : "cannot start the server's threads");
        s->exit_code = 1;
        s->signals_seen = 2;
        return;
    }
    s->model = (generation_model){l->model,      l->engine,  l->tokenizer,
                                  s->model_name, l->context, s->options->max_answer};
    s->defaults = nvllm_request_defaults(l->model);
    s->ready = true;
    log_line("%s is ready: context %d tokens", s->model_name, l->context);
    notify_systemd(s->options->notify_socket, "READY=1");
}

static void take_bell(server *s)
{
    uint64_t rings;
    if (read(s->bell, &rings, sizeof rings) < 0) return;
    if (!s->ready) take_model(s);
    if (!s->ready) return;
    preparations_take(s);
    live_take_events(s);
}

static void begin_drain(server *s)
{
    MHD_socket listener = MHD_quiesce_daemon(s->daemon);
    if (listener != MHD_INVALID_SOCKET) close(listener);
    s->draining = true;
    s->drain_end = seconds_now() + s->options->drain_s;
    notify_systemd(s->options->notify_socket, "STOPPING=1");
    log_line("stopping: %zu requests in progress, waiting up to %d s for them", s->n_exchanges,
             s->options->drain_s);
}

static void take_signal(server *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        s->signals_seen++;
        if (s->signals_seen == 1) begin_drain(s);
    }
}

static void dispatch(server *s, const struct epoll_event *events, int n)
{
    for (int i = 0; i < n; i++) {
        void *tag = events[i].data.ptr;
        if (tag == &s->bell)
            take_bell(s);
        else if (tag == &s->signals)
            take_signal(s);
        else if (tag != s->daemon)
            peer_gone(s, tag);
    }
}

/* ---- The loop ---------------------------------------------------------------------------------------------- */

/* Milliseconds until a time in seconds, rounded up; at most *ms where that is not negative. */
static void until(int *ms, double deadline, double now)
{
    double left = (deadline - now) * 1e3 + 1;
    int wait = left <= 0 ? 0 : left > 1e9 ? 1000000000 : (int)left;
    if (*ms < 0 || wait < *ms) *ms = wait;
}

/* How long the loop may sleep; -1: until something happens. */
static int sleep_ms(const server *s)
{
    MHD_UNSIGNED_LONG_LONG idle;
    int ms = -1;
    double now = seconds_now();
    if (MHD_get_timeout(s->daemon, &idle) == MHD_YES) ms = idle > 1000000000 ? 1000000000 : (int)idle;
    if (s->next_keepalive > 0) until(&ms, s->next_keepalive, now);
    if (s->reap_at > 0) until(&ms, s->reap_at, now);
    if (s->draining) until(&ms, s->drain_end, now);
    return ms;
}

static void run_timers(server *s)
{
    if (s->next_keepalive == 0 && s->reap_at == 0) return;
    double now = seconds_now();
    if (s->next_keepalive > 0 && now >= s->next_keepalive) s->next_keepalive = exchanges_keepalive(s, now);
    if (s->reap_at > 0 && now >= s->reap_at) peers_reap(s);
}

static bool finished(const server *s)
{
    if (s->signals_seen >= 2) return true;
    return s->draining && (s->n_exchanges == 0 || seconds_now() >= s->drain_end);
}

static void serve(server *s)
{
    enum { EVENTS = 256 };
    struct epoll_event events[EVENTS];
    while (!finished(s)) {
        int n = epoll_wait(s->epoll, events, EVENTS, sleep_ms(s));
        dispatch(s, events, n);
        run_timers(s);
        MHD_run(s->daemon);
    }
}

/* ---- Closing ----------------------------------------------------------------------------------------------- */

static void server_close(server *s)
{
    for (exchange *x = s->exchanges; x; x = x->next) exchange_abandon(x);
    if (s->daemon) {
        MHD_run(s->daemon);
        MHD_stop_daemon(s->daemon);
    }
    /* A model that is still being opened cannot be interrupted, and nothing of it needs to be saved. */
    if (s->loading.thread && loader_look(&s->loading) == LOAD_RUNNING) _exit(s->exit_code);
    if (s->loading.thread) pthread_join(s->loading.thread, NULL);
    preparations_close(s);
    event_pump_close(s->pump);
    nvllm_engine_close(s->loading.engine);
    nvllm_model_close(s->loading.model);
    keys_close(s);
    free(s->model_name);
    if (s->epoll >= 0) close(s->epoll);
    if (s->bell >= 0) close(s->bell);
    if (s->signals >= 0) close(s->signals);
}

int serve_run(const serve_options *options)
{
    server *s = calloc(1, sizeof *s);
    if (!s) {
        log_line("out of memory for the server");
        return 1;
    }
    s->options = options;
    s->epoll = s->bell = s->signals = -1;
    if (server_open(s))
        serve(s);
    else
        s->exit_code = 1;
    server_close(s);
    int code = s->exit_code;
    free(s);
    return code;
}
