/* Files: a read-only map for weights, and whole small files read into memory. */
#ifndef NVLLM_BASE_FILE_H
#define NVLLM_BASE_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *data; /* page-aligned; NULL when size is 0 */
    size_t size;
    int fd; /* of the mapped file, open as long as the map; -1: there is none */
} file_map;

/* Maps `path` read-only and private. The file must stay unchanged while it is mapped. */
nvllm_status file_map_open(file_map *out, const char *path, nvllm_error *err);
void file_map_close(file_map *map);

/* Reads [offset, offset + bytes) of the mapped file past the map, so that no page of it becomes the process's, and a
 * file that was cut meanwhile is a sentence instead of SIGBUS. Any thread. */
nvllm_status file_map_read(void *to, const file_map *map, size_t offset, size_t bytes, const char *path,
                           nvllm_error *err);

/* Reads a whole file of at most `limit` bytes; *text is NUL-terminated, the caller frees it. */
nvllm_status file_read(char **text, size_t *len, const char *path, size_t limit, nvllm_error *err);

bool file_exists(const char *path); /* a regular file, or a link to one */
bool file_is_directory(const char *path);

/* "dir/name" in memory of the caller's (free); NULL: out of memory. */
char *file_join(const char *dir, const char *name);

#endif
