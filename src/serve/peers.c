/* The clients' connections; see peers.h. */
#define _GNU_SOURCE
#include "serve/peers.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* libmicrohttpd overlooks an end that arrives together with the last bytes: then the connection would stay open until
 * it times out. But those bytes may be a whole request of a client that closed its sending half only, so it is given
 * a moment to begin an answer. */
void peers_reap_later(server *s)
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
        peers_reap_later(s);
    }
    if (x && exchange_in_progress(x)) exchange_abandon(x);
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

void peers_on_connection(void *cls, struct MHD_Connection *connection, void **context,
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
