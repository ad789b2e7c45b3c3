/* One HTTP request and its answer; see exchange.h.
 *
 * libmicrohttpd calls exchange_on_request with the headers, then with pieces of the body, then once more when all is
 * there; a connection that was suspended then is called that way again after it was resumed. A request that is wrong
 * by its headers alone is answered when its body has been read (and dropped), so that the client gets to read the
 * answer; only a body beyond all measure ends the connection at once. */
#define _GNU_SOURCE
#include "serve/auth.h"
#include "serve/log.h"
#include "serve/preparation.h"
#include "serve/routes.h"
#include "serve/sse.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_DROPPED ((size_t)256 << 20) /* bytes of a refused body that are read to answer politely */

/* ---- Sending ----------------------------------------------------------------------------------------------- */

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    MHD_add_response_header(response, name, value);
}

static void add_cors(const exchange *x, struct MHD_Response *response)
{
    if (!x->origin) return;
    add_header(response, "Access-Control-Allow-Origin", x->origin);
    add_header(response, "Access-Control-Expose-Headers", "x-request-id");
    add_header(response, "Vary", "Origin");
}

/* Consumes the response. */
static enum MHD_Result queue(exchange *x, unsigned status, struct MHD_Response *response)
{
    if (!response) return MHD_NO;
    add_header(response, "x-request-id", x->request_id);
    add_cors(x, response);
    if (x->close_after || x->server->draining) add_header(response, "Connection", "close");
    x->status = status;
    enum MHD_Result rc = MHD_queue_response(x->connection, status, response);
    MHD_destroy_response(response);
    return rc;
}

static struct MHD_Response *plain_response(const char *type, const void *body, size_t len)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(len, (void *)body, MHD_RESPMEM_MUST_COPY);
    if (r) add_header(r, "Content-Type", type);
    return r;
}

enum MHD_Result exchange_send(exchange *x, unsigned status, const char *type, const void *body, size_t len)
{
    return queue(x, status, plain_response(type, body, len));
}

static const char out_of_memory[] = "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\","
                                    "\"param\":null,\"code\":null}}";

enum MHD_Result exchange_send_json(exchange *x, wire *body)
{
    struct MHD_Response *r =
        body->failed ? NULL : MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        wire_free(body);
        return exchange_send(x, 500, "application/json", out_of_memory, sizeof out_of_memory - 1);
    }
    *body = (wire){0};
    add_header(r, "Content-Type", "application/json");
    return queue(x, 200, r);
}

enum MHD_Result exchange_send_error(exchange *x, const api_error *err)
{
    wire w = {0};
    char seconds[16];
    api_error_write(&w, err);
    struct MHD_Response *r = plain_response("application/json", w.data, w.len);
    wire_free(&w);
    if (!r) return MHD_NO;
    snprintf(seconds, sizeof seconds, "%d", err->retry_after);
    if (err->retry_after) add_header(r, "Retry-After", seconds);
    if (err->status == 401) add_header(r, "WWW-Authenticate", "Bearer");
    return queue(x, err->status, r);
}

/* ---- Answers that take time -------------------------------------------------------------------------------- */

static void suspend(exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->connection);
}

void exchange_resume(exchange *x)
{
    if (!x->suspended) return;
    x->suspended = false;
    MHD_resume_connection(x->connection);
}

/* libmicrohttpd asks for more of the stream. */
static ssize_t read_stream(void *cls, uint64_t position, char *buf, size_t max)
{
    (void)position;
    exchange *x = cls;
    wire *out = &x->generation->out;
    size_t rest = out->len - x->sent, n = rest < max ? rest : max;
    if (x->gone || out->failed) return MHD_CONTENT_READER_END_WITH_ERROR;
    if (n == 0 && x->generation->complete) return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == 0) {
        suspend(x);
        return 0;
    }
    memcpy(buf, out->data + x->sent, n);
    x->sent += n;
    x->last_sent = seconds_now();
    /* What has left is dropped half by half, so that each byte is moved at most once on average. */
    if (x->sent >= out->len - x->sent) {
        wire_consume(out, x->sent);
        x->sent = 0;
    }
    return (ssize_t)n;
}

static enum MHD_Result start_stream(exchange *x)
{
    enum { BLOCK = 16384 };
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_stream, x, NULL);
    if (!r) return MHD_NO;
    add_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    add_header(r, "Cache-Control", "no-cache");
    add_header(r, "X-Accel-Buffering", "no");
    x->last_sent = seconds_now();
    int interval = x->server->options->keepalive_s;
    double *next = &x->server->next_keepalive;
    if (interval > 0 && *next == 0) *next = x->last_sent + interval;
    return queue(x, 200, r);
}

