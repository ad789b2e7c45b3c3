/* The GGUF reader on files made in memory: every value type, and one file for each way to be wrong. */
#include "support/test.h"

#include "formats/gguf_builder.h"

#define PATH "x.gguf"

static nvllm_status parse(gguf **out, const buffer *b, nvllm_error *err)
{
    *err = (nvllm_error){0};
    return gguf_parse(out, (const uint8_t *)b->data, b->len, PATH, err);
}

/* Frees b. */
static void check_refused(buffer *b, nvllm_status code, const char *sentence)
{
    gguf *file;
    nvllm_error err;
    assert_int_equal(parse(&file, b, &err), code);
    assert_null(file);
    if (!strstr(err.message, sentence)) fail_msg("%s\nlacks: %s", err.message, sentence);
    assert_int_equal(strncmp(err.message, PATH ": ", strlen(PATH) + 2), 0);
    buffer_free(b);
}

static void put_all_scalars(buffer *b)
{
    static const uint64_t values[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = 200,
        [GGUF_I8] = 0xfe,
        [GGUF_U16] = 60000,
        [GGUF_I16] = 0xfffd,
        [GGUF_U32] = 4000000000,
        [GGUF_I32] = 0xfffffffc,
        [GGUF_F32] = 0x3fc00000,
        [GGUF_BOOL] = 1,
        [GGUF_U64] = 1ull << 40,
        [GGUF_I64] = (uint64_t)-5,
        [GGUF_F64] = 0x4004000000000000,
    };
    static const size_t bytes[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
        [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};
    for (gguf_type t = 0; t < GGUF_TYPE_COUNT; t++) {
        if (!bytes[t]) continue;
        put_key(b, gguf_type_name(t), t);
        put_number(b, values[t], bytes[t]);
    }
}

static void gguf_scalars_of_every_type_read_back(void **state)
{
    (void)state;
    buffer b = {0};
    gguf *file;
    nvllm_error err;
    put_header(&b, 3, 0, 12);
    put_all_scalars(&b);
    put_text(&b, "string", "hello");
    assert_int_equal(parse(&file, &b, &err), NVLLM_OK);
    assert_int_equal(gguf_find(file, "u8")->as.u, 200);
    assert_int_equal(gguf_find(file, "i8")->as.i, -2);
    assert_int_equal(gguf_find(file, "i16")->as.i, -3);
    assert_int_equal(gguf_find(file, "i32")->as.i, -4);
    assert_int_equal(gguf_find(file, "i64")->as.i, -5);
    assert_true(gguf_find(file, "u64")->as.u == 1ull << 40);
    uint32_t u = 0;
    float f = 0;
    bool flag = false;
    gguf_string s;
    assert_int_equal(gguf_get_u32(&u, file, "u16", &err), NVLLM_OK);
    assert_int_equal(u, 60000);
    assert_int_equal(gguf_get_u32(&u, file, "u32", &err), NVLLM_OK);
    assert_true(u == 4000000000u);
    assert_int_equal(gguf_get_f32(&f, file, "f32", &err), NVLLM_OK);
    assert_true(f == 1.5f);
    assert_int_equal(gguf_get_f32(&f, file, "f64", &err), NVLLM_OK);
    assert_true(f == 2.5f);
    assert_int_equal(gguf_get_bool(&flag, file, "bool", &err), NVLLM_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_string(&s, file, "string", &err), NVLLM_OK);
    assert_true(gguf_string_is(s, "hello") && !gguf_string_is(s, "hell"));
    gguf_close(file);
    buffer_free(&b);
}

static void gguf_getters_tell_absent_from_wrong_type(void **state)
{
    (void)state;
    buffer b = {0};
    gguf *file;
    nvllm_error err;
    uint32_t u = 7;
    gguf_array a;
    put_header(&b, 2, 0, 12);
    put_all_scalars(&b);
    put_text(&b, "string", "hello");
    assert_int_equal(parse(&file, &b, &err), NVLLM_OK);
    assert_int_equal(gguf_get_u32(&u, file, "none", &err), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, PATH ": key none is missing");
    assert_int_equal(gguf_optional_u32(&u, file, "none", &err), NVLLM_OK);
    assert_int_equal(u, 7);
    assert_int_equal(gguf_optional_u32(&u, file, "string", &err), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, PATH ": key string is of type string, expected an unsigned integer");
    assert_int_equal(gguf_get_u32(&u, file, "i8", &err), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, PATH ": i8 -2 is negative");
    assert_int_equal(gguf_get_u32(&u, file, "u64", &err), NVLLM_ERR_FORMAT);
    assert_int_equal(gguf_get_array(&a, file, "u8", GGUF_U8, &err), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, PATH ": key u8 is of type u8, expected an array");
    gguf_close(file);
    buffer_free(&b);
}

static void put_array_head(buffer *b, gguf_type type, uint64_t count)
{
    put_number(b, type, 4);
    put_number(b, count, 8);
}

static void gguf_arrays_read_back_also_nested(void **state)
{
    (void)state;
    buffer b = {0};
    gguf *file;
    nvllm_error err;
    gguf_array a;
    put_header(&b, 3, 0, 3);
    put_key(&b, "tokens", GGUF_ARRAY);
    put_array_head(&b, GGUF_STRING, 2);
    put_string(&b, "<s>");
    put_string(&b, "");
    put_key(&b, "types", GGUF_ARRAY);
    put_array_head(&b, GGUF_I32, 2);
    put_number(&b, 6, 4);
    put_number(&b, (uint32_t)-1, 4);
    put_key(&b, "nested", GGUF_ARRAY);
    put_array_head(&b, GGUF_ARRAY, 1);
    put_array_head(&b, GGUF_U8, 3);
    buffer_append(&b, "abc", 3);
    assert_int_equal(parse(&file, &b, &err), NVLLM_OK);
    assert_int_equal(gguf_get_array(&a, file, "tokens", GGUF_STRING, &err), NVLLM_OK);
    assert_true(a.count == 2 && gguf_string_is(a.strings[0], "<s>") && a.strings[1].len == 0);
    assert_int_equal(gguf_get_array(&a, file, "types", GGUF_U32, &err), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, PATH ": key types is an array of i32, expected one of u32");
    assert_int_equal(gguf_get_array(&a, file, "types", GGUF_I32, &err), NVLLM_OK);
    assert_true(gguf_array_int(&a, 0) == 6 && gguf_array_int(&a, 1) == -1);
    assert_int_equal(gguf_get_array(&a, file, "nested", GGUF_ARRAY, &err), NVLLM_OK);
    assert_true(a.arrays[0].count == 3 && gguf_array_int(&a.arrays[0], 2) == 'c');
    gguf_close(file);
    buffer_free(&b);
}

static void gguf_tensor_shapes_leave_outermost_first(void **state)
{
    (void)state;
    buffer b = {0};
    gguf *file;
    nvllm_error err;
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "w", 64, 3, 8, 32); /* Q8_0: 3 rows of 2 blocks of 34 bytes */
    put_tensor(&b, "n", 8, 0, 0, 0);
    put_data(&b, 32 + 204);
    assert_int_equal(parse(&file, &b, &err), NVLLM_OK);
    assert_int_equal(gguf_tensor_count(file), 2);
    const tensor *w = gguf_tensor_find(file, "w"), *n = gguf_tensor_find(file, "n");
    assert_true(w->n_dims == 2 && w->shape[0] == 3 && w->shape[1] == 64 && w->bytes == 204 &&
                w->type == DTYPE_Q8_0);
    assert_int_equal(*(const uint8_t *)w->data, 32);
    assert_true(n->n_dims == 1 && n->shape[0] == 8 && n->bytes == 32 && n->type == DTYPE_F32);
    assert_null(gguf_tensor_find(file, "x"));
    gguf_close(file);
    buffer_free(&b);
}

