/* The safetensors reader; see safetensors.h. All of a file's own allocations live in one arena. */
#include "formats/safetensors.h"

#include "base/arena.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER_BYTES 100000000u /* the reference library's limit */
#define MAX_DIMS_LISTED  255

struct safetensors {
    arena memory; /* names, reasons, the table */
    file_map map; /* opened by us when `owned`, else the caller's bytes */
    bool owned;
    const char *path;
    tensor *tensors;
    size_t count;
    const uint8_t *base; /* first byte after the header */
    uint64_t base_size;
};

/* Bits per element of every dtype that the format defines; ours carry their dtype, the others DTYPE_COUNT. */
static const struct {
    const char *name;
    dtype type;
    unsigned bits;
} dtypes[] = {
    {"F32", DTYPE_F32, 32},      {"F16", DTYPE_F16, 16},      {"BF16", DTYPE_BF16, 16},
    {"BOOL", DTYPE_COUNT, 8},    {"U8", DTYPE_COUNT, 8},      {"I8", DTYPE_COUNT, 8},
    {"U16", DTYPE_COUNT, 16},    {"I16", DTYPE_COUNT, 16},    {"U32", DTYPE_COUNT, 32},
    {"I32", DTYPE_COUNT, 32},    {"U64", DTYPE_COUNT, 64},    {"I64", DTYPE_COUNT, 64},
    {"F64", DTYPE_COUNT, 64},    {"C64", DTYPE_COUNT, 64},    {"F8_E4M3", DTYPE_COUNT, 8},
    {"F4", DTYPE_COUNT, 4},      {"F8_E8M0", DTYPE_COUNT, 8}, {"F8_E5M2", DTYPE_COUNT, 8},
    {"F6_E2M3", DTYPE_COUNT, 6}, {"F6_E3M2", DTYPE_COUNT, 6},
};

/* A sentence about one tensor of the file being read. */
#define TENSOR_SENTENCE "%s: tensor %.100s: "

static nvllm_status refuse(tensor *t, arena *memory, const char *reason, nvllm_error *err)
{
    t->refused = arena_strndup(memory, reason, strlen(reason));
    return t->refused ? NVLLM_OK : error_memory(err, strlen(reason), t->file);
}

/* Reads "shape" into t and its element count into *elements. More than 4 dimensions: listed, refused. */
static nvllm_status read_shape(tensor *t, uint64_t *elements, const json_t *entry, arena *memory,
                               nvllm_error *err)
{
    const json_t *shape = json_object_get(entry, "shape");
    size_t n = json_array_size(shape);
    if (!json_is_array(shape) || n > MAX_DIMS_LISTED)
        return error_set(err, NVLLM_ERR_FORMAT, TENSOR_SENTENCE "shape is missing or not a list of integers",
                         t->file, t->name);
    uint64_t product = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(shape, i);
        if (!json_is_integer(item) || json_integer_value(item) < 0)
            return error_set(err, NVLLM_ERR_FORMAT,
                             TENSOR_SENTENCE "shape[%zu] is not a non-negative integer", t->file, t->name, i);
        uint64_t size = (uint64_t)json_integer_value(item);
        if (__builtin_mul_overflow(product, size, &product))
            return error_set(err, NVLLM_ERR_FORMAT,
                             TENSOR_SENTENCE "the product of its shape overflows 64 bits", t->file, t->name);
        if (i < TENSOR_MAX_DIMS) t->shape[i] = (int64_t)size;
    }
    t->n_dims = (int)n;
    *elements = product;
    if (n <= TENSOR_MAX_DIMS) return NVLLM_OK;
    t->n_dims = TENSOR_MAX_DIMS;
    return refuse(t, memory, "it has more than 4 dimensions", err);
}

