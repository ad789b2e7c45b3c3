/* nano-vllm: the table of commands, and the way from argv to one of them. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const cli_command *find_command(const char *name)
{
    for (const cli_command *c = cli_commands; c->name; c++)
        if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *near = nearest_command(name);
    if (near) return report_usage(NULL, "unknown command '%s'; did you mean %s?", name, near);
    return report_usage(NULL, "unknown command '%s'", name);
}

/* `nano-vllm help [command]` */
static int help(const char *name)
{
    if (!name) {
        help_program();
        return finish_output();
    }
    const cli_command *command = find_command(name);
    if (!command) return unknown_command(name);
    help_command(command);
    return finish_output();
}

/* Options that stand in the place of a command; -1: it is none of them. */
static int program_option(const char *word)
{
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        help_program();
    else if (strcmp(word, "--version") == 0)
        printf("nano-vllm %s\n", nvllm_version());
    else if (strcmp(word, "--man") == 0)
        help_man_page();
    else if (strcmp(word, "--completion") == 0)
        help_completion();
    else
        return -1;
    return finish_output();
}

int main(int argc, char **argv)
{
    if (argc < 2) return report_usage(NULL, "no command given");
    if (strcmp(argv[1], "help") == 0) return help(argc > 2 ? argv[2] : NULL);
    int rc = program_option(argv[1]);
    if (rc >= 0) return rc;
    if (argv[1][0] == '-') return report_usage(NULL, "unknown option %s before a command", argv[1]);

    const cli_command *command = find_command(argv[1]);
    if (!command) return unknown_command(argv[1]);
    cli_args args = {0};
    rc = options_parse(&args, command, argc - 1, argv + 1);
    if (rc != CLI_OK) return rc;
    if (args.help) return help(command->name);
    return command->run(&args);
}
