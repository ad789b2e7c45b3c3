/* generation_config.json: the sampling defaults that a checkpoint asks for. Only what it states is `set`; null and
 * missing are not. Unknown fields are ignored. */
#ifndef NVLLM_MODEL_GENERATION_CONFIG_H
#define NVLLM_MODEL_GENERATION_CONFIG_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define GENERATION_MAX_EOS 16

typedef struct {
    bool set;
    float value;
} generation_float;

typedef struct {
    bool set;
    int32_t value;
} generation_int;

typedef struct {
    bool set, value;
} generation_bool;

typedef struct {
    generation_bool do_sample;    /* transformers samples only if this is set and true */
    generation_float temperature; /* >= 0 */
    generation_float top_p;       /* 0..1 */
    generation_float min_p;       /* 0..1 */
    generation_float repetition_penalty;
    generation_float presence_penalty, frequency_penalty;
    generation_int top_k;          /* 0: off */
    generation_int max_new_tokens; /* >= 1 */
    int32_t eos[GENERATION_MAX_EOS], n_eos;
} generation_config;

/* From generation_config.json's text; `name` is used in error sentences. */
nvllm_status generation_config_read(generation_config *out, const char *text, size_t len, const char *name,
                                    nvllm_error *err);

#endif
