/* Options: tables that commands share, and the parser that reads any command's tables with getopt_long.
 *
 * A table row says where in cli_args its value goes and which range is accepted; what a value means to the model is
 * the library's to judge. Errors are one sentence that names the option and the value. */
#define _GNU_SOURCE
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(cli_args, field)

const cli_option options_model[] = {
    {"model", 'm', OPTION_TEXT, AT(model), "MODEL",
     "a Hugging Face folder, a .gguf file, or org/name in the HF cache (default: models/demo)"},
    {NULL},
};

const cli_option options_device[] = {
    {"threads", 't', OPTION_INTEGER, AT(threads), "N", "CPU threads (default: one per physical core)", 1,
     1024},
    {"device", 0, OPTION_TEXT, AT(device), "NAME",
     "auto (the GPU where there is one), cpu, cuda, cuda:N, or reference (slow and plain)"},
    {"isa", 0, OPTION_TEXT, AT(isa), "NAME",
     "CPU instructions: scalar, avx2, avx512 (default: the best there are)"},
    {"fusion", 0, OPTION_CHOICE, AT(fusion), "on|ops|off",
     "put ops together where the device can: all of one sequence's token, neighbours, none (default on)",
     .refusal = "is neither on, ops nor off"},
    {NULL},
};

const cli_option options_context[] = {
    {"context", 'c', OPTION_INTEGER, AT(context), "N",
     "tokens of prompt and answer together (default: the model's, at most 4096)", 1, INT32_MAX},
    {NULL},
};

const cli_option options_memory[] = {
    {"kv-memory", 0, OPTION_SIZE, AT(kv_memory), "SIZE",
     "memory of the KV cache, like 4G (default: all sequences at full length, or what fits)"},
    {NULL},
};

const cli_option options_sampling[] = {
    {"max-tokens", 'n', OPTION_INTEGER, AT(max_tokens), "N",
     "most tokens to generate (default: up to the context)", 0, INT32_MAX},
    {"temperature", 0, OPTION_REAL, AT(temperature), "T",
     "0 takes the likeliest token (default: the model's own settings, else 0)", 0, 1e6},
    {"top-p", 0, OPTION_REAL, AT(top_p), "P",
     "sample from the likeliest tokens that hold P of the probability", 0, 1},
    {"top-k", 0, OPTION_INTEGER, AT(top_k), "K", "sample from the K likeliest tokens (0: all)", 0, INT32_MAX},
    {"min-p", 0, OPTION_REAL, AT(min_p), "P", "drop tokens below P times the likeliest one", 0, 1},
    {"repetition-penalty", 0, OPTION_REAL, AT(repetition_penalty), "R",
     "above 1 discourages tokens seen before", 1e-6, 1e6},
    {"presence-penalty", 0, OPTION_REAL, AT(presence_penalty), "R",
     "taken from the logit of tokens generated before", -100, 100},
    {"frequency-penalty", 0, OPTION_REAL, AT(frequency_penalty), "R", "the same, times how often", -100, 100},
    {"seed", 0, OPTION_INTEGER, AT(seed), "S", "the same seed gives the same text (default: random)", 0,
     9e15},
    {"stop", 0, OPTION_LIST, AT(stop), "STR", "end the answer before STR; may be given several times"},
    {"ignore-eos", 0, OPTION_FLAG, AT(ignore_eos), NULL, "go on after the end-of-sequence token"},
    {NULL},
};

const cli_option options_common[] = {
    {"help", 'h', OPTION_FLAG, AT(help), NULL, "print this text"},
    {NULL},
};

/* ---- Values ------------------------------------------------------------------------------------------------ */

static bool store_integer(option_integer *out, const cli_option *option, const char *text, const char **why)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end) {
        *why = "is not a whole number";
        return false;
    }
    if (errno || (double)value < option->least || (double)value > option->most) {
        *why = "is out of range";
        return false;
    }
    *out = (option_integer){true, value};
    return true;
}

static bool store_real(option_real *out, const cli_option *option, const char *text, const char **why)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value)) {
        *why = "is not a number";
        return false;
    }
    if (value < option->least || value > option->most) {
        *why = "is out of range";
        return false;
    }
    *out = (option_real){true, value};
    return true;
}

/* "512M", "4G", "1.5GiB" or plain bytes. */
static bool store_size(option_integer *out, const char *text, const char **why)
{
    static const char units[] = "KMGT";
    char *end;
    double value = strtod(text, &end);
    const char *unit = end != text && *end ? strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end) : NULL;
    for (const char *u = units; unit && u <= unit; u++) value *= 1024;
    const char *rest = unit ? end + 1 : end;
    bool known = end != text && (!*rest || strcmp(rest, "B") == 0 || strcmp(rest, "iB") == 0);
    if (!known || !(value >= 1 && value <= 1e15)) {
        *why = "is not a size like 512M or 4G";
        return false;
    }
    *out = (option_integer){true, (int64_t)value};
    return true;
}

/* The number of the word among those of the metavariable. */
static bool store_choice(int *out, const char *text, const cli_option *option, const char **why)
{
    const char *words = option->value;
    size_t length = strlen(text);
    for (int i = 0; *words; i++) {
        size_t word = strcspn(words, "|");
        *out = i;
        if (word == length && strncmp(words, text, length) == 0) return true;
        words += word + (words[word] == '|');
    }
    *why = option->refusal;
    return false;
}

static bool store_item(option_list *list, const char *text, const char **why)
{
    if (list->count == OPTION_LIST_MAX) {
        *why = "is one too many";
        return false;
    }
    list->item[list->count++] = text;
    return true;
}

