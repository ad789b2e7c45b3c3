/* The API keys in force: those given, and the lines of a file. */
#define _GNU_SOURCE
#include "serve/log.h"
#include "serve/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FILE = 1 << 16 };

static bool read_file(server *s, const char *path)
{
    FILE *f = fopen(path, "r");
    s->key_text = calloc(1, MOST_FILE + 1);
    if (!f || !s->key_text) {
        log_line("%s: %s", path, strerror(errno));
        if (f) fclose(f);
        return false;
    }
    size_t len = fread(s->key_text, 1, MOST_FILE, f);
    bool whole = !ferror(f) && len < MOST_FILE;
    fclose(f);
    if (!whole) log_line("%s: cannot be read, or is longer than %d bytes", path, MOST_FILE);
    return whole;
}

/* Each line of key_text is a key; empty lines and those that begin with # are not. */
static void add_lines(server *s)
{
    char *rest = s->key_text, *line;
    while (rest && (line = strsep(&rest, "\r\n")))
        if (*line && *line != '#') s->key_list[s->n_keys++] = line;
}

bool keys_open(server *s)
{
    const serve_options *o = s->options;
    if (o->api_key_file && !read_file(s, o->api_key_file)) return false;
    s->key_list = calloc(o->n_api_keys + MOST_FILE / 2 + 1, sizeof *s->key_list);
    if (!s->key_list) {
        log_line("out of memory for API keys");
        return false;
    }
    for (size_t i = 0; i < o->n_api_keys; i++) {
        if (!o->api_keys[i][0]) {
            log_line("an API key is empty");
            return false;
        }
        s->key_list[s->n_keys++] = o->api_keys[i];
    }
    add_lines(s);
    s->keys = s->key_list;
    if (!o->api_key_file || s->n_keys > o->n_api_keys) return true;
    log_line("%s: holds no API key", o->api_key_file);
    return false;
}

void keys_close(server *s)
{
    free(s->key_text);
    free((void *)s->key_list);
}
