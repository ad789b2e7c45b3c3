/* chat: reading lines. In a terminal libedit edits them (Ctrl-C clears the line) and keeps a history file; from a pipe
 * they are read as they come. */
#define _GNU_SOURCE
#include "chat.h"
#include "input.h"

#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HISTORY_LINES = 1000 };

struct line_reader {
    EditLine *edit; /* NULL: not a terminal */
    History *history;
    char *history_file;
    char *line; /* what reader_next handed out */
    size_t cap;
    bool colour;
};

static char *prompt_text(EditLine *edit)
{
    static char plain[] = ">>> ", bold[] = "\1\033[1m\1>>> \1\033[0m\1";
    line_reader *reader = NULL;
    el_get(edit, EL_CLIENTDATA, &reader);
    return reader && reader->colour ? bold : plain;
}

static void start_editing(line_reader *reader)
{
    HistEvent event;
    setlocale(LC_CTYPE, "C.UTF-8"); /* text is UTF-8 whatever the locale says */
    reader->edit = el_init("nano-vllm", stdin, stdout, stderr);
    reader->history = history_init();
    if (!reader->edit || !reader->history) return;
    reader->colour = colour_wanted();
    el_set(reader->edit, EL_CLIENTDATA, reader);
    el_set(reader->edit, EL_PROMPT_ESC, prompt_text, '\1');
    el_set(reader->edit, EL_EDITOR, "emacs");
    el_set(reader->edit, EL_SETTY, "-d", "-isig", NULL);
    el_set(reader->edit, EL_BIND, "^C", "em-kill-line", NULL);
    el_set(reader->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    history(reader->history, &event, H_SETSIZE, HISTORY_LINES);
    history(reader->history, &event, H_SETUNIQUE, 1);
    el_set(reader->edit, EL_HIST, history, reader->history);
    reader->history_file = history_path();
    if (reader->history_file) history(reader->history, &event, H_LOAD, reader->history_file);
}

line_reader *reader_open(void)
{
    line_reader *reader = calloc(1, sizeof *reader);
    if (reader && stdin_is_terminal() && stdout_is_terminal()) start_editing(reader);
    return reader;
}

void reader_close(line_reader *reader)
{
    HistEvent event;
    if (!reader) return;
    if (reader->history && reader->history_file)
        history(reader->history, &event, H_SAVE, reader->history_file);
    if (reader->edit) el_end(reader->edit);
    if (reader->history) history_end(reader->history);
    free(reader->history_file);
    free(reader->line);
    free(reader);
}

/* One line with its newline, borrowed; its length, or -1 at the end. */
static ssize_t read_line(line_reader *reader, const char **line, char **spare, size_t *spare_cap)
{
    if (!reader->edit) {
        ssize_t n = getline(spare, spare_cap, stdin);
        *line = *spare;
        return n;
    }
    int n = 0;
    *line = el_gets(reader->edit, &n);
    return *line && n > 0 ? n : -1;
}

/* Appends to reader->line, which holds `have` bytes. */
static bool append_line(line_reader *reader, size_t have, const char *text, size_t len)
{
    if (have + len + 1 > reader->cap) {
        size_t cap = 2 * (have + len + 1);
        char *more = realloc(reader->line, cap);
        if (!more) return false;
        reader->line = more;
        reader->cap = cap;
    }
    memcpy(reader->line + have, text, len);
    reader->line[have + len] = 0;
    return true;
}

char *reader_next(line_reader *reader)
{
    char *spare = NULL;
    const char *line;
    size_t spare_cap = 0, have = 0;
    bool any = false, more = true;
    while (more) {
        ssize_t n = read_line(reader, &line, &spare, &spare_cap);
        if (n < 0 || !append_line(reader, have, line, (size_t)n)) break;
        any = true;
        have += (size_t)n;
        if (have && reader->line[have - 1] == '\n') have--;
        more = have && reader->line[have - 1] == '\\';
        if (more)
            reader->line[have - 1] = '\n';
        else
            reader->line[have] = 0;
    }
    free(spare);
    HistEvent event;
    if (any && have && reader->history) history(reader->history, &event, H_ENTER, reader->line);
    return any ? reader->line : NULL;
}
