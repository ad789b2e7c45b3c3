/* Files; see file.h. */
#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static nvllm_status open_regular(int *fd, size_t *size, const char *path, nvllm_error *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return error_set(err, NVLLM_ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        return error_set(err, NVLLM_ERR_IO, "%s: not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return NVLLM_OK;
}

nvllm_status file_map_open(file_map *out, const char *path, nvllm_error *err)
{
    int fd;
    size_t size;
    *out = (file_map){.fd = -1};
    nvllm_status st = open_regular(&fd, &size, path, err);
    if (st) return st;
    void *data = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (data == MAP_FAILED)
        st = error_set(err, NVLLM_ERR_MEMORY, "%s: cannot map %zu bytes: %s", path, size, strerror(errno));
    if (st || !data) {
        close(fd);
        return st;
    }
    *out = (file_map){data, size, fd};
    return NVLLM_OK;
}

void file_map_close(file_map *map)
{
    if (!map) return;
    if (map->data) {
        munmap((void *)(uintptr_t)map->data, map->size);
        close(map->fd);
    }
    *map = (file_map){.fd = -1};
}

nvllm_status file_map_read(void *to, const file_map *map, size_t offset, size_t bytes, const char *path,
                           nvllm_error *err)
{
    for (size_t have = 0; have < bytes;) {
        ssize_t n = pread(map->fd, (char *)to + have, bytes - have, (off_t)(offset + have));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return error_set(err, NVLLM_ERR_IO, "%s: read %zu of %zu bytes at %zu: %s", path, have, bytes,
                             offset, n < 0 ? strerror(errno) : "the file became shorter");
        have += (size_t)n;
    }
    return NVLLM_OK;
}

nvllm_status file_read(char **text, size_t *len, const char *path, size_t limit, nvllm_error *err)
{
    int fd;
    size_t size, have = 0;
    *text = NULL;
    *len = 0;
    nvllm_status st = open_regular(&fd, &size, path, err);
    if (st) return st;
    char *data = NULL;
    if (size > limit) {
        st = error_set(err, NVLLM_ERR_FORMAT, "%s: %zu bytes, more than the %zu allowed", path, size, limit);
        goto done;
    }
    data = malloc(size + 1);
    if (!data) {
        st = error_memory(err, size + 1, path);
        goto done;
    }
    while (have < size) {
        ssize_t n = read(fd, data + have, size - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            st = error_set(err, NVLLM_ERR_IO, "%s: read %zu of %zu bytes: %s", path, have, size,
                           n < 0 ? strerror(errno) : "the file became shorter");
            goto done;
        }
        have += (size_t)n;
    }
    data[have] = '\0';
    *text = data;
    *len = have;
    data = NULL;
done:
    free(data);
    close(fd);
    return st;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool file_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *file_join(const char *dir, const char *name)
{
    size_t d = strlen(dir), n = strlen(name);
    while (d > 1 && dir[d - 1] == '/') d--;
    char *path = malloc(d + n + 2);
    if (!path) return NULL;
    memcpy(path, dir, d);
    path[d] = '/';
    memcpy(path + d + 1, name, n + 1);
    return path;
}
