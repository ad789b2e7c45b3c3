/* Help texts, man page and bash completion, all made from the table of commands. */
#include "cli.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { LEFT = 28, WIDTH = 100 };

/* Words of `text` from column `indent` on, broken before WIDTH; the caller is already at that column. */
static void print_wrapped(const char *text, int indent)
{
    int column = indent;
    for (const char *word = text; *word;) {
        int n = (int)strcspn(word, " ");
        if (column > indent && column + 1 + n > WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", n, word);
        column += n;
        word += n + (word[n] == ' ');
    }
    putchar('\n');
}

static void print_option(const cli_option *option)
{
    char left[64], letter[8] = "    ";
    if (option->letter) snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(left, sizeof left, "  %s--%s%s%s", letter, option->name, option->value ? " " : "",
             option->value ? option->value : "");
    printf("%-*s", LEFT, left);
    if (strlen(left) >= LEFT) printf("\n%*s", LEFT, "");
    print_wrapped(option->help, LEFT);
}

void help_program(void)
{
    puts("nano-vllm runs language models on your own machine.\n\nUsage: nano-vllm COMMAND "
         "[options]\n\nCommands:");
    for (const cli_command *c = cli_commands; c->name; c++) printf("  %-14s%s\n", c->name, c->summary);
    puts("\nOptions:\n  --help        print this text; COMMAND --help tells more\n"
         "  --version     print the version\n"
         "  --man         print the man page\n"
         "  --completion  print the completion script for bash\n\n"
         "Example: nano-vllm run -p \"Tell me a story about a little dog.\"");
}

void help_command(const cli_command *command)
{
    printf("nano-vllm %s: %s\n\nUsage: nano-vllm %s %s\n\n", command->name, command->summary, command->name,
           command->usage);
    print_wrapped(command->description, 0);
    puts("\nOptions:");
    for (int t = 0; t < CLI_TABLES_MAX && command->tables[t]; t++)
        for (const cli_option *o = command->tables[t]; o->name; o++) print_option(o);
}

/* ---- Man page ---------------------------------------------------------------------------------------------- */

/* roff: a dash is \-, a backslash \e; a line must not begin with a dot or a quote. */
static void print_roff(const char *text)
{
    if (*text == '.' || *text == '\'') fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
    }
}

static void man_option(const cli_option *option)
{
    fputs(".TP\n.B ", stdout);
    if (option->letter) printf("\\-%c, ", option->letter);
    fputs("\\-\\-", stdout);
    print_roff(option->name);
    if (option->value) printf(" \\fI%s\\fP", option->value);
    putchar('\n');
    print_roff(option->help);
    putchar('\n');
}

void help_man_page(void)
{
    printf(".TH NANO\\-VLLM 1 \"\" \"nano-vllm %s\"\n.SH NAME\nnano\\-vllm \\- language models on your own "
           "machine\n",
           nvllm_version());
    puts(".SH SYNOPSIS\n.B nano\\-vllm\n.I command\n[options]\n.SH COMMANDS");
    for (const cli_command *c = cli_commands; c->name; c++) {
        printf(".SS nano\\-vllm %s ", c->name);
        print_roff(c->usage);
        putchar('\n');
        print_roff(c->description);
        putchar('\n');
        for (int t = 0; t < CLI_TABLES_MAX && c->tables[t]; t++)
            for (const cli_option *o = c->tables[t]; o->name; o++) man_option(o);
    }
    puts(".SH EXIT STATUS\n0 done, 1 failed (one sentence on stderr), 2 wrong usage, 130 ended by a second "
         "Ctrl\\-C.");
    puts(".SH ENVIRONMENT\nHF_HUB_CACHE and HF_HOME say where org/name models lie; XDG_STATE_HOME where the "
         "history of\n"
         "chat is kept; XDG_CACHE_HOME where bench keeps what it measured of a GPU; NO_COLOR switches "
         "colours off.");
}

/* ---- Completion -------------------------------------------------------------------------------------------- */

void help_completion(void)
{
    puts("_nano_vllm() {\n"
         "    local current=${COMP_WORDS[COMP_CWORD]} words=\n"
         "    if ((COMP_CWORD == 1)); then");
    fputs("        words=\"help --help --version", stdout);
    for (const cli_command *c = cli_commands; c->name; c++) printf(" %s", c->name);
    puts("\"\n    else\n        case ${COMP_WORDS[1]} in");
    for (const cli_command *c = cli_commands; c->name; c++) {
        printf("        %s) words=\"", c->name);
        for (const char *p = c->argument ? c->argument : ""; *p; p++) putchar(*p == '|' ? ' ' : *p);
        for (int t = 0; t < CLI_TABLES_MAX && c->tables[t]; t++)
            for (const cli_option *o = c->tables[t]; o->name; o++) printf(" --%s", o->name);
        puts("\" ;;");
    }
    puts("        esac\n    fi\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "}\n"
         "complete -o default -F _nano_vllm nano-vllm");
}
