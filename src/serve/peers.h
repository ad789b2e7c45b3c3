/* The clients' connections, and how the server learns that a client has gone: epoll says so, whatever libmicrohttpd is
 * doing with the connection. */
#ifndef NVLLM_SERVE_PEERS_H
#define NVLLM_SERVE_PEERS_H

#include "serve/exchange.h"

/* libmicrohttpd's callback; `cls` is the server. */
void peers_on_connection(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_ConnectionNotificationCode code);

/* The client of a connection has closed it, or its half. */
void peer_gone(server *s, peer *p);
/* Ends connections of clients that have gone, where no answer is under way; peers_reap_later: in a moment. */
void peers_reap(server *s);
void peers_reap_later(server *s);

#endif
