#ifndef NANOVLLM_H
#define NANOVLLM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef enum {
    NVLLM_OK = 0,
    NVLLM_ERR_USAGE,       /* an argument or option is wrong; nothing was done */
    NVLLM_ERR_IO,          /* a file is missing or could not be read */
    NVLLM_ERR_FORMAT,      /* a file's content is wrong */
    NVLLM_ERR_UNSUPPORTED, /* well-formed, but not something this build can run */
    NVLLM_ERR_MEMORY,      /* out of memory, or it would not fit */
    NVLLM_ERR_LIMIT,       /* longer than the context, or past a stated limit */
    NVLLM_ERR_TEMPLATE,    /* the chat template raised an error */
    NVLLM_ERR_CANCELLED,
    NVLLM_ERR_BUSY         /* the queue is full */
} nvllm_status;
typedef struct {
    nvllm_status code;
    char message[512];
} nvllm_error;
#endif
