/* nano-vllm chat: a conversation in the terminal, or one turn per line of a pipe.
 *
 * Each turn renders all messages so far with the model's chat template. A turn that fails (it no longer fits into the
 * context, say) is taken back, so that the conversation can go on; from a pipe it ends the program. */
#define _GNU_SOURCE
#include "chat.h"
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *text;
    size_t len, cap;
} transcript;

static void take_event(void *context, const nvllm_event *event)
{
    transcript *t = context;
    if (!event->text_len) return;
    fwrite(event->text, 1, event->text_len, stdout);
    fflush(stdout);
    if (t->len + event->text_len > t->cap) {
        size_t cap = 2 * (t->len + event->text_len);
        char *more = realloc(t->text, cap);
        if (!more) return;
        t->text = more;
        t->cap = cap;
    }
    memcpy(t->text + t->len, event->text, event->text_len);
    t->len += event->text_len;
}

/* Renders the conversation, streams the answer into *answer; an exit code. */
static int answer_messages(chat *c, transcript *answer)
{
    nvllm_error err = {0};
    char *prompt = NULL, *messages = json_dumps(c->messages, 0);
    int rc = nvllm_chat_render(c->model, messages, NULL, &prompt, &err) ? report_failure(&err) : CLI_OK;
    if (!rc) {
        nvllm_request request = make_request(c->model, &c->args);
        request.text = prompt;
        request.text_flags = NVLLM_PARSE_SPECIAL;
        rc = generate(&c->last, c->engine, &request, take_event, answer);
    }
    if (!rc) {
        c->answered = true;
        putchar('\n');
        rc = finish_output();
    }
    nvllm_free(prompt);
    free(messages);
    return rc;
}

static int take_turn(chat *c, const char *line)
{
    size_t len = strlen(line), valid = utf8_valid_length(line, len);
    transcript answer = {0};
    if (valid < len)
        return report_sentence("byte %zu (0x%02x) of the line is not valid UTF-8", valid,
                               (unsigned char)line[valid]);
    json_array_append_new(c->messages, json_pack("{s:s, s:s}", "role", "user", "content", line));
    int rc = answer_messages(c, &answer);
    if (rc)
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    else
        json_array_append_new(c->messages,
                              json_pack("{s:s, s:o}", "role", "assistant", "content",
                                        json_stringn(answer.text ? answer.text : "", answer.len)));
    free(answer.text);
    return rc;
}

static int talk(chat *c)
{
    line_reader *reader = reader_open();
    if (!reader) return report_sentence("out of memory");
    bool interactive = stdin_is_terminal();
    int rc = CLI_OK;
    if (interactive) fputs("/help lists the commands; Ctrl-C ends an answer, Ctrl-D leaves.\n", stderr);
    for (char *line; (rc == CLI_OK || interactive) && (line = reader_next(reader));) {
        line += strspn(line, " \t");
        if (!*line) continue;
        if (*line != '/')
            rc = take_turn(c, line);
        else if (chat_command(c, line) == CHAT_QUIT)
            break;
    }
    reader_close(reader);
    return interactive ? CLI_OK : rc;
}

int command_chat(const cli_args *args)
{
    chat c = {.args = *args, .messages = json_array(), .kept = json_array()};
    int rc = open_model(&c.model, args, device_name(args));
    if (!rc && !nvllm_model_describe(c.model).has_chat_template)
        rc = report_sentence("this model has no chat template: nano-vllm run --raw continues a text");
    if (!rc) rc = open_engine(&c.engine, c.model, args);
    if (!rc) {
        chat_set_system(&c, args->system);
        rc = talk(&c);
    }
    nvllm_engine_close(c.engine);
    nvllm_model_close(c.model);
    json_decref(c.kept);
    json_decref(c.messages);
    return rc;
}
