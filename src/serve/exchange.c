/* One HTTP request's answer; see exchange.h. */
#define _GNU_SOURCE
#include "serve/log.h"
#include "serve/preparation.h"
#include "serve/sse.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

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

enum MHD_Result exchange_send_preflight(exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!r) return MHD_NO;
    add_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    add_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type, x-request-id");
    add_header(r, "Access-Control-Max-Age", "86400");
    return queue(x, 204, r);
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

bool exchange_in_progress(const exchange *x)
{
    return x->preparation || (x->generation && !x->generation->complete);
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
