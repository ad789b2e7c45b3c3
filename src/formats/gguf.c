/* The GGUF reader; see gguf.h. A cursor walks the bytes once; whatever it allocates lives in the file's arena. A
 * count read from the file is trusted only after checking that so many smallest elements fit the bytes that are left. */
#include "formats/gguf.h"

#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ARRAY_DEPTH   4
#define DEFAULT_ALIGNMENT 32
#define MAX_ALIGNMENT     (1u << 20)
#define MIN_KEY_BYTES     13 /* key length, type, one byte of value */
#define MIN_TENSOR_BYTES  24 /* name length, dimension count, type, offset */

struct gguf {
    arena memory; /* keys, names, string tables */
    file_map map; /* opened by us when `owned`, else the caller's bytes */
    bool owned;
    const char *path;
    gguf_entry *keys; /* sorted once all are read */
    tensor *tensors;  /* sorted once all are read */
    size_t n_keys, n_tensors;
};

typedef struct {
    gguf *file;
    size_t at;
    const char *what; /* being read, for the sentence about a short file */
    nvllm_error *err;
} cursor;

static const struct {
    const char *name;
    size_t bytes; /* smallest encoding */
} value_types[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = {"u8", 1},        [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},      [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},      [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 8},
    [GGUF_ARRAY] = {"array", 12}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

/* ggml's type numbers; those that we cannot read have type DTYPE_COUNT and are named in the refusal. */
static const struct {
    const char *name;
    dtype type;
} tensor_types[] = {
    [0] = {"F32", DTYPE_F32},       [1] = {"F16", DTYPE_F16},        [2] = {"Q4_0", DTYPE_COUNT},
    [3] = {"Q4_1", DTYPE_COUNT},    [6] = {"Q5_0", DTYPE_COUNT},     [7] = {"Q5_1", DTYPE_COUNT},
    [8] = {"Q8_0", DTYPE_Q8_0},     [9] = {"Q8_1", DTYPE_COUNT},     [10] = {"Q2_K", DTYPE_COUNT},
    [11] = {"Q3_K", DTYPE_COUNT},   [12] = {"Q4_K", DTYPE_COUNT},    [13] = {"Q5_K", DTYPE_COUNT},
    [14] = {"Q6_K", DTYPE_COUNT},   [15] = {"Q8_K", DTYPE_COUNT},    [16] = {"IQ2_XXS", DTYPE_COUNT},
    [17] = {"IQ2_XS", DTYPE_COUNT}, [18] = {"IQ3_XXS", DTYPE_COUNT}, [19] = {"IQ1_S", DTYPE_COUNT},
    [20] = {"IQ4_NL", DTYPE_COUNT}, [21] = {"IQ3_S", DTYPE_COUNT},   [22] = {"IQ2_S", DTYPE_COUNT},
    [23] = {"IQ4_XS", DTYPE_COUNT}, [24] = {"I8", DTYPE_COUNT},      [25] = {"I16", DTYPE_COUNT},
    [26] = {"I32", DTYPE_COUNT},    [27] = {"I64", DTYPE_COUNT},     [28] = {"F64", DTYPE_COUNT},
    [29] = {"IQ1_M", DTYPE_COUNT},  [30] = {"BF16", DTYPE_BF16},     [34] = {"TQ1_0", DTYPE_COUNT},
    [35] = {"TQ2_0", DTYPE_COUNT},  [39] = {"MXFP4", DTYPE_COUNT},
};

static size_t left(const cursor *c)
{
    return c->file->map.size - c->at;
}

static nvllm_status too_short(const cursor *c)
{
    return error_set(c->err, NVLLM_ERR_FORMAT, "%s: the file's %zu bytes end inside %.100s", c->file->path,
                     c->file->map.size, c->what);
}

/* The next `bytes` (1 to 8) bytes as a little-endian number. */
static nvllm_status read_number(uint64_t *out, cursor *c, size_t bytes)
{
    uint64_t v = 0;
    *out = 0;
    if (left(c) < bytes) return too_short(c);
    for (size_t i = bytes; i-- > 0;) v = v << 8 | c->file->map.data[c->at + i];
    c->at += bytes;
    *out = v;
    return NVLLM_OK;
}

/* A count of elements that take at least `smallest` bytes each. */
static nvllm_status read_count(size_t *out, cursor *c, size_t smallest, const char *of)
{
    uint64_t n;
    nvllm_status st = read_number(&n, c, 8);
    if (st) return st;
    if (n > left(c) / smallest)
        return error_set(c->err, NVLLM_ERR_FORMAT,
                         "%s: %llu %s in %.100s cannot fit the %zu bytes that are left", c->file->path,
                         (unsigned long long)n, of, c->what, left(c));
    *out = (size_t)n;
    return NVLLM_OK;
}

static nvllm_status read_string(gguf_string *out, cursor *c)
{
    size_t len;
    nvllm_status st = read_count(&len, c, 1, "characters");
    if (st) return st;
    *out = (gguf_string){(const char *)c->file->map.data + c->at, len};
    c->at += len;
    return NVLLM_OK;
}

/* A key or tensor name: copied and NUL-terminated, and so without NUL inside. */
static nvllm_status read_name(const char **out, cursor *c)
{
    gguf_string s;
    nvllm_status st = read_string(&s, c);
    if (st) return st;
    if (s.len > UINT16_MAX || memchr(s.data, 0, s.len))
        return error_set(c->err, NVLLM_ERR_FORMAT, "%s: %s: a name of %zu bytes is too long or holds a NUL",
                         c->file->path, c->what, s.len);
    *out = arena_strndup(&c->file->memory, s.data, s.len);
    return *out ? NVLLM_OK : error_memory(c->err, s.len, c->file->path);
}

static nvllm_status read_type(gguf_type *out, cursor *c)
{
    uint64_t type;
    nvllm_status st = read_number(&type, c, 4);
    if (st) return st;
    if (type >= GGUF_TYPE_COUNT)
        return error_set(c->err, NVLLM_ERR_FORMAT, "%s: %.100s has value type %llu, which does not exist",
                         c->file->path, c->what, (unsigned long long)type);
    *out = (gguf_type)type;
    return NVLLM_OK;
}

static nvllm_status read_array(gguf_array *out, cursor *c, int depth);

static nvllm_status read_strings(gguf_array *out, cursor *c)
{
    gguf_string *strings = arena_calloc(&c->file->memory, out->count + 1, sizeof *strings);
    if (!strings) return error_memory(c->err, out->count * sizeof *strings, c->file->path);
    out->strings = strings;
    for (size_t i = 0; i < out->count; i++) {
        nvllm_status st = read_string(&strings[i], c);
        if (st) return st;
    }
    return NVLLM_OK;
}

static nvllm_status read_arrays(gguf_array *out, cursor *c, int depth)
{
    if (depth >= MAX_ARRAY_DEPTH)
        return error_set(c->err, NVLLM_ERR_FORMAT, "%s: %.100s nests arrays deeper than %d", c->file->path,
                         c->what, MAX_ARRAY_DEPTH);
    gguf_array *arrays = arena_calloc(&c->file->memory, out->count + 1, sizeof *arrays);
    if (!arrays) return error_memory(c->err, out->count * sizeof *arrays, c->file->path);
    out->arrays = arrays;
    for (size_t i = 0; i < out->count; i++) {
        nvllm_status st = read_array(&arrays[i], c, depth + 1);
        if (st) return st;
    }
    return NVLLM_OK;
}

static nvllm_status read_array(gguf_array *out, cursor *c, int depth)
{
    nvllm_status st = read_type(&out->type, c);
    if (!st) st = read_count(&out->count, c, value_types[out->type].bytes, "array elements");
    if (st) return st;
    if (out->type == GGUF_STRING) return read_strings(out, c);
    if (out->type == GGUF_ARRAY) return read_arrays(out, c, depth);
    out->raw = c->file->map.data + c->at;
    c->at += out->count * value_types[out->type].bytes;
    return NVLLM_OK;
}

static nvllm_status read_scalar(gguf_entry *e, cursor *c)
{
    uint64_t bits;
    nvllm_status st = read_number(&bits, c, value_types[e->type].bytes);
    if (st) return st;
    gguf_array one = {
        .type = e->type, .count = 1, .raw = c->file->map.data + c->at - value_types[e->type].bytes};
    switch (e->type) {
    case GGUF_F32:
    case GGUF_F64: e->as.f = gguf_array_float(&one, 0); break;
    case GGUF_BOOL: e->as.b = bits != 0; break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64: e->as.i = gguf_array_int(&one, 0); break;
    default: e->as.u = bits; break;
    }
    return NVLLM_OK;
}

static nvllm_status read_key(gguf_entry *e, cursor *c)
{
    c->what = "a metadata key";
    nvllm_status st = read_name(&e->key, c);
    if (st) return st;
    c->what = e->key;
    st = read_type(&e->type, c);
    if (st) return st;
    if (e->type == GGUF_STRING) return read_string(&e->as.s, c);
    if (e->type == GGUF_ARRAY) return read_array(&e->as.a, c, 1);
    return read_scalar(e, c);
}

/* Dimensions come innermost first and leave outermost first. *elements is their product. */
static nvllm_status read_shape(tensor *t, uint64_t *elements, cursor *c)
{
    uint64_t n, sizes[TENSOR_MAX_DIMS] = {0};
    nvllm_status st = read_number(&n, c, 4);
    if (st) return st;
    if (n > TENSOR_MAX_DIMS)
        return error_set(c->err, NVLLM_ERR_FORMAT, "%s: tensor %.100s has %llu dimensions, more than %d",
                         t->file, t->name, (unsigned long long)n, TENSOR_MAX_DIMS);
    *elements = 1;
    for (size_t i = 0; i < n; i++) {
        st = read_number(&sizes[i], c, 8);
        if (st) return st;
        if (sizes[i] == 0 || sizes[i] > INT64_MAX || __builtin_mul_overflow(*elements, sizes[i], elements))
            return error_set(c->err, NVLLM_ERR_FORMAT,
                             "%s: tensor %.100s: dimension %zu is %llu, zero or absurd", t->file, t->name, i,
                             (unsigned long long)sizes[i]);
    }
    t->n_dims = (int)n;
    for (size_t i = 0; i < n; i++) t->shape[n - 1 - i] = (int64_t)sizes[i];
    return NVLLM_OK;
}

static nvllm_status read_tensor_type(tensor *t, cursor *c)
{
    uint64_t id;
    nvllm_status st = read_number(&id, c, 4);
    if (st) return st;
    const char *name = id < sizeof tensor_types / sizeof *tensor_types ? tensor_types[id].name : NULL;
    if (name && tensor_types[id].type != DTYPE_COUNT) {
        t->type = tensor_types[id].type;
        return NVLLM_OK;
    }
    return error_set(
        c->err, NVLLM_ERR_UNSUPPORTED,
        "%s: tensor %.100s is of type %s (%llu), which is not supported; supported are F32, F16, BF16, Q8_0",
        t->file, t->name, name ? name : "unknown", (unsigned long long)id);
}

/* bytes = elements in blocks; the innermost dimension must be whole blocks. */
static nvllm_status set_bytes(tensor *t, uint64_t elements, cursor *c)
{
    uint64_t row = t->n_dims ? (uint64_t)t->shape[t->n_dims - 1] : 1, block = (uint64_t)dtype_block(t->type);
    if (row % block != 0)
        return error_set(c->err, NVLLM_ERR_FORMAT,
                         "%s: tensor %.100s: rows of %llu are not whole blocks of %s", t->file, t->name,
                         (unsigned long long)row, dtype_name(t->type));
    uint64_t bytes;
    if (__builtin_mul_overflow(elements / block, (uint64_t)dtype_block_bytes(t->type), &bytes) ||
        bytes > SIZE_MAX)
        return error_set(c->err, NVLLM_ERR_FORMAT,
                         "%s: tensor %.100s: the bytes of its shape overflow 64 bits", t->file, t->name);
    t->bytes = (size_t)bytes;
    return NVLLM_OK;
}

/* *offset counts from the start of the tensors' bytes, which is known only after the last description. */
static nvllm_status read_tensor(tensor *t, uint64_t *offset, cursor *c)
{
    uint64_t elements = 0;
    c->what = "a tensor's description";
    t->file = c->file->path;
    nvllm_status st = read_name(&t->name, c);
    if (!st) st = read_shape(t, &elements, c);
    if (!st) st = read_tensor_type(t, c);
    if (!st) st = set_bytes(t, elements, c);
    if (!st) st = read_number(offset, c, 8);
    return st;
}

static nvllm_status read_alignment(uint32_t *out, cursor *c)
{
    *out = DEFAULT_ALIGNMENT;
    nvllm_status st = gguf_optional_u32(out, c->file, "general.alignment", c->err);
    if (st) return st;
    if (*out == 0 || *out > MAX_ALIGNMENT || (*out & (*out - 1)) != 0)
        return error_set(c->err, NVLLM_ERR_FORMAT, "%s: general.alignment %u is not a power of two up to %u",
                         c->file->path, *out, MAX_ALIGNMENT);
    return NVLLM_OK;
}

/* Turns offsets into pointers: inside the file, aligned as the file promises and as the element needs. */
static nvllm_status place_tensors(const uint64_t *offsets, cursor *c)
{
    gguf *file = c->file;
    uint32_t alignment;
    nvllm_status st = read_alignment(&alignment, c);
    if (st) return st;
    size_t padding = (alignment - c->at % alignment) % alignment,
           room = left(c) > padding ? left(c) - padding : 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        tensor *t = &file->tensors[i];
        if (offsets[i] > room || t->bytes > room - offsets[i])
            return error_set(
                c->err, NVLLM_ERR_FORMAT,
                "%s: tensor %.100s: %zu bytes at offset %llu end beyond the %zu bytes of tensor data",
                t->file, t->name, t->bytes, (unsigned long long)offsets[i], room);
        t->data = file->map.data + c->at + padding + offsets[i];
        if (offsets[i] % alignment != 0 || (uintptr_t)t->data % (t->type == DTYPE_F32 ? 4 : 2) != 0)
            return error_set(c->err, NVLLM_ERR_FORMAT, "%s: tensor %.100s: offset %llu is not aligned",
                             t->file, t->name, (unsigned long long)offsets[i]);
    }
    return NVLLM_OK;
}