void exchange_submit(exchange *x, generation *g)
{
    server *s = x->server;
    bool ok = generation_submit(g, &s->model, &x->error);
    event_pump_wake(s->pump); /* also after a failure: some of it may have been submitted, and cancelled */
    if (!ok) {
        generation_free(g);
        return;
    }
    x->generation = g;
    g->exchange = x;
    g->submitted = seconds_now();
    live_add(s, g);
    if (x->peer->gone) exchange_abandon(x);
}

/* A whole answer that is complete. */
static enum MHD_Result send_document(exchange *x)
{
    generation *g = x->generation;
    return g->failed ? exchange_send_error(x, &g->error) : exchange_send_json(x, &g->out);
}

enum MHD_Result exchange_answer(exchange *x)
{
    const generation *g = x->generation;
    if (x->gone) return MHD_NO;
    if (x->error.status) return exchange_send_error(x, &x->error);
    if (x->answer.len || x->answer.failed) return exchange_send_json(x, &x->answer);
    if (g && g->request.stream) return start_stream(x);
    if (g && g->complete) return send_document(x);
    suspend(x);
    return MHD_YES;
}

void exchange_abandon(exchange *x)
{
    server *s = x->server;
    generation *g = x->generation;
    if (g && !g->complete) {
        s->metrics.finished[NVLLM_FINISH_CANCELLED] += g->n_live;
        s->metrics.clients_lost++;
        live_remove(s, g);
        generation_cancel(g, s->model.engine);
    }
    if (x->preparation) {
        s->metrics.clients_lost++;
        preparation_abandon(x);
    }
    x->gone = true;
    /* What libmicrohttpd still wants to send has no reader: it shall notice at once. */
    shutdown(x->peer->fd, SHUT_RDWR);
    exchange_resume(x);
}

void exchange_stir(exchange *x)
{
    generation *g = x->generation;
    server *s = x->server;
    bool waits = !g->request.stream;
    if (!waits && g->out.len - x->sent > s->options->max_buffer) {
        log_line("%s: the client reads too slowly, %zu bytes wait for it: cancelled", x->request_id,
                 g->out.len - x->sent);
        exchange_abandon(x);
        return;
    }
    if (g->held > g->most_held && !g->complete) {
        s->metrics.finished[NVLLM_FINISH_ERROR] += g->n_live;
        live_remove(s, g);
        generation_overflow(g, s->model.engine);
    }
    if (waits ? g->complete : g->out.len > x->sent || g->complete) exchange_resume(x);
}

double exchanges_keepalive(server *s, double now)
{
    int interval = s->options->keepalive_s;
    double next = 0;
    for (exchange *x = s->exchanges; x; x = x->next) {
        generation *g = x->generation;
        if (!g || !g->request.stream || g->complete) continue;
        if (x->suspended && now - x->last_sent >= interval) {
            sse_keepalive(&g->out);
            x->last_sent = now;
            exchange_resume(x);
        }
        double due = x->last_sent + interval;
        if (due <= now) due = now + interval; /* busy sending: it needs no comment */
        if (next == 0 || due < next) next = due;
    }
    return next;
}

/* ---- Checking the headers ---------------------------------------------------------------------------------- */

typedef struct {
    int lengths, encodings;
    const char *length;
    bool conflict;
} framing;

static enum MHD_Result look_at_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    framing *f = cls;
    (void)kind;
    if (strcasecmp(name, "Transfer-Encoding") == 0) f->encodings++;
    if (strcasecmp(name, "Content-Length") != 0) return MHD_YES;
    f->lengths++;
    if (f->length && strcmp(f->length, value) != 0) f->conflict = true;
    f->length = value;
    return MHD_YES;
}

/* Two opinions about where a request ends are how requests are smuggled past proxies (RFC 9112, 6.3). */
static void check_framing(exchange *x)
{
    framing f = {0};
    MHD_get_connection_values(x->connection, MHD_HEADER_KIND, look_at_header, &f);
    if (f.lengths <= 1 && f.encodings <= 1 && !(f.lengths && f.encodings)) return;
    x->close_after = true;
    api_error_set(&x->error, 400, NULL, "the request states its length more than once");
}