bool option_store(cli_args *args, const cli_option *option, const char *text, const char **why)
{
    void *field = (char *)args + option->offset;
    switch (option->kind) {
    case OPTION_FLAG: *(bool *)field = true; return true;
    case OPTION_TEXT: *(const char **)field = text; return true;
    case OPTION_INTEGER: return store_integer(field, option, text, why);
    case OPTION_REAL: return store_real(field, option, text, why);
    case OPTION_LIST: return store_item(field, text, why);
    case OPTION_SIZE: return store_size(field, text, why);
    case OPTION_CHOICE: return store_choice(field, text, option, why);
    }
    return false;
}

/* ---- Near misses ------------------------------------------------------------------------------------------- */

/* Edits (insert, delete, replace) between two short names; names longer than 31 letters count as far away. */
static int edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    int row[32];
    if (n > 31 || m > 31) return 99;
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

/* Keeps in *best the candidate nearest to name so far, when at most two letters are wrong (three of a long name). */
static void consider(const char *name, const char *candidate, const char **best, int *distance)
{
    int d = edit_distance(name, candidate), allowed = strlen(candidate) > 8 ? 3 : 2;
    if (d >= *distance || d > allowed) return;
    *best = candidate;
    *distance = d;
}

const char *nearest_command(const char *name)
{
    const char *best = NULL;
    int distance = 99;
    for (const cli_command *c = cli_commands; c->name; c++) consider(name, c->name, &best, &distance);
    return best;
}

const char *nearest_option(const cli_command *command, const char *name)
{
    const char *best = NULL;
    int distance = 99;
    for (int t = 0; t < CLI_TABLES_MAX && command->tables[t]; t++)
        for (const cli_option *o = command->tables[t]; o->name; o++)
            consider(name, o->name, &best, &distance);
    return best;
}

/* ---- getopt_long ------------------------------------------------------------------------------------------- */

enum { OPTIONS_MAX = 64 };

typedef struct {
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 * OPTIONS_MAX + 3];
    const cli_option *rows[OPTIONS_MAX]; /* rows[i] is what longs[i] stands for */
    int count;
} parser;

static void parser_fill(parser *p, const cli_command *command)
{
    char *s = p->shorts;
    *s++ = ':'; /* tell a missing value from an unknown option */
    for (int t = 0; t < CLI_TABLES_MAX && command->tables[t]; t++) {
        for (const cli_option *o = command->tables[t]; o->name && p->count < OPTIONS_MAX; o++) {
            int has_value = o->kind == OPTION_FLAG ? no_argument : required_argument;
            p->rows[p->count] = o;
            p->longs[p->count] = (struct option){o->name, has_value, NULL, 256 + p->count};
            p->count++;
            if (!o->letter) continue;
            *s++ = o->letter;
            if (has_value == required_argument) *s++ = ':';
        }
    }
    *s = 0;
}

static const cli_option *parser_row(const parser *p, int value)
{
    if (value >= 256) return p->rows[value - 256];
    for (int i = 0; i < p->count; i++)
        if (p->rows[i]->letter == value) return p->rows[i];
    return NULL;
}

/* getopt said '?': the option is unknown, short for several, or a flag was given a value. */
static int usage_unknown(const cli_command *command, const parser *p, const char *word)
{
    const cli_option *row = optopt ? parser_row(p, optopt) : NULL;
    if (row) return report_usage(command->name, "%s: --%s takes no value", command->name, row->name);
    if (optopt) return report_usage(command->name, "%s: unknown option -%c", command->name, optopt);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    int matches = 0;
    for (int i = 0; i < p->count; i++) matches += strncmp(p->rows[i]->name, name, strlen(name)) == 0;
    if (matches > 1)
        return report_usage(command->name, "%s: --%s is short for several options", command->name, name);
    const char *near = nearest_option(command, name);
    if (near)
        return report_usage(command->name, "%s: unknown option --%s; did you mean --%s?", command->name, name,
                            near);
    return report_usage(command->name, "%s: unknown option --%s", command->name, name);
}

/* The positional argument: one of the command's choices, or nothing. */
static int parse_argument(cli_args *args, const cli_command *command, int argc, char **argv)
{
    if (optind == argc) return CLI_OK;
    const char *word = argv[optind];
    if (!command->argument || optind + 1 < argc)
        return report_usage(command->name, "%s: unexpected argument '%s'", command->name,
                            command->argument ? argv[optind + 1] : word);
    size_t len = strlen(word);
    for (const char *choice = command->argument; *choice; choice += strspn(choice, "|")) {
        size_t n = strcspn(choice, "|");
        if (n == len && memcmp(choice, word, len) == 0) {
            args->argument = word;
            return CLI_OK;
        }
        choice += n;
    }
    return report_usage(command->name, "%s: '%s' is not one of %s", command->name, word, command->argument);
}

int options_parse(cli_args *args, const cli_command *command, int argc, char **argv)
{
    parser p = {.count = 0};
    parser_fill(&p, command);
    opterr = 0;
    optind = 1;
    for (;;) {
        /* A bundle of letters (-xyz) is read in several calls: the word stays the same until it is used up. */
        const char *word = optind < argc ? argv[optind] : "";
        int value = getopt_long(argc, argv, p.shorts, p.longs, NULL);
        if (value == -1) break;
        if (value == '?') return usage_unknown(command, &p, word);
        const cli_option *row = parser_row(&p, value == ':' ? optopt : value);
        if (value == ':')
            return report_usage(command->name, "%s: --%s needs a value: %s", command->name, row->name,
                                row->value);
        const char *why = "";
        if (!option_store(args, row, optarg, &why))
            return report_usage(command->name, "%s: --%s: '%s' %s", command->name, row->name, optarg, why);
    }
    if (args->help) return CLI_OK;
    return parse_argument(args, command, argc, argv);
}
