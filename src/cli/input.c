/* Files, stdin, terminal and environment; see input.h. */
#define _GNU_SOURCE
#include "input.h"
#include "cli.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INPUT_MAX = 1 << 30 };

const char *input_name(const char *path)
{
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

/* Doubles *data until the stream ends; false with errno set. */
static bool read_stream(FILE *file, char **data, size_t *len)
{
    size_t cap = 1 << 16, have = 0;
    char *text = malloc(cap);
    while (text) {
        have += fread(text + have, 1, cap - 1 - have, file);
        if (have < cap - 1) break;
        char *more = cap < INPUT_MAX ? realloc(text, cap *= 2) : NULL;
        if (!more) {
            free(text);
            errno = EFBIG;
        }
        text = more;
    }
    if (!text) return false;
    if (ferror(file)) {
        free(text);
        return false;
    }
    text[have] = 0;
    *data = text;
    *len = have;
    return true;
}

bool read_bytes(char **text, size_t *len, const char *path)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    bool ok = file && read_stream(file, text, len);
    if (!ok) report_sentence("%s: %s", input_name(path), strerror(errno));
    if (file && !is_stdin) fclose(file);
    return ok;
}

/* Bytes of the UTF-8 character at s (n bytes are left), 0 when there is none: Unicode 15, table 3-7. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80) return 1;
    size_t need = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (!need || n < need) return 0;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f, beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : need;
}

size_t utf8_valid_length(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len) {
        size_t n = utf8_length((const unsigned char *)text + at, len - at);
        if (!n) break;
        at += n;
    }
    return at;
}

bool read_text(char **text, size_t *len, const char *path)
{
    if (!read_bytes(text, len, path)) return false;
    size_t valid = utf8_valid_length(*text, *len);
    if (valid == *len) return true;
    report_sentence("%s: byte %zu (0x%02x) is not valid UTF-8", input_name(path), valid,
                    (unsigned char)(*text)[valid]);
    free(*text);
    return false;
}

bool stdin_is_terminal(void)
{
    return isatty(STDIN_FILENO);
}

bool stdout_is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

bool stderr_is_terminal(void)
{
    return isatty(STDERR_FILENO);
}

bool colour_wanted(void)
{
    const char *no_color = getenv("NO_COLOR");
    return stdout_is_terminal() && !(no_color && *no_color);
}

/* Makes every folder of the path up to its last slash. */
static bool make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int rc = mkdir(path, 0700);
        *slash = '/';
        if (rc != 0 && errno != EEXIST) return false;
    }
    return true;
}

/* `name` below nano-vllm in the folder of this variable, or else in `below` of HOME. */
static char *own_path(const char *variable, const char *below, const char *name)
{
    const char *folder = getenv(variable), *home = getenv("HOME");
    char *path = NULL;
    int n = -1;
    if (folder && *folder == '/')
        n = asprintf(&path, "%s/nano-vllm/%s", folder, name);
    else if (home && *home == '/')
        n = asprintf(&path, "%s/%s/nano-vllm/%s", home, below, name);
    if (n < 0) return NULL;
    if (make_folders(path)) return path;
    free(path);
    return NULL;
}

char *history_path(void)
{
    return own_path("XDG_STATE_HOME", ".local/state", "history");
}

char *cache_path(const char *name)
{
    return own_path("XDG_CACHE_HOME", ".cache", name);
}
