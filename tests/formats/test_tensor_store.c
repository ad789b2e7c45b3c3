/* The tensor store over folders made here, and over the real stories260k in both forms. */
#define _GNU_SOURCE
#include "support/test.h"

#include "base/file.h"
#include "formats/gguf_builder.h"
#include "formats/tensor_store.h"

#define HEADER_A "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"
#define HEADER_B "{\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}"

static char folder[] = "/tmp/nvllm_store_XXXXXX";

static void write_file(const char *name, const void *bytes, size_t len)
{
    char *path = file_join(folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
    free(path);
}

static void write_shard(const char *name, const char *header)
{
    buffer b = {0};
    put_number(&b, 256, 8);
    buffer_printf(&b, "%-256s", header);
    put_number(&b, 0, 8);
    write_file(name, b.data, b.len);
    buffer_free(&b);
}

static void write_index(const char *weight_map)
{
    buffer b = {0};
    buffer_printf(&b, "{\"metadata\":{\"total_size\":16},\"weight_map\":%s}", weight_map);
    write_file("model.safetensors.index.json", b.data, b.len);
    buffer_free(&b);
}

static void remove_file(const char *name)
{
    char *path = file_join(folder, name);
    unlink(path);
    free(path);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int empty_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"a.safetensors", "b.safetensors", "model.safetensors",
                                        "model.safetensors.index.json", "m.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) remove_file(names[i]);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void check_refused(const char *path, nvllm_status code, const char *sentence)
{
    tensor_store *store;
    nvllm_error err = {0};
    assert_int_equal(tensor_store_open(&store, path, &err), code);
    assert_null(store);
    if (!strstr(err.message, sentence)) fail_msg("%s\nlacks: %s", err.message, sentence);
}

static void store_of_shards_finds_tensors_of_all(void **state)
{
    (void)state;
    tensor_store *store;
    const tensor *t;
    nvllm_error err = {0};
    write_shard("a.safetensors", HEADER_A);
    write_shard("b.safetensors", HEADER_B);
    write_index("{\"b\":\"b.safetensors\",\"a\":\"a.safetensors\"}");
    if (tensor_store_open(&store, folder, &err)) fail_msg("%s", err.message);
    assert_int_equal(tensor_store_count(store), 2);
    assert_string_equal(tensor_store_at(store, 0)->name, "a");
    assert_int_equal(tensor_store_bytes(store), 2 * (8 + 256 + 8));
    assert_null(tensor_store_gguf(store));
    assert_int_equal(tensor_store_get(&t, store, "a", &err), NVLLM_OK);
    assert_ptr_equal(t, tensor_store_find(store, "a"));
    assert_int_equal(tensor_store_get(&t, store, "b", &err), NVLLM_ERR_UNSUPPORTED);
    assert_null(t);
    assert_non_null(strstr(err.message, "b.safetensors: tensor b: dtype I64 is not one of F32, F16, BF16"));
    assert_int_equal(tensor_store_get(&t, store, "c", &err), NVLLM_ERR_FORMAT);
    assert_non_null(strstr(err.message, "tensor c is missing"));
    tensor_store_prefetch(store);
    tensor_store_close(store);
}

static void store_with_wrong_index_is_refused(void **state)
{
    (void)state;
    write_shard("a.safetensors", HEADER_A);
    write_index("{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}");
    check_refused(folder, NVLLM_ERR_IO, "b.safetensors: No such file");
    write_index("{\"a\":\"a.safetensors\",\"b\":\"a.safetensors\"}");
    check_refused(folder, NVLLM_ERR_FORMAT, "index.json: tensor b is not in a.safetensors");
    write_shard("b.safetensors", HEADER_B);
    write_index("{\"a\":\"b.safetensors\",\"b\":\"a.safetensors\"}");
    check_refused(folder, NVLLM_ERR_FORMAT, "index.json: tensor a is not in b.safetensors");
    write_index("{\"a\":\"../a.safetensors\"}");
    check_refused(folder, NVLLM_ERR_FORMAT, "weight_map of a is not the name of a file beside it");
    write_index("{\"a\":1}");
    check_refused(folder, NVLLM_ERR_FORMAT, "weight_map of a is not the name");
    write_index("{}");
    check_refused(folder, NVLLM_ERR_FORMAT, "weight_map names 0 files");
    write_index("[]");
    check_refused(folder, NVLLM_ERR_FORMAT, "weight_map is missing or not an object");
    write_index("{");
    check_refused(folder, NVLLM_ERR_FORMAT, "not valid JSON");
}

static void store_with_a_tensor_in_two_shards_is_refused(void **state)
{
    (void)state;
    write_shard("a.safetensors", HEADER_A);
    write_shard("b.safetensors", "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                                 "\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]}}");
    write_index("{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}");
    check_refused(folder, NVLLM_ERR_FORMAT, "tensor a is in both");
}

static void store_of_folder_without_weights_is_refused(void **state)
{
    (void)state;
    check_refused(folder, NVLLM_ERR_IO, "holds neither model.safetensors nor model.safetensors.index.json");
    check_refused("/nonexistent/m.gguf", NVLLM_ERR_IO, "/nonexistent/m.gguf: No such file");
}

static void store_of_split_gguf_is_refused(void **state)
{
    (void)state;
    buffer b = {0};
    put_header(&b, 3, 0, 1);
    put_u32(&b, "split.count", 3);
    write_file("m.gguf", b.data, b.len);
    buffer_free(&b);
    char *path = file_join(folder, "m.gguf");
    check_refused(path, NVLLM_ERR_UNSUPPORTED, "one of 3 parts of a split GGUF");
    free(path);
}

/* Every tensor of stories260k: 5 layers of `per_layer` plus the others, all float32 and usable. */
static void check_stories(const char *path, size_t count, const char *embedding, const char *down_format)
{
    tensor_store *store;
    const tensor *t;
    nvllm_error err = {0};
    test_need(path);
    if (tensor_store_open(&store, path, &err)) fail_msg("%s", err.message);
    assert_int_equal(tensor_store_count(store), count);
    assert_int_equal(tensor_store_get(&t, store, embedding, &err), NVLLM_OK);
    assert_true(t->type == DTYPE_F32 && t->n_dims == 2 && t->shape[0] == 512 && t->shape[1] == 64);
    for (int layer = 0; layer < 5; layer++) {
        char name[64];
        snprintf(name, sizeof name, down_format, layer);
        assert_int_equal(tensor_store_get(&t, store, name, &err), NVLLM_OK);
        assert_true(t->n_dims == 2 && t->shape[0] == 64 && t->shape[1] == 172 && t->bytes == 64 * 172 * 4);
    }
    tensor_store_close(store);
}

static void store_of_stories260k_has_every_tensor_in_both_forms(void **state)
{
    (void)state;
    check_stories(TEST_SHARED "/stories260k/hf", 47, "model.embed_tokens.weight",
                  "model.layers.%d.mlp.down_proj.weight");
    check_stories(TEST_SHARED "/stories260k/stories260K.gguf", 48, "token_embd.weight",
                  "blk.%d.ffn_down.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(store_of_shards_finds_tensors_of_all, empty_folder),
        cmocka_unit_test_teardown(store_with_wrong_index_is_refused, empty_folder),
        cmocka_unit_test_teardown(store_with_a_tensor_in_two_shards_is_refused, empty_folder),
        cmocka_unit_test_teardown(store_of_folder_without_weights_is_refused, empty_folder),
        cmocka_unit_test_teardown(store_of_split_gguf_is_refused, empty_folder),
        cmocka_unit_test(store_of_stories260k_has_every_tensor_in_both_forms),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
