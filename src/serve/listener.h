/* The listening socket. */
#ifndef NVLLM_SERVE_LISTENER_H
#define NVLLM_SERVE_LISTENER_H

/* A socket that listens on host:port; *url ("http://127.0.0.1:8000", at least 128 bytes) says where. -1 after a
 * failure, with a sentence in url. */
int listener_open(const char *host, int port, char *url, unsigned long url_size);

#endif
