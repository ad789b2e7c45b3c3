/* The safetensors reader on files made in memory: one good one, and one for each way to be wrong. */
#include "support/test.h"

#include "formats/safetensors.h"

#define PATH "x.safetensors"

/* header + `data` bytes behind the 8 bytes of length; claimed < 0: the true length. */
static nvllm_status parse_claiming(safetensors **out, const char *header, size_t data, int64_t claimed,
                                   nvllm_error *err)
{
    static _Alignas(16) uint8_t bytes[4096];
    size_t len = strlen(header);
    uint64_t n = claimed < 0 ? len : (uint64_t)claimed;
    memset(bytes, 0, sizeof bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(n >> (8 * i));
    memcpy(bytes + 8, header, len);
    *err = (nvllm_error){0};
    return safetensors_parse(out, bytes, 8 + len + data, PATH, err);
}

static void check_refused(const char *header, size_t data, const char *sentence)
{
    safetensors *file;
    nvllm_error err;
    assert_int_equal(parse_claiming(&file, header, data, -1, &err), NVLLM_ERR_FORMAT);
    assert_null(file);
    if (!strstr(err.message, sentence)) fail_msg("%s\nlacks: %s", err.message, sentence);
    assert_int_equal(strncmp(err.message, PATH ": ", strlen(PATH) + 2), 0);
}

static void safetensors_of_two_tensors_gives_shapes_and_bytes(void **state)
{
    (void)state;
    safetensors *file;
    nvllm_error err;
    /* 8 + 192 bytes of header keep the data aligned; the tensors are listed against their order */
    char header[193];
    snprintf(header, sizeof header, "%-192s",
             "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_"
             "offsets\":[16,28]},"
             "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}");
    assert_int_equal(parse_claiming(&file, header, 28, -1, &err), NVLLM_OK);
    assert_int_equal(safetensors_count(file), 2);
    const tensor *a = safetensors_at(file, 0), *b = safetensors_at(file, 1);
    assert_string_equal(a->name, "a");
    assert_int_equal(a->type, DTYPE_F32);
    assert_int_equal(a->n_dims, 1);
    assert_int_equal(a->bytes, 16);
    assert_null(a->refused);
    assert_ptr_equal(a->data, safetensors_map(file).data + 200);
    assert_string_equal(b->name, "b");
    assert_int_equal(b->type, DTYPE_BF16);
    assert_true(b->n_dims == 2 && b->shape[0] == 2 && b->shape[1] == 3);
    assert_ptr_equal(b->data, (const uint8_t *)a->data + 16);
    safetensors_close(file);
}

static void safetensors_of_another_dtype_is_listed_as_refused(void **state)
{
    (void)state;
    safetensors *file;
    nvllm_error err;
    assert_int_equal(
        parse_claiming(&file, "{\"i\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, -1, &err),
        NVLLM_OK);
    assert_non_null(strstr(safetensors_at(file, 0)->refused, "I64"));
    safetensors_close(file);
}

static void safetensors_of_five_dimensions_is_listed_as_refused(void **state)
{
    (void)state;
    safetensors *file;
    nvllm_error err;
    const char *header = "{\"v\":{\"dtype\":\"BF16\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,4]}}";
    assert_int_equal(parse_claiming(&file, header, 4, -1, &err), NVLLM_OK);
    assert_non_null(safetensors_at(file, 0)->refused);
    safetensors_close(file);
}

static void safetensors_with_bytes_off_their_alignment_is_listed_as_refused(void **state)
{
    (void)state;
    safetensors *file;
    nvllm_error err;
    const char *header = "{\"f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]} }"; /* 53 bytes */
    assert_int_equal(parse_claiming(&file, header, 4, -1, &err), NVLLM_OK);
    assert_non_null(strstr(safetensors_at(file, 0)->refused, "aligned"));
    safetensors_close(file);
}

static void safetensors_with_wrong_header_length_is_refused(void **state)
{
    (void)state;
    safetensors *file;
    nvllm_error err;
    assert_int_equal(parse_claiming(&file, "{}", 0, 3, &err), NVLLM_ERR_FORMAT);
    assert_string_equal(err.message, PATH ": header length 3 is beyond the file's 10 bytes");
    assert_int_equal(parse_claiming(&file, "{}", 0, INT64_MAX, &err), NVLLM_ERR_FORMAT);
    assert_non_null(strstr(err.message, "9223372036854775807 is beyond"));
    assert_int_equal(parse_claiming(&file, "{}", 0, 0, &err), NVLLM_ERR_FORMAT);
    assert_int_equal(safetensors_parse(&file, (const uint8_t *)"1234567", 7, PATH, &err), NVLLM_ERR_FORMAT);
    assert_non_null(strstr(err.message, "too short"));
}

static void safetensors_with_bad_json_is_refused(void **state)
{
    (void)state;
    check_refused("[]", 0, "does not begin with {");
    check_refused("{\"a\":", 0, "not valid JSON");
    check_refused("{\"a\":1,\"a\":2}", 0, "duplicate");
    check_refused("{\"a\":1}", 0, "tensor a: its entry is not an object");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape is missing");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape[0]");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "shape[0]");
    check_refused("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is missing");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets is missing");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "data_offsets");
}

static void safetensors_with_bytes_outside_the_file_is_refused(void **state)
{
    (void)state;
    const char *header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    check_refused(header, 7, "end at 8, beyond the 7"); /* truncated */
    check_refused(header, 12, "tensors end at byte 8 of 12");
    check_refused("{}", 4, "tensors end at byte 0 of 4");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
                  "[8, 0] are not a range");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "not a range");
}

static void safetensors_with_overlap_or_hole_is_refused(void **state)
{
    (void)state;
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                  12, "tensor b: its bytes begin at 4, overlapping the previous tensor's end at 8");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}",
                  20, "tensor b: its bytes begin at 12, leaving a hole after the previous tensor's end at 8");
}

static void safetensors_with_bytes_that_do_not_match_the_shape_is_refused(void **state)
{
    (void)state;
    check_refused("{\"a\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
                  "tensor a: 3 elements of F16 need 6 bytes, but it has 8");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", 8,
                  "product of its shape overflows");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,8]}}", 8,
                  "overflow");
}

static void safetensors_of_missing_file_names_it(void **state)
{
    (void)state;
    safetensors *file;
    nvllm_error err;
    assert_int_equal(safetensors_open(&file, "/nonexistent/model.safetensors", &err), NVLLM_ERR_IO);
    assert_string_equal(err.message, "/nonexistent/model.safetensors: No such file or directory");
    assert_null(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_of_two_tensors_gives_shapes_and_bytes),
        cmocka_unit_test(safetensors_of_another_dtype_is_listed_as_refused),
        cmocka_unit_test(safetensors_of_five_dimensions_is_listed_as_refused),
        cmocka_unit_test(safetensors_with_bytes_off_their_alignment_is_listed_as_refused),
        cmocka_unit_test(safetensors_with_wrong_header_length_is_refused),
        cmocka_unit_test(safetensors_with_bad_json_is_refused),
        cmocka_unit_test(safetensors_with_bytes_outside_the_file_is_refused),
        cmocka_unit_test(safetensors_with_overlap_or_hole_is_refused),
        cmocka_unit_test(safetensors_with_bytes_that_do_not_match_the_shape_is_refused),
        cmocka_unit_test(safetensors_of_missing_file_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
