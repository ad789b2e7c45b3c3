/* Fields of a JSON object, read one after the other with one check at the end.
 *
 * The first error stays in `status` and in *err; later reads then leave their output alone. Sentences name the file,
 * the field (with `prefix`, "rope_scaling.") and the value. A null value counts as absent. */
#ifndef NVLLM_MODEL_JSON_READER_H
#define NVLLM_MODEL_JSON_READER_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const json_t *object;
    const char *file, *prefix; /* prefix "" at the top */
    nvllm_error *err;
    nvllm_status status;
} json_reader;

/* Parses text into *root (json_decref), which must be an object without duplicate keys. */
nvllm_status json_read_object(json_t **root, const char *text, size_t len, const char *name,
                              nvllm_error *err);

const json_t *json_field(const json_reader *r, const char *key); /* NULL: absent or null */

/* Sets the reader's error once: "file: prefix+key <format...>". */
void json_fail(json_reader *r, nvllm_status code, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Integers in [low, high]: json_need_int errs where the key is absent, json_int leaves *out alone. */
void json_need_int(int32_t *out, json_reader *r, const char *key, int32_t low, int32_t high);
void json_int(int32_t *out, json_reader *r, const char *key, int32_t low, int32_t high);

/* Finite numbers, integer or not, in [low, high]. */
void json_need_float(float *out, json_reader *r, const char *key, double low, double high);
void json_float(float *out, json_reader *r, const char *key, double low, double high);
void json_bool(bool *out, json_reader *r, const char *key);
const char *json_text(json_reader *r, const char *key); /* NULL: absent; borrowed from the object */

#endif
