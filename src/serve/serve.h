/* The HTTP server: everything that `nano-vllm serve` does after its options were read. */
#ifndef NVLLM_SERVE_SERVE_H
#define NVLLM_SERVE_SERVE_H

#include "nanovllm.h"

/* Strings are borrowed until serve_run returns. Zero is not a default here, except where it says so. */
typedef struct {
    nvllm_model_options model;
    nvllm_engine_options engine;
    const char *served_name; /* NULL: from model.source */
    const char *host;
    int port; /* 0: the kernel picks one */

    const char *const *api_keys; /* [n_api_keys]; none: everybody may ask */
    size_t n_api_keys;
    const char *api_key_file; /* one key per line; NULL: none */
    const char *const *cors;  /* [n_cors] origins, or "*" */
    size_t n_cors;

    size_t max_body;   /* bytes of a request's body */
    size_t max_header; /* bytes of a request's line and headers; a connection's own memory is twice that */
    size_t max_buffer; /* bytes that wait for a slow reader before it is given up */
    size_t
        max_answer; /* bytes of an answer, or of a chunk of a stream, that are collected before it is sent */
    int max_connections; /* beyond it requests are answered with 503 */
    int idle_s;          /* a connection that says nothing for so long is closed; 0: never */
    int drain_s;         /* how long SIGTERM waits for answers in progress */
    int keepalive_s;     /* a silent stream gets a comment so often; 0: never */

    bool log_requests;         /* one line per request: method, path, status, time */
    bool log_prompts;          /* request bodies too */
    const char *notify_socket; /* systemd's $NOTIFY_SOCKET, or NULL */
} serve_options;

/* Serves until SIGTERM or SIGINT. Prints "listening on http://HOST:PORT" on stdout once clients can connect, and
 * everything else on stderr. Returns the exit code: 0 after a signal, 1 after an error, which was printed. */
int serve_run(const serve_options *options);

#endif