static int by_data(const void *a, const void *b)
{
    const tensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tensor *)a)->name, ((const tensor *)b)->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const gguf_entry *)a)->key, ((const gguf_entry *)b)->key);
}

/* Leaves the tensors sorted by name; none overlaps another, and no name comes twice. */
static nvllm_status sort_tensors(gguf *file, nvllm_error *err)
{
    tensor *t = file->tensors;
    qsort(t, file->n_tensors, sizeof *t, by_data);
    for (size_t i = 1; i < file->n_tensors; i++)
        if ((const uint8_t *)t[i - 1].data + t[i - 1].bytes > (const uint8_t *)t[i].data)
            return error_set(err, NVLLM_ERR_FORMAT, "%s: tensors %.100s and %.100s overlap", file->path,
                             t[i - 1].name, t[i].name);
    qsort(t, file->n_tensors, sizeof *t, by_name);
    for (size_t i = 1; i < file->n_tensors; i++)
        if (!strcmp(t[i - 1].name, t[i].name))
            return error_set(err, NVLLM_ERR_FORMAT, "%s: tensor %.100s appears twice", file->path, t[i].name);
    return NVLLM_OK;
}

static nvllm_status read_keys(cursor *c)
{
    gguf *file = c->file;
    file->keys = arena_calloc(&file->memory, file->n_keys + 1, sizeof *file->keys);
    if (!file->keys) return error_memory(c->err, file->n_keys * sizeof *file->keys, file->path);
    for (size_t i = 0; i < file->n_keys; i++) {
        nvllm_status st = read_key(&file->keys[i], c);
        if (st) return st;
    }
    qsort(file->keys, file->n_keys, sizeof *file->keys, by_key);
    for (size_t i = 1; i < file->n_keys; i++)
        if (!strcmp(file->keys[i - 1].key, file->keys[i].key))
            return error_set(c->err, NVLLM_ERR_FORMAT, "%s: key %.100s appears twice", file->path,
                             file->keys[i].key);
    return NVLLM_OK;
}