static void gguf_with_wrong_head_is_refused(void **state)
{
    (void)state;
    buffer b = {0};
    buffer_puts(&b, "GGML....");
    check_refused(&b, NVLLM_ERR_FORMAT, "not a GGUF file");
    buffer_puts(&b, "GG");
    check_refused(&b, NVLLM_ERR_FORMAT, "2 bytes end inside the header");
    put_header(&b, 0x03000000, 0, 0);
    check_refused(&b, NVLLM_ERR_UNSUPPORTED, "big-endian");
    put_header(&b, 1, 0, 0);
    check_refused(&b, NVLLM_ERR_UNSUPPORTED, "version 1 is not supported");
    put_header(&b, 4, 0, 0);
    check_refused(&b, NVLLM_ERR_UNSUPPORTED, "version 4 is not supported");
}

static void gguf_with_absurd_counts_is_refused_before_allocation(void **state)
{
    (void)state;
    buffer b = {0};
    put_header(&b, 3, UINT64_MAX, 0);
    check_refused(&b, NVLLM_ERR_FORMAT, "18446744073709551615 tensors in the header cannot fit");
    put_header(&b, 3, 0, 1ull << 60);
    check_refused(&b, NVLLM_ERR_FORMAT, "metadata keys in the header cannot fit");
    put_header(&b, 3, 0, 1);
    put_key(&b, "a", GGUF_ARRAY);
    put_array_head(&b, GGUF_STRING, 1ull << 61);
    check_refused(&b, NVLLM_ERR_FORMAT, "array elements in a cannot fit");
    put_header(&b, 3, 0, 1);
    put_key(&b, "a", GGUF_ARRAY);
    put_array_head(&b, GGUF_U64, 2); /* two need 16 bytes, there are 15 */
    buffer_append(&b, "123456789012345", 15);
    check_refused(&b, NVLLM_ERR_FORMAT, "2 array elements in a cannot fit the 15 bytes that are left");
    put_header(&b, 3, 0, 1);
    put_key(&b, "s", GGUF_STRING);
    put_number(&b, UINT64_MAX, 8);
    check_refused(&b, NVLLM_ERR_FORMAT, "characters in s cannot fit the 0 bytes");
}