/* Reads "data_offsets" into [begin, end) relative to the end of the header. */
static nvllm_status read_offsets(uint64_t *begin, uint64_t *end, const safetensors *file, const tensor *t,
                                 const json_t *entry, nvllm_error *err)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return error_set(err, NVLLM_ERR_FORMAT, TENSOR_SENTENCE "data_offsets is missing or not two integers",
                         t->file, t->name);
    json_int_t b = json_integer_value(first), e = json_integer_value(last);
    if (b < 0 || e < b)
        return error_set(err, NVLLM_ERR_FORMAT, TENSOR_SENTENCE "data_offsets [%lld, %lld] are not a range",
                         t->file, t->name, (long long)b, (long long)e);
    if ((uint64_t)e > file->base_size)
        return error_set(err, NVLLM_ERR_FORMAT,
                         TENSOR_SENTENCE
                         "its bytes end at %lld, beyond the %llu that the file has after its header",
                         t->file, t->name, (long long)e, (unsigned long long)file->base_size);
    *begin = (uint64_t)b;
    *end = (uint64_t)e;
    return NVLLM_OK;
}

/* Sets type or the reason for refusal, and checks that the bytes are what shape and dtype need. */
static nvllm_status read_dtype(tensor *t, uint64_t elements, const json_t *entry, arena *memory,
                               nvllm_error *err)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name) return error_set(err, NVLLM_ERR_FORMAT, TENSOR_SENTENCE "dtype is missing", t->file, t->name);
    dtype type = DTYPE_COUNT;
    unsigned bits = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(name, dtypes[i].name)) type = dtypes[i].type, bits = dtypes[i].bits;
    uint64_t all_bits = 0;
    if (__builtin_mul_overflow(elements, (uint64_t)bits, &all_bits))
        return error_set(err, NVLLM_ERR_FORMAT, TENSOR_SENTENCE "the bytes of its shape overflow 64 bits",
                         t->file, t->name);
    if (bits && (all_bits % 8 != 0 || all_bits / 8 != t->bytes))
        return error_set(err, NVLLM_ERR_FORMAT,
                         TENSOR_SENTENCE "%llu elements of %s need %llu bytes, but it has %zu", t->file,
                         t->name, (unsigned long long)elements, name, (unsigned long long)(all_bits / 8),
                         t->bytes);
    t->type = type;
    if (type == DTYPE_COUNT) {
        char reason[96];
        snprintf(reason, sizeof reason, "dtype %.32s is not one of F32, F16, BF16", name);
        t->type = DTYPE_F32;
        return refuse(t, memory, reason, err);
    }
    if ((uintptr_t)t->data % (bits / 8) != 0)
        return refuse(t, memory, "its bytes are not aligned to its elements", err);
    return NVLLM_OK;
}

static nvllm_status read_tensor(safetensors *file, const char *name, const json_t *entry, nvllm_error *err)
{
    tensor *t = &file->tensors[file->count];
    t->file = file->path;
    t->name = arena_strndup(&file->memory, name, strlen(name));
    if (!t->name) return error_memory(err, strlen(name), file->path);
    if (!json_is_object(entry))
        return error_set(err, NVLLM_ERR_FORMAT, TENSOR_SENTENCE "its entry is not an object", t->file,
                         t->name);
    uint64_t elements = 0, begin = 0, end = 0;
    nvllm_status st = read_shape(t, &elements, entry, &file->memory, err);
    if (!st) st = read_offsets(&begin, &end, file, t, entry, err);
    if (st) return st;
    t->data = file->base + begin;
    t->bytes = (size_t)(end - begin);
    st = read_dtype(t, elements, entry, &file->memory, err);
    if (!st) file->count++;
    return st;
}

static int by_offset(const void *a, const void *b)
{
    const tensor *x = a, *y = b;
    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty ones first */
    return strcmp(x->name, y->name);
}