static nvllm_status read_tensors(cursor *c)
{
    gguf *file = c->file;
    file->tensors = arena_calloc(&file->memory, file->n_tensors + 1, sizeof *file->tensors);
    uint64_t *offsets = calloc(file->n_tensors + 1, sizeof *offsets);
    nvllm_status st = NVLLM_OK;
    if (!file->tensors || !offsets) st = error_memory(c->err, file->n_tensors * sizeof(tensor), file->path);
    for (size_t i = 0; !st && i < file->n_tensors; i++) st = read_tensor(&file->tensors[i], &offsets[i], c);
    if (!st) st = place_tensors(offsets, c);
    if (!st) st = sort_tensors(file, c->err);
    free(offsets);
    return st;
}

static nvllm_status read_magic(cursor *c)
{
    uint64_t magic, version;
    c->what = "the header";
    nvllm_status st = read_number(&magic, c, 4);
    if (!st && magic != 0x46554747u) /* "GGUF" */
        st = error_set(c->err, NVLLM_ERR_FORMAT, "%s: not a GGUF file: it does not begin with GGUF",
                       c->file->path);
    if (!st) st = read_number(&version, c, 4);
    if (st) return st;
    if (version != 0 && (version & 0xffff) == 0)
        return error_set(c->err, NVLLM_ERR_UNSUPPORTED, "%s: big-endian GGUF files are not supported",
                         c->file->path);
    if (version != 2 && version != 3)
        return error_set(c->err, NVLLM_ERR_UNSUPPORTED, "%s: GGUF version %llu is not supported; 2 and 3 are",
                         c->file->path, (unsigned long long)version);
    return NVLLM_OK;
}

