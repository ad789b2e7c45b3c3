/* One .gguf file, version 2 or 3, little-endian: metadata keys with typed values, then tensor infos, then the bytes.
 *
 * Everything is checked at open: counts against the bytes that could hold them (before anything is allocated), every
 * read against the file's end, alignment, shapes, offsets, overlap, duplicate keys and names. Tensor types other than
 * F32, F16, BF16 and Q8_0 are refused by name. GGUF stores shapes innermost first; the tensors here are outermost
 * first. Strings are borrowed from the file's bytes, are not NUL-terminated, and may hold anything.
 * Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef NVLLM_FORMATS_GGUF_H
#define NVLLM_FORMATS_GGUF_H

#include "base/error.h"
#include "base/file.h"
#include "formats/tensor.h"

#include <stdbool.h>

typedef enum { /* the file's own numbers */
               GGUF_U8,
               GGUF_I8,
               GGUF_U16,
               GGUF_I16,
               GGUF_U32,
               GGUF_I32,
               GGUF_F32,
               GGUF_BOOL,
               GGUF_STRING,
               GGUF_ARRAY,
               GGUF_U64,
               GGUF_I64,
               GGUF_F64,
               GGUF_TYPE_COUNT
} gguf_type;

typedef struct {
    const char *data;
    size_t len;
} gguf_string;

typedef struct gguf_array gguf_array;
struct gguf_array {
    gguf_type type; /* of the elements */
    size_t count;
    const uint8_t *raw;         /* numbers and bools: as stored, unaligned, little-endian; NULL otherwise */
    const gguf_string *strings; /* GGUF_STRING */
    const gguf_array *arrays;   /* GGUF_ARRAY */
};

typedef struct {
    const char *key;
    gguf_type type;
    union {
        uint64_t u; /* unsigned types */
        int64_t i;  /* signed types */
        double f;
        bool b;
        gguf_string s;
        gguf_array a;
    } as;
} gguf_entry;

typedef struct gguf gguf;

/* Maps and checks `path`. On failure *out is NULL. */
nvllm_status gguf_open(gguf **out, const char *path, nvllm_error *err);

/* The same from bytes that the caller keeps alive and unchanged until close; `name` is used in sentences. */
nvllm_status gguf_parse(gguf **out, const uint8_t *data, size_t size, const char *name, nvllm_error *err);
void gguf_close(gguf *file);

const char *gguf_path(const gguf *file);
file_map gguf_map(const gguf *file); /* the whole file's bytes */
size_t gguf_key_count(const gguf *file);
const gguf_entry *gguf_key_at(const gguf *file, size_t index);  /* sorted by key */
const gguf_entry *gguf_find(const gguf *file, const char *key); /* NULL: absent */
const char *gguf_type_name(gguf_type type);                     /* "u32", "string", ... */
size_t gguf_tensor_count(const gguf *file);
const tensor *gguf_tensor_at(const gguf *file, size_t index);       /* sorted by name */
const tensor *gguf_tensor_find(const gguf *file, const char *name); /* NULL: absent */

/* Typed values (gguf_get.c). An absent key and a value of another type are errors with different sentences; callers
 * that have a default ask gguf_find first, or use gguf_optional_*, which leave *out alone when the key is absent.
 * Integers of any width are taken where the value fits. */
nvllm_status gguf_get_u32(uint32_t *out, const gguf *file, const char *key, nvllm_error *err);
nvllm_status gguf_get_f32(float *out, const gguf *file, const char *key, nvllm_error *err);
nvllm_status gguf_get_bool(bool *out, const gguf *file, const char *key, nvllm_error *err);
nvllm_status gguf_get_string(gguf_string *out, const gguf *file, const char *key, nvllm_error *err);
nvllm_status gguf_get_array(gguf_array *out, const gguf *file, const char *key, gguf_type element,
                            nvllm_error *err);
nvllm_status gguf_optional_u32(uint32_t *out, const gguf *file, const char *key, nvllm_error *err);
nvllm_status gguf_optional_f32(float *out, const gguf *file, const char *key, nvllm_error *err);
nvllm_status gguf_optional_bool(bool *out, const gguf *file, const char *key, nvllm_error *err);
nvllm_status gguf_optional_string(gguf_string *out, const gguf *file, const char *key, nvllm_error *err);

bool gguf_string_is(gguf_string s, const char *text);
int64_t gguf_array_int(const gguf_array *array, size_t index);  /* element of an integer or bool array */
double gguf_array_float(const gguf_array *array, size_t index); /* element of an f32 or f64 array */

#endif
