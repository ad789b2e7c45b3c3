/* Typed access to GGUF metadata; see gguf.h. */
#include "formats/gguf.h"

#include <string.h>

static nvllm_status find(const gguf_entry **out, const gguf *file, const char *key, nvllm_error *err)
{
    *out = gguf_find(file, key);
    if (*out) return NVLLM_OK;
    return error_set(err, NVLLM_ERR_FORMAT, "%s: key %s is missing", gguf_path(file), key);
}

static nvllm_status wrong_type(const gguf *file, const gguf_entry *e, const char *wanted, nvllm_error *err)
{
    return error_set(err, NVLLM_ERR_FORMAT, "%s: key %s is of type %s, expected %s", gguf_path(file), e->key,
                     gguf_type_name(e->type), wanted);
}

static bool is_unsigned(gguf_type type)
{
    return type == GGUF_U8 || type == GGUF_U16 || type == GGUF_U32 || type == GGUF_U64;
}

static bool is_signed(gguf_type type)
{
    return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
}

nvllm_status gguf_get_u32(uint32_t *out, const gguf *file, const char *key, nvllm_error *err)
{
    const gguf_entry *e;
    nvllm_status st = find(&e, file, key, err);
    if (st) return st;
    if (!is_unsigned(e->type) && !is_signed(e->type)) return wrong_type(file, e, "an unsigned integer", err);
    if (is_signed(e->type) && e->as.i < 0)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s %lld is negative", gguf_path(file), key,
                         (long long)e->as.i);
    uint64_t value = is_signed(e->type) ? (uint64_t)e->as.i : e->as.u;
    if (value > UINT32_MAX)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s %llu does not fit 32 bits", gguf_path(file), key,
                         (unsigned long long)value);
    *out = (uint32_t)value;
    return NVLLM_OK;
}

nvllm_status gguf_get_f32(float *out, const gguf *file, const char *key, nvllm_error *err)
{
    const gguf_entry *e;
    nvllm_status st = find(&e, file, key, err);
    if (st) return st;
    if (e->type != GGUF_F32 && e->type != GGUF_F64) return wrong_type(file, e, "a float", err);
    *out = (float)e->as.f;
    return NVLLM_OK;
}

nvllm_status gguf_get_bool(bool *out, const gguf *file, const char *key, nvllm_error *err)
{
    const gguf_entry *e;
    nvllm_status st = find(&e, file, key, err);
    if (st) return st;
    if (e->type != GGUF_BOOL) return wrong_type(file, e, "a bool", err);
    *out = e->as.b;
    return NVLLM_OK;
}

nvllm_status gguf_get_string(gguf_string *out, const gguf *file, const char *key, nvllm_error *err)
{
    const gguf_entry *e;
    nvllm_status st = find(&e, file, key, err);
    if (st) return st;
    if (e->type != GGUF_STRING) return wrong_type(file, e, "a string", err);
    *out = e->as.s;
    return NVLLM_OK;
}

nvllm_status gguf_get_array(gguf_array *out, const gguf *file, const char *key, gguf_type element,
                            nvllm_error *err)
{
    const gguf_entry *e;
    nvllm_status st = find(&e, file, key, err);
    if (st) return st;
    if (e->type != GGUF_ARRAY) return wrong_type(file, e, "an array", err);
    if (e->as.a.type != element)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: key %s is an array of %s, expected one of %s",
                         gguf_path(file), key, gguf_type_name(e->as.a.type), gguf_type_name(element));
    *out = e->as.a;
    return NVLLM_OK;
}

nvllm_status gguf_optional_u32(uint32_t *out, const gguf *file, const char *key, nvllm_error *err)
{
    return gguf_find(file, key) ? gguf_get_u32(out, file, key, err) : NVLLM_OK;
}

nvllm_status gguf_optional_f32(float *out, const gguf *file, const char *key, nvllm_error *err)
{
    return gguf_find(file, key) ? gguf_get_f32(out, file, key, err) : NVLLM_OK;
}

nvllm_status gguf_optional_bool(bool *out, const gguf *file, const char *key, nvllm_error *err)
{
    return gguf_find(file, key) ? gguf_get_bool(out, file, key, err) : NVLLM_OK;
}

nvllm_status gguf_optional_string(gguf_string *out, const gguf *file, const char *key, nvllm_error *err)
{
    return gguf_find(file, key) ? gguf_get_string(out, file, key, err) : NVLLM_OK;
}

bool gguf_string_is(gguf_string s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

static uint64_t little_endian(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

int64_t gguf_array_int(const gguf_array *array, size_t index)
{
    switch (array->type) {
    case GGUF_U8:
    case GGUF_BOOL: return array->raw[index];
    case GGUF_I8: return (int8_t)array->raw[index];
    case GGUF_U16: return (int64_t)little_endian(array->raw + 2 * index, 2);
    case GGUF_I16: return (int16_t)little_endian(array->raw + 2 * index, 2);
    case GGUF_U32: return (int64_t)little_endian(array->raw + 4 * index, 4);
    case GGUF_I32: return (int32_t)little_endian(array->raw + 4 * index, 4);
    case GGUF_U64:
    case GGUF_I64: return (int64_t)little_endian(array->raw + 8 * index, 8);
    default: return 0;
    }
}

double gguf_array_float(const gguf_array *array, size_t index)
{
    if (array->type == GGUF_F32) {
        float f;
        memcpy(&f, array->raw + 4 * index, sizeof f);
        return (double)f;
    }
    double d = 0;
    if (array->type == GGUF_F64) memcpy(&d, array->raw + 8 * index, sizeof d);
    return d;
}
