/* Errors are values: a code to branch on and one sentence to read, in a struct that the caller owns.
 *
 * Every function that can fail because of input, memory or the system returns nvllm_status and takes
 * an `nvllm_error *err` last (it may be NULL). A sentence names the file, the field and both values:
 *     config.json: num_attention_heads 14 is not a multiple of num_key_value_heads 4
 * The library never exits, aborts or prints. Asserts state our own invariants only, never input. */
#ifndef NVLLM_BASE_ERROR_H
#define NVLLM_BASE_ERROR_H

#include "nanovllm.h"

/* Fills *err (when not NULL) with code and the formatted sentence; returns code, so that
 * `return error_set(err, NVLLM_ERR_FORMAT, "%s: ...", path);` is the usual form. */
nvllm_status error_set(nvllm_error *err, nvllm_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of the sentence that err already holds; returns err's code. */
nvllm_status error_prefix(nvllm_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The usual sentence for a failed allocation of `bytes` for `what`. */
nvllm_status error_memory(nvllm_error *err, size_t bytes, const char *what);

#endif
