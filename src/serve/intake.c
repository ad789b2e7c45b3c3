/* Requests as they come in; see intake.h.
 *
 * libmicrohttpd calls intake_on_request with the headers, then with pieces of the body, then once more when all is
 * there; a connection that was suspended then is called that way again after it was resumed. A request that is wrong
 * by its headers alone is answered when its body has been read (and dropped), so that the client gets to read the
 * answer; only a body beyond all measure ends the connection at once. */
#define _GNU_SOURCE
#include "serve/intake.h"

#include "serve/auth.h"
#include "serve/log.h"
#include "serve/peers.h"
#include "serve/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MOST_DROPPED ((size_t)256 << 20) /* bytes of a refused body that are read to answer politely */

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

/* ---- libmicrohttpd's callbacks ------------------------------------------------------------------------------- */

static peer *peer_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

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
    if (!x->error.status && x->origin && strcmp(x->method, "OPTIONS") == 0) return exchange_send_preflight(x);
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

enum MHD_Result intake_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *data_len,
                                  void **context)
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

void intake_on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode why)
{
    server *s = cls;
    exchange *x = *context;
    (void)connection;
    (void)why;
    if (!x) return;
    *context = NULL;
    x->suspended = false; /* it is over: there is nothing to resume */
    if (exchange_in_progress(x)) exchange_abandon(x);
    if (s->options->log_requests)
        log_line("%s \"%.8s %.200s\" %u %.1f ms", x->request_id, x->method, x->url, x->status,
                 (seconds_now() - x->started) * 1e3);
    x->peer->current = NULL;
    if (x->peer->gone) peers_reap_later(s);
    unlink_exchange(s, x);
    generation_free(x->generation);
    wire_free(&x->body);
    wire_free(&x->answer);
    free(x->url);
    free(x);
}