/* The tensors must tile the bytes after the header: no overlap, no hole, nothing left over. */
static nvllm_status check_tiling(const safetensors *file, nvllm_error *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < file->count; i++) {
        const tensor *t = &file->tensors[i];
        uint64_t begin = (uint64_t)((const uint8_t *)t->data - file->base);
        if (begin != at)
            return error_set(err, NVLLM_ERR_FORMAT,
                             TENSOR_SENTENCE "its bytes begin at %llu, %s the previous tensor's end at %llu",
                             t->file, t->name, (unsigned long long)begin,
                             begin < at ? "overlapping" : "leaving a hole after", (unsigned long long)at);
        at = begin + t->bytes;
    }
    if (at != file->base_size)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: the tensors end at byte %llu of %llu after the header",
                         file->path, (unsigned long long)at, (unsigned long long)file->base_size);
    return NVLLM_OK;
}

/* Finds the header's text and where the tensors' bytes begin. */
static nvllm_status locate_header(safetensors *file, const char **text, size_t *len, nvllm_error *err)
{
    const uint8_t *data = file->map.data;
    if (file->map.size < 8)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %zu bytes, too short for a safetensors file", file->path,
                         file->map.size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | data[i];
    if (n > file->map.size - 8)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: header length %llu is beyond the file's %zu bytes",
                         file->path, (unsigned long long)n, file->map.size);
    if (n > MAX_HEADER_BYTES)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: header length %llu is more than the %u allowed",
                         file->path, (unsigned long long)n, MAX_HEADER_BYTES);
    if (n == 0 || data[8] != '{')
        return error_set(err, NVLLM_ERR_FORMAT, "%s: the header does not begin with {", file->path);
    *text = (const char *)data + 8;
    *len = (size_t)n;
    file->base = data + 8 + n;
    file->base_size = file->map.size - 8 - n;
    return NVLLM_OK;
}

static nvllm_status read_header(safetensors *file, nvllm_error *err)
{
    const char *text = NULL, *name;
    size_t len = 0;
    nvllm_status st = locate_header(file, &text, &len, err);
    if (st) return st;
    json_error_t bad;
    json_t *entry, *header = json_loadb(text, len, JSON_REJECT_DUPLICATES, &bad);
    if (!header)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: header is not valid JSON: %.150s (byte %d)", file->path,
                         bad.text, bad.position);
    file->tensors = arena_calloc(&file->memory, json_object_size(header) + 1, sizeof *file->tensors);
    if (!file->tensors) st = error_memory(err, json_object_size(header) * sizeof *file->tensors, file->path);
    json_object_foreach(header, name, entry)
    {
        if (!st && strcmp(name, "__metadata__") != 0) st = read_tensor(file, name, entry, err);
    }
    json_decref(header);
    if (st) return st;
    qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
    return check_tiling(file, err);
}

static nvllm_status start(safetensors **out, const char *name, nvllm_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return error_memory(err, sizeof **out, name);
    (*out)->path = arena_strndup(&(*out)->memory, name, strlen(name));
    return (*out)->path ? NVLLM_OK : error_memory(err, strlen(name), name);
}

nvllm_status safetensors_open(safetensors **out, const char *path, nvllm_error *err)
{
    nvllm_status st = start(out, path, err);
    if (!st) st = file_map_open(&(*out)->map, path, err);
    if (!st) {
        (*out)->owned = true;
        st = read_header(*out, err);
    }
    if (!st) return NVLLM_OK;
    safetensors_close(*out);
    *out = NULL;
    return st;
}

nvllm_status safetensors_parse(safetensors **out, const uint8_t *data, size_t size, const char *name,
                               nvllm_error *err)
{
    nvllm_status st = start(out, name, err);
    if (!st) {
        (*out)->map = (file_map){data, size, -1};
        st = read_header(*out, err);
    }
    if (!st) return NVLLM_OK;
    safetensors_close(*out);
    *out = NULL;
    return st;
}

void safetensors_close(safetensors *file)
{
    if (!file) return;
    if (file->owned) file_map_close(&file->map);
    arena_free(&file->memory);
    free(file);
}

size_t safetensors_count(const safetensors *file)
{
    return file->count;
}

const tensor *safetensors_at(const safetensors *file, size_t index)
{
    return &file->tensors[index];
}

file_map safetensors_map(const safetensors *file)
{
    return file->map;
}
