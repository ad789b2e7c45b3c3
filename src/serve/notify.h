/* sd_notify without libsystemd: one datagram to the socket that systemd names. */
#ifndef NVLLM_SERVE_NOTIFY_H
#define NVLLM_SERVE_NOTIFY_H

/* `socket_path`: $NOTIFY_SOCKET, or NULL: nothing happens. `state`: "READY=1", "STOPPING=1", ... */
void notify_systemd(const char *socket_path, const char *state);

#endif
