/* chat: the /commands, one function each, from one table. */
#define _GNU_SOURCE
#include "chat.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name, *argument, *help;
    chat_next (*run)(chat *c, char *argument);
} slash_command;

static const slash_command slash_commands[];

/* ---- What they do ------------------------------------------------------------------------------------------ */

static chat_next do_help(chat *c, char *argument)
{
    (void)c, (void)argument;
    for (const slash_command *s = slash_commands; s->name; s++) {
        char left[40];
        snprintf(left, sizeof left, "/%s %s", s->name, s->argument);
        fprintf(stderr, "%-20s%s\n", left, s->help);
    }
    fputs("A line that ends in \\ goes on in the next one. Ctrl-C ends an answer, Ctrl-D leaves.\n", stderr);
    return CHAT_GO_ON;
}

static bool first_is_system(const chat *c)
{
    const char *role = json_string_value(json_object_get(json_array_get(c->messages, 0), "role"));
    return role && strcmp(role, "system") == 0;
}

void chat_set_system(chat *c, const char *text)
{
    if (first_is_system(c)) json_array_remove(c->messages, 0);
    if (text && *text)
        json_array_insert_new(c->messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", text));
}

static chat_next do_clear(chat *c, char *argument)
{
    (void)argument;
    json_t *system = first_is_system(c) ? json_incref(json_array_get(c->messages, 0)) : NULL;
    json_array_clear(c->messages);
    if (system) json_array_append_new(c->messages, system);
    fputs("a new conversation\n", stderr);
    return CHAT_GO_ON;
}

static chat_next do_system(chat *c, char *argument)
{
    chat_set_system(c, argument);
    return CHAT_GO_ON;
}

static void print_settings(void)
{
    fputs("/set KEY VALUE, where KEY is one of", stderr);
    for (const cli_option *o = options_sampling; o->name; o++)
        if (o->kind != OPTION_FLAG) fprintf(stderr, " %s", o->name);
    fputc('\n', stderr);
}

/* The sampling option called `name`, '_' and '-' being the same. */
static const cli_option *find_setting(char *name)
{
    for (char *p = name; *p; p++)
        if (*p == '_') *p = '-';
    for (const cli_option *o = options_sampling; o->name; o++)
        if (o->kind != OPTION_FLAG && strcmp(o->name, name) == 0) return o;
    return NULL;
}

static chat_next do_set(chat *c, char *argument)
{
    const char *why = "";
    char *value = argument + strcspn(argument, " ");
    if (*value) *value++ = 0;
    value += strspn(value, " ");
    const cli_option *option = find_setting(argument);
    if (!option || !*value) {
        print_settings();
        return CHAT_GO_ON;
    }
    json_t *kept = json_string(value);
    json_array_append_new(c->kept, kept);
    if (!kept || !option_store(&c->args, option, json_string_value(kept), &why))
        report_sentence("%s: '%s' %s", option->name, value, why);
    return CHAT_GO_ON;
}

static chat_next do_stats(chat *c, char *argument)
{
    (void)argument;
    nvllm_stats stats = nvllm_engine_stats(c->engine);
    if (c->answered) print_speed(&c->last);
    fprintf(stderr, "in all: prompts %llu tokens, generated %llu tokens; KV cache %.1f MB for %lld tokens\n",
            (unsigned long long)stats.prompt_tokens, (unsigned long long)stats.generated_tokens,
            (double)stats.kv_bytes / 1e6, (long long)stats.kv_tokens);
    return CHAT_GO_ON;
}

static chat_next do_save(chat *c, char *argument)
{
    if (!*argument)
        report_sentence("/save needs the name of a file");
    else if (json_dump_file(c->messages, argument, JSON_INDENT(2)) != 0)
        report_sentence("%s: cannot be written", argument);
    else
        fprintf(stderr, "%zu messages saved in %s\n", json_array_size(c->messages), argument);
    return CHAT_GO_ON;
}

static chat_next do_quit(chat *c, char *argument)
{
    (void)c, (void)argument;
    return CHAT_QUIT;
}

static const slash_command slash_commands[] = {
    {"help", "", "this list", do_help},
    {"clear", "", "forget the conversation", do_clear},
    {"system", "TEXT", "set the system message; without TEXT: none", do_system},
    {"set", "KEY VALUE", "sampling: temperature, top-p, max-tokens, ...", do_set},
    {"stats", "", "speed of the last answer, size of the cache", do_stats},
    {"save", "FILE", "the conversation as JSON messages", do_save},
    {"quit", "", "leave", do_quit},
    {NULL, NULL, NULL, NULL},
};

chat_next chat_command(chat *c, char *line)
{
    char *name = line + 1;
    char *argument = name + strcspn(name, " ");
    if (*argument) *argument++ = 0;
    argument += strspn(argument, " ");
    for (const slash_command *s = slash_commands; s->name; s++)
        if (strcmp(s->name, name) == 0) return s->run(c, argument);
    report_sentence("unknown command /%s; /help lists them", name);
    return CHAT_GO_ON;
}
