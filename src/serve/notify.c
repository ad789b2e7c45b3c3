/* sd_notify(3); see notify.h. */
#define _GNU_SOURCE
#include "serve/notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify_systemd(const char *socket_path, const char *state)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = socket_path ? strlen(socket_path) : 0;
    if (len == 0 || len >= sizeof to.sun_path) return;
    memcpy(to.sun_path, socket_path, len);
    if (to.sun_path[0] == '@') to.sun_path[0] = 0; /* a name in the abstract name space */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    /* A supervisor that does not listen is no reason to stop. */
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, size);
    close(fd);
}