/* Those beyond all measure never come here: libmicrohttpd refuses them with a page of its own. */
static void check_header_size(exchange *x)
{
    size_t most = x->server->options->max_header;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (x->error.status || !info || info->header_size <= most) return;
    api_error_set(&x->error, 431, NULL,
                  "the request's line and headers have %zu bytes, at most %zu are accepted",
                  info->header_size, most);
}

static void check_origin(exchange *x)
{
    const serve_options *o = x->server->options;
    const char *origin = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Origin");
    for (size_t i = 0; origin && i < o->n_cors; i++)
        if (strcmp(o->cors[i], "*") == 0 || strcmp(o->cors[i], origin) == 0) x->origin = o->cors[i];
}

static void check_route(exchange *x)
{
    const server *s = x->server;
    const char *allowed;
    if (x->error.status) return;
    x->route = route_find(x->url, x->method, &allowed);
    if (!x->route && allowed)
        api_error_set(&x->error, 405, NULL, "%.16s is not for %.200s; use %s", x->method, x->url, allowed);
    else if (!x->route)
        api_error_set(&x->error, 404, NULL, "there is no %.200s", x->url);
    else if (x->route->needs_key &&
             !auth_allows(s->keys, s->n_keys,
                          MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Authorization")))
        api_error_set(&x->error, 401, "invalid_api_key", "no valid API key was given");
}

static void check_state(exchange *x)
{
    const server *s = x->server;
    if (x->error.status) return;
    if (s->n_peers > s->options->max_connections) {
        x->close_after = true;
        api_error_set(&x->error, 503, NULL, "too many connections");
    } else if (x->route->needs_model && s->draining) {
        api_error_set(&x->error, 503, NULL, "the server is shutting down");
    } else if (x->route->needs_model && !s->ready) {
        api_error_set(&x->error, 503, NULL, "the model is being loaded");
    }
}

/* The client's own x-request-id where it is harmless, else one of ours. */
static void name_request(exchange *x)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:";
    const char *given = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "x-request-id");
    size_t len = given ? strlen(given) : 0;
    uint64_t bits[2] = {(uintptr_t)x, 0};
    if (len > 0 && len < sizeof x->request_id && strspn(given, fine) == len) {
        memcpy(x->request_id, given, len + 1);
        return;
    }
    if (getrandom(bits, sizeof bits, 0) < 0) bits[1] = x->server->metrics.http_requests;
    snprintf(x->request_id, sizeof x->request_id, "req-%016llx%016llx", (unsigned long long)bits[0],
             (unsigned long long)bits[1]);
}

/* ---- Clients that have gone ---------------------------------------------------------------------------------- */

/* Is an answer being made? */
static bool in_progress(const exchange *x)
{
    return x->preparation || (x->generation && !x->generation->complete);
}

/* libmicrohttpd overlooks an end that arrives together with the last bytes: then the connection would stay open until
 * it times out. But those bytes may be a whole request of a client that closed its sending half only, so it is given
 * a moment to begin an answer. */
static void reap_later(server *s)
{
    if (s->reap_at == 0) s->reap_at = seconds_now() + 0.05;
}

void peer_gone(server *s, peer *p)
{
    exchange *x = p->current;
    if (!p->gone) {
        p->gone = true;
        p->next_gone = s->gone;
        s->gone = p;
        reap_later(s);
    }
    if (x && in_progress(x)) exchange_abandon(x);
}

void peers_reap(server *s)
{
    s->reap_at = 0;
    for (peer *p = s->gone; p; p = p->next_gone)
        if (!p->current || (!p->current->status && !p->current->generation)) shutdown(p->fd, SHUT_RDWR);
}

static void forget_gone(server *s, const peer *p)
{
    peer **at = &s->gone;
    while (*at && *at != p) at = &(*at)->next_gone;
    if (*at) *at = p->next_gone;
}

/* ---- libmicrohttpd's callbacks ------------------------------------------------------------------------------- */

static void link_exchange(server *s, exchange *x)
{
    x->next = s->exchanges;
    if (x->next) x->next->previous = x;
    s->exchanges = x;
    s->n_exchanges++;
    s->metrics.http_requests++;
}

static void unlink_exchange(server *s, exchange *x)
{
    if (x->previous)
        x->previous->next = x->next;
    else
        s->exchanges = x->next;
    if (x->next) x->next->previous = x->previous;
    s->n_exchanges--;
}