static nvllm_status read_file(gguf *file, nvllm_error *err)
{
    cursor c = {.file = file, .err = err};
    nvllm_status st = read_magic(&c);
    if (!st) st = read_count(&file->n_tensors, &c, MIN_TENSOR_BYTES, "tensors");
    if (!st) st = read_count(&file->n_keys, &c, MIN_KEY_BYTES, "metadata keys");
    if (!st) st = read_keys(&c);
    if (!st) st = read_tensors(&c);
    return st;
}

static nvllm_status start(gguf **out, const char *name, nvllm_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return error_memory(err, sizeof **out, name);
    (*out)->path = arena_strndup(&(*out)->memory, name, strlen(name));
    return (*out)->path ? NVLLM_OK : error_memory(err, strlen(name), name);
}

nvllm_status gguf_open(gguf **out, const char *path, nvllm_error *err)
{
    nvllm_status st = start(out, path, err);
    if (!st) st = file_map_open(&(*out)->map, path, err);
    if (!st) {
        (*out)->owned = true;
        st = read_file(*out, err);
    }
    if (!st) return NVLLM_OK;
    gguf_close(*out);
    *out = NULL;
    return st;
}

nvllm_status gguf_parse(gguf **out, const uint8_t *data, size_t size, const char *name, nvllm_error *err)
{
    nvllm_status st = start(out, name, err);
    if (!st) {
        (*out)->map = (file_map){data, size, -1};
        st = read_file(*out, err);
    }
    if (!st) return NVLLM_OK;
    gguf_close(*out);
    *out = NULL;
    return st;
}

void gguf_close(gguf *file)
{
    if (!file) return;
    if (file->owned) file_map_close(&file->map);
    arena_free(&file->memory);
    free(file);
}

const char *gguf_path(const gguf *file)
{
    return file->path;
}

file_map gguf_map(const gguf *file)
{
    return file->map;
}

size_t gguf_key_count(const gguf *file)
{
    return file->n_keys;
}

const gguf_entry *gguf_key_at(const gguf *file, size_t index)
{
    return &file->keys[index];
}

const gguf_entry *gguf_find(const gguf *file, const char *key)
{
    gguf_entry wanted = {.key = key};
    return bsearch(&wanted, file->keys, file->n_keys, sizeof *file->keys, by_key);
}

const char *gguf_type_name(gguf_type type)
{
    return value_types[type].name;
}

size_t gguf_tensor_count(const gguf *file)
{
    return file->n_tensors;
}

const tensor *gguf_tensor_at(const gguf *file, size_t index)
{
    return &file->tensors[index];
}

const tensor *gguf_tensor_find(const gguf *file, const char *name)
{
    tensor wanted = {.name = name};
    return bsearch(&wanted, file->tensors, file->n_tensors, sizeof *file->tensors, by_name);
}
