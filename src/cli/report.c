/* What a failing command says: one sentence on stderr, and the exit code that goes with it. */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int report_sentence(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fputs("nano-vllm: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_FAILED;
}

int report_failure(const nvllm_error *err)
{
    report_sentence("%s", err->message[0] ? err->message : nvllm_status_name(err->code));
    return err->code == NVLLM_ERR_USAGE ? CLI_USAGE : CLI_FAILED;
}

int report_usage(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fputs("nano-vllm: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    if (command)
        fprintf(stderr, "\nTry: nano-vllm %s --help\n", command);
    else
        fputs("\nTry: nano-vllm --help\n", stderr);
    return CLI_USAGE;
}

int finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return CLI_OK;
    return report_sentence("standard output: %s", errno ? strerror(errno) : "write error");
}