static peer *peer_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static exchange *exchange_begin(server *s, struct MHD_Connection *connection, const char *url,
                                const char *method)
{
    peer *p = peer_of(connection);
    exchange *x = p ? calloc(1, sizeof *x) : NULL;
    char *copy = strdup(url);
    if (!x || !copy) {
        free(x);
        free(copy);
        return NULL;
    }
    *x = (exchange){.server = s, .connection = connection, .peer = p, .url = copy, .method = method};
    x->started = seconds_now();
    p->current = x;
    link_exchange(s, x);
    name_request(x);
    return x;
}

static enum MHD_Result answer_preflight(exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!r) return MHD_NO;
    add_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    add_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type, x-request-id");
    add_header(r, "Access-Control-Max-Age", "86400");
    return queue(x, 204, r);
}

static size_t announced_length(exchange *x)
{
    const char *text = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Content-Length");
    return text ? (size_t)strtoull(text, NULL, 10) : 0;
}

static void body_too_long(exchange *x)
{
    if (x->error.status) return;
    api_error_set(&x->error, 413, NULL, "the body is longer than %zu bytes", x->server->options->max_body);
}

/* The headers are there. */
static enum MHD_Result begin(exchange *x)
{
    check_origin(x);
    check_framing(x);
    check_header_size(x);
    if (!x->error.status && x->origin && strcmp(x->method, "OPTIONS") == 0) return answer_preflight(x);
    check_route(x);
    check_state(x);
    if (announced_length(x) > x->server->options->max_body) body_too_long(x);
    bool hopeless = x->close_after || announced_length(x) > MOST_DROPPED;
    if (!x->error.status || !hopeless) return MHD_YES;
    x->close_after = true;
    return exchange_send_error(x, &x->error);
}

static enum MHD_Result take_body(exchange *x, const char *data, size_t *len)
{
    size_t most = x->server->options->max_body;
    x->received += *len;
    if (x->received > most) body_too_long(x);
    if (!x->error.status) wire_bytes(&x->body, data, *len);
    if (x->body.failed) api_error_set(&x->error, 500, NULL, "out of memory for the body");
    if (x->error.status) wire_free(&x->body);
    *len = 0;
    return x->received > most && x->received - most > MOST_DROPPED ? MHD_NO : MHD_YES;
}

enum MHD_Result exchange_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                    const char *method, const char *version, const char *data,
                                    size_t *data_len, void **context)
{
    exchange *x = *context;
    (void)version;
    if (!x) {
        x = *context = exchange_begin(cls, connection, url, method);
        return x ? begin(x) : MHD_NO;
    }
    if (*data_len) return take_body(x, data, data_len);
    if (x->status) return MHD_YES; /* answered by its headers */
    if (x->error.status || x->generation || x->answer.len || x->answer.failed || x->gone)
        return exchange_answer(x);
    return x->route->answer(x);
}

void exchange_on_completed(void *cls, struct MHD_Connection *connection, void **context,
                           enum MHD_RequestTerminationCode why)
{
    server *s = cls;
    exchange *x = *context;
    (void)connection;
    (void)why;
    if (!x) return;
    *context = NULL;
    x->suspended = false; /* it is over: there is nothing to resume */
    if (in_progress(x)) exchange_abandon(x);
    if (s->options->log_requests)
        log_line("%s \"%.8s %.200s\" %u %.1f ms", x->request_id, x->method, x->url, x->status,
                 (seconds_now() - x->started) * 1e3);
    x->peer->current = NULL;
    if (x->peer->gone) reap_later(s);
    unlink_exchange(s, x);
    generation_free(x->generation);
    wire_free(&x->body);
    wire_free(&x->answer);
    free(x->url);
    free(x);
}

void exchange_on_connection(void *cls, struct MHD_Connection *connection, void **context,
                            enum MHD_ConnectionNotificationCode code)
{
    server *s = cls;
    peer *p = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = p = info ? calloc(1, sizeof *p) : NULL;
        if (!p) return;
        p->fd = info->connect_fd;
        s->n_peers++;
        /* A machine that vanished sends no FIN: TCP finds out, and tells us as of any other client that has gone. */
        setsockopt(p->fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
        setsockopt(p->fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){60}, sizeof(int));
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, p->fd,
                  &(struct epoll_event){.events = EPOLLRDHUP | EPOLLET, .data.ptr = p});
        return;
    }
    if (!p) return;
    epoll_ctl(s->epoll, EPOLL_CTL_DEL, p->fd, NULL);
    if (p->gone) forget_gone(s, p);
    s->n_peers--;
    *context = NULL;
    free(p);
}
