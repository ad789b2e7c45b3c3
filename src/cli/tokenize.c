/* nano-vllm tokenize, detokenize: text to ids and back, through stdin and stdout. */
#include "cli.h"
#include "input.h"
#include "session.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int command_tokenize(const cli_args *args)
{
    char *text;
    size_t len, n_ids = 0;
    int32_t *ids = NULL;
    nvllm_error err = {0};
    nvllm_tokenizer *tokenizer = NULL;
    unsigned flags = (args->no_bos ? 0 : NVLLM_ADD_SPECIAL) | (args->special ? NVLLM_PARSE_SPECIAL : 0);
    if (!read_text(&text, &len, "-")) return CLI_FAILED;
    int rc = open_tokenizer(&tokenizer, args);
    if (!rc && nvllm_tokenize(tokenizer, text, len, flags, &ids, &n_ids, &err)) rc = report_failure(&err);
    if (!rc) {
        for (size_t i = 0; i < n_ids; i++) printf(i ? " %d" : "%d", (int)ids[i]);
        putchar('\n');
        rc = finish_output();
    }
    nvllm_free(ids);
    nvllm_tokenizer_close(tokenizer);
    free(text);
    return rc;
}

/* Whole numbers separated by spaces, newlines or commas, as tokenize and as Python print them ([1, 2]). */
static int parse_ids(int32_t **ids, size_t *n_ids, const char *text, size_t len)
{
    static const char separators[] = " \t\r\n,[]";
    int32_t *list =
        malloc((len / 2 + 1) * sizeof *list); /* an id and its separator take two bytes at least */
    size_t n = 0;
    if (!list) return report_sentence("out of memory for %zu bytes of ids", len);
    for (const char *at = text + strspn(text, separators); *at; at += strspn(at, separators)) {
        char *end;
        errno = 0;
        long value = strtol(at, &end, 10);
        size_t word = strcspn(at, separators);
        if (errno || end != at + word || value < 0 || value > INT32_MAX) {
            free(list);
            return report_sentence("standard input: '%.*s' is not a token id", word > 40 ? 40 : (int)word,
                                   at);
        }
        list[n++] = (int32_t)value;
        at = end;
    }
    *ids = list;
    *n_ids = n;
    return CLI_OK;
}

int command_detokenize(const cli_args *args)
{
    char *input, *text = NULL;
    size_t len, n_ids = 0;
    int32_t *ids = NULL;
    nvllm_error err = {0};
    nvllm_tokenizer *tokenizer = NULL;
    if (!read_text(&input, &len, "-")) return CLI_FAILED;
    int rc = parse_ids(&ids, &n_ids, input, len);
    if (!rc) rc = open_tokenizer(&tokenizer, args);
    unsigned flags = args->special ? 0 : NVLLM_SKIP_SPECIAL;
    if (!rc && nvllm_detokenize(tokenizer, ids, n_ids, flags, &text, &len, &err)) rc = report_failure(&err);
    if (!rc) {
        fwrite(text, 1, len, stdout);
        rc = finish_output();
    }
    nvllm_free(text);
    nvllm_tokenizer_close(tokenizer);
    free(ids);
    free(input);
    return rc;
}