static void gguf_with_bad_keys_is_refused(void **state)
{
    (void)state;
    buffer b = {0};
    put_header(&b, 3, 0, 2);
    put_u32(&b, "k", 1);
    put_u32(&b, "k", 2);
    check_refused(&b, NVLLM_ERR_FORMAT, "key k appears twice");
    put_header(&b, 3, 0, 1);
    put_key(&b, "a", GGUF_TYPE_COUNT);
    put_number(&b, 0, 8);
    check_refused(&b, NVLLM_ERR_FORMAT, "value type 13, which does not exist");
    put_header(&b, 3, 0, 1);
    put_u32(&b, "general.alignment", 24);
    put_data(&b, 0);
    check_refused(&b, NVLLM_ERR_FORMAT, "general.alignment 24 is not a power of two");
    put_header(&b, 3, 0, 1);
    put_key(&b, "deep", GGUF_ARRAY);
    for (int i = 0; i < 10; i++) put_array_head(&b, GGUF_ARRAY, 1);
    put_data(&b, 32);
    check_refused(&b, NVLLM_ERR_FORMAT, "deep nests arrays deeper than 4");
}

static void check_tensor_refused(uint64_t inner, uint64_t outer, uint32_t type, uint64_t offset,
                                 nvllm_status code, const char *sentence)
{
    buffer b = {0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "t", inner, outer, type, offset);
    put_data(&b, 256);
    check_refused(&b, code, sentence);
}

static void gguf_with_bad_tensor_is_refused(void **state)
{
    (void)state;
    check_tensor_refused(65, 1, 0, 0, NVLLM_ERR_FORMAT, "260 bytes at offset 0 end beyond the 256");
    check_tensor_refused(8, 1, 0, 256, NVLLM_ERR_FORMAT, "at offset 256 end beyond");
    check_tensor_refused(8, 1, 0, UINT64_MAX, NVLLM_ERR_FORMAT, "end beyond");
    check_tensor_refused(8, 1, 0, 8, NVLLM_ERR_FORMAT, "offset 8 is not aligned");
    check_tensor_refused(48, 1, 8, 0, NVLLM_ERR_FORMAT, "rows of 48 are not whole blocks of Q8_0");
    check_tensor_refused(1ull << 40, 1ull << 40, 0, 0, NVLLM_ERR_FORMAT, "zero or absurd");
    check_tensor_refused(1ull << 62, 1, 0, 0, NVLLM_ERR_FORMAT, "overflow");
    check_tensor_refused(0, 1, 0, 0, NVLLM_ERR_FORMAT, "dimension 0 is 0");
    check_tensor_refused(
        256, 1, 12, 0, NVLLM_ERR_UNSUPPORTED,
        "tensor t is of type Q4_K (12), which is not supported; supported are F32, F16, BF16, Q8_0");
    check_tensor_refused(8, 1, 99, 0, NVLLM_ERR_UNSUPPORTED, "unknown (99)");
}

static void gguf_with_overlap_or_duplicate_tensors_is_refused(void **state)
{
    (void)state;
    buffer b = {0};
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "a", 16, 0, 0, 0);
    put_tensor(&b, "b", 16, 0, 0, 32);
    put_data(&b, 96);
    check_refused(&b, NVLLM_ERR_FORMAT, "tensors a and b overlap");
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "a", 8, 0, 0, 0);
    put_tensor(&b, "a", 8, 0, 0, 32);
    put_data(&b, 64);
    check_refused(&b, NVLLM_ERR_FORMAT, "tensor a appears twice");
}

static void gguf_truncated_anywhere_is_refused(void **state)
{
    (void)state;
    buffer b = {0};
    put_header(&b, 3, 1, 13);
    put_all_scalars(&b);
    put_text(&b, "string", "hello");
    put_key(&b, "list", GGUF_ARRAY);
    put_array_head(&b, GGUF_STRING, 1);
    put_string(&b, "x");
    put_tensor(&b, "t", 8, 2, 1, 0);
    put_data(&b, 32);
    gguf *file;
    assert_int_equal(parse(&file, &b, &(nvllm_error){0}), NVLLM_OK);
    gguf_close(file);
    for (size_t len = 0; len < b.len; len++) {
        uint8_t *copy = malloc(len ? len : 1); /* its own block, so that the sanitizer sees a read past it */
        memcpy(copy, b.data, len);
        nvllm_error err = {0};
        assert_int_equal(gguf_parse(&file, copy, len, PATH, &err), NVLLM_ERR_FORMAT);
        assert_true(err.message[0] != 0);
        free(copy);
    }
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_scalars_of_every_type_read_back),
        cmocka_unit_test(gguf_getters_tell_absent_from_wrong_type),
        cmocka_unit_test(gguf_arrays_read_back_also_nested),
        cmocka_unit_test(gguf_tensor_shapes_leave_outermost_first),
        cmocka_unit_test(gguf_with_wrong_head_is_refused),
        cmocka_unit_test(gguf_with_absurd_counts_is_refused_before_allocation),
        cmocka_unit_test(gguf_with_bad_keys_is_refused),
        cmocka_unit_test(gguf_with_bad_tensor_is_refused),
        cmocka_unit_test(gguf_with_overlap_or_duplicate_tensors_is_refused),
        cmocka_unit_test(gguf_truncated_anywhere_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
