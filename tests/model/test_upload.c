/* Bringing weights to a device, here one whose memory is malloc's and whose copies are made as late as allowed: when
 * somebody waits for them. A buffer that is filled again too early therefore shows up as wrong bytes. */
#define _GNU_SOURCE
#include "support/test.h"
#include "model/upload.h"

#define MIB ((size_t)1 << 20)

typedef struct {
    void *to;
    const void *from;
    size_t bytes;
} copy;

typedef struct {
    backend base;
    copy asked[256]; /* [n_asked], of which the first n_done are made */
    int n_asked, n_done, most_waiting;
    int behind[BACKEND_FENCES]; /* copies before the fence */
    void *ring;
    bool freed;
    int fail_copy, fail_fence, fail_wait; /* the call with this number (from 1) fails; 0: none */
    int copies, fences, waits;
} late_device;

static late_device *self(backend *b)
{
    return (late_device *)(void *)b;
}

static nvllm_status late_copy_in(backend *b, void *to, const void *from, size_t bytes, nvllm_error *err)
{
    late_device *d = self(b);
    if (++d->copies == d->fail_copy)
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "copy %d failed", d->copies);
    assert_in_range(d->n_asked, 0, 255);
    d->asked[d->n_asked++] = (copy){to, from, bytes};
    if (d->n_asked - d->n_done > d->most_waiting) d->most_waiting = d->n_asked - d->n_done;
    return NVLLM_OK;
}

static nvllm_status late_fence(backend *b, int i, nvllm_error *err)
{
    late_device *d = self(b);
    assert_in_range(i, 0, BACKEND_FENCES - 1);
    if (++d->fences == d->fail_fence)
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "fence %d failed", d->fences);
    d->behind[i] = d->n_asked;
    return NVLLM_OK;
}

static nvllm_status late_fence_wait(backend *b, int i, nvllm_error *err)
{
    late_device *d = self(b);
    for (; d->n_done < d->behind[i]; d->n_done++)
        memcpy(d->asked[d->n_done].to, d->asked[d->n_done].from, d->asked[d->n_done].bytes);
    if (++d->waits == d->fail_wait) return error_set(err, NVLLM_ERR_UNSUPPORTED, "wait %d failed", d->waits);
    return NVLLM_OK;
}

static void *late_host_alloc(backend *b, size_t bytes)
{
    assert_null(self(b)->ring);
    return self(b)->ring = calloc(1, bytes);
}

static void late_host_free(backend *b, void *memory)
{
    late_device *d = self(b);
    assert_ptr_equal(memory, d->ring);
    free(memory);
    d->freed = true;
}

static void *no_host_alloc(backend *b, size_t bytes)
{
    (void)b;
    (void)bytes;
    return NULL;
}

static const backend_type late_type = {.name = "late",
                                       .copy_in = late_copy_in,
                                       .fence = late_fence,
                                       .fence_wait = late_fence_wait,
                                       .host_alloc = late_host_alloc,
                                       .host_free = late_host_free};

/* ---- Parts --------------------------------------------------------------------------------------------------- */

enum { MAX_PARTS = 64 };

typedef struct {
    upload_part part[MAX_PARTS];
    size_t count, total; /* total: of the block on the device */
} plan;

static void plan_add(plan *p, const void *from, size_t bytes)
{
    p->part[p->count] = (upload_part){from, p->total, bytes, bytes, bytes, "some", (int32_t)p->count};
    p->count++;
    p->total += (bytes + 255) & ~(size_t)255;
}

static uint8_t *random_bytes(size_t n)
{
    uint8_t *bytes = malloc(n);
    uint64_t state = 42;
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(state >> 56);
    }
    return bytes;
}

/* Weights of very different sizes: some fill many chunks, some share one. */
static plan mixed_plan(const uint8_t *bytes)
{
    static const size_t sizes[] = {9 * MIB + 17, 1,       255,           256,   257,    3 * MIB,
                                   100,          2 * MIB, 2 * MIB - 256, 40000, 7 * MIB};
    plan p = {0};
    for (size_t i = 0, at = 0; i < sizeof sizes / sizeof *sizes; at += sizes[i++])
        plan_add(&p, bytes + at, sizes[i]);
    return p;
}

static void check_arrived(const plan *p, const uint8_t *block)
{
    for (size_t i = 0; i < p->count; i++)
        if (memcmp(block + p->part[i].offset, p->part[i].from, p->part[i].bytes) != 0)
            fail_msg("part %zu of %zu bytes differs", i, p->part[i].bytes);
}

/* ---- Tests --------------------------------------------------------------------------------------------------- */

static void upload_brings_every_byte_to_its_place(void **state)
{
    (void)state;
    uint8_t *bytes = random_bytes(24 * MIB);
    for (int threads = 1; threads <= 64; threads *= 4) {
        late_device d = {.base = {.type = &late_type}};
        plan p = mixed_plan(bytes);
        uint8_t *block = calloc(1, p.total);
        assert_non_null(block);
        assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, NULL, threads, NULL),
                         NVLLM_OK);
        check_arrived(&p, block);
        assert_int_equal(d.n_done, d.n_asked);
        assert_in_range(d.most_waiting, 2, BACKEND_FENCES); /* reading and copying overlap, within the ring */
        assert_true(d.freed);
        free(block);
    }
    free(bytes);
}

/* Chunks that begin and end in rows and between them. */
static void upload_brings_rows_to_places_further_apart(void **state)
{
    (void)state;
    static const struct {
        size_t rows, bytes, apart;
    } parts[] = {{5000, 952, 960}, {3, 34, 48}, {90000, 34, 48}, {7000, 612, 624}, {100000, 10, 48}};
    enum { N = sizeof parts / sizeof *parts };
    uint8_t *bytes = random_bytes(14 * MIB), *at = bytes;
    plan p = {0};
    late_device d = {.base = {.type = &late_type}};
    for (size_t i = 0; i < N; at += parts[i].rows * parts[i].bytes, i++) {
        plan_add(&p, at, parts[i].rows * parts[i].apart);
        p.part[i].row_bytes = parts[i].bytes;
        p.part[i].row_apart = parts[i].apart;
    }
    assert_true(at <= bytes + 14 * MIB);
    uint8_t *block = malloc(p.total);
    assert_non_null(block);
    memset(block, 0xff, p.total);
    assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, NULL, 4, NULL), NVLLM_OK);
    for (size_t i = 0; i < N; i++)
        for (size_t r = 0; r < parts[i].rows; r++)
            if (memcmp(block + p.part[i].offset + r * parts[i].apart,
                       (const uint8_t *)p.part[i].from + r * parts[i].bytes, parts[i].bytes) != 0)
                fail_msg("part %zu: row %zu of %zu bytes differs", i, r, parts[i].bytes);
    for (size_t i = 0; i < N; i++)
        for (size_t b = 0; b < p.part[i].bytes; b++)
            if (b % parts[i].apart >= parts[i].bytes) assert_int_equal(block[p.part[i].offset + b], 0);
    free(block);
    free(bytes);
}

static void upload_of_one_byte_and_of_nothing(void **state)
{
    (void)state;
    late_device d = {.base = {.type = &late_type}};
    plan p = {0};
    uint8_t block[256] = {0};
    assert_int_equal(upload_parts(&d.base, block, 0, p.part, 0, NULL, 0, NULL), NVLLM_OK);
    plan_add(&p, "x", 1);
    assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, NULL, 0, NULL), NVLLM_OK);
    assert_int_equal(block[0], 'x');
    assert_int_equal(d.copies, 1);
}

static void upload_reads_a_stores_files(void **state)
{
    (void)state;
    late_device d = {.base = {.type = &late_type}};
    tensor_store *store;
    plan p = {0};
    assert_int_equal(tensor_store_open(&store, TEST_FIXTURES "/families/llama-gqa2-f32", NULL), NVLLM_OK);
    for (size_t i = 0; i < tensor_store_count(store) && i < MAX_PARTS; i++)
        plan_add(&p, tensor_store_at(store, i)->data, tensor_store_at(store, i)->bytes);
    uint8_t *block = calloc(1, p.total);
    assert_non_null(block);
    assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, store, 2, NULL), NVLLM_OK);
    check_arrived(&p, block);
    free(block);
    tensor_store_close(store);
}

/* A folder whose model.safetensors holds one tensor of n bytes. */
static void write_model(char *folder, const uint8_t *bytes, size_t n)
{
    enum { HEADER = 128 };
    char path[64], header[HEADER + 1];
    const uint64_t size = HEADER;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(header, sizeof header, "{\"w\":{\"dtype\":\"F32\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}",
             n / 4, n);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(&size, sizeof size, 1, f), 1);
    fprintf(f, "%-*s", HEADER, header);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void upload_of_a_file_that_was_cut_names_weight_and_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/nvllm-upload-XXXXXX", path[64];
    late_device d = {.base = {.type = &late_type}};
    uint8_t *bytes = random_bytes(12 * MIB), *block;
    tensor_store *store;
    nvllm_error err = {0};
    plan p = {0};
    write_model(folder, bytes, 12 * MIB);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(tensor_store_open(&store, folder, &err), NVLLM_OK);
    plan_add(&p, tensor_store_at(store, 0)->data, tensor_store_at(store, 0)->bytes);
    block = calloc(1, p.total);
    assert_non_null(block);
    assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, store, 3, &err), NVLLM_OK);
    assert_memory_equal(block, bytes, 12 * MIB);
    assert_int_equal(truncate(path, 7 * (off_t)MIB), 0);
    d = (late_device){.base = {.type = &late_type}};
    assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, store, 3, &err), NVLLM_ERR_IO);
    assert_non_null(strstr(err.message, "weight some of layer 0: "));
    assert_non_null(strstr(err.message, "model.safetensors"));
    assert_non_null(strstr(err.message, "the file became shorter"));
    assert_int_equal(d.n_done, d.n_asked);
    tensor_store_close(store);
    unlink(path);
    rmdir(folder);
    free(block);
    free(bytes);
}

static void upload_ends_with_the_devices_sentence(void **state)
{
    (void)state;
    static const struct {
        int copy, fence, wait;
        const char *says;
    } cases[] = {{1, 0, 0, "copy 1 failed"},    {5, 0, 0, "copy 5 failed"}, {0, 1, 0, "fence 1 failed"},
                 {0, 12, 0, "fence 12 failed"}, {0, 0, 1, "wait 1 failed"}, {0, 0, 7, "wait 7 failed"}};
    uint8_t *bytes = random_bytes(24 * MIB);
    plan p = mixed_plan(bytes);
    uint8_t *block = calloc(1, p.total);
    assert_non_null(block);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        late_device d = {.base = {.type = &late_type},
                         .fail_copy = cases[i].copy,
                         .fail_fence = cases[i].fence,
                         .fail_wait = cases[i].wait};
        nvllm_error err = {0};
        assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, NULL, 4, &err),
                         NVLLM_ERR_UNSUPPORTED);
        assert_string_equal(err.message, cases[i].says);
        assert_true(d.freed);
    }
    free(block);
    free(bytes);
}

static void upload_without_pinned_memory_is_out_of_memory(void **state)
{
    (void)state;
    backend_type poor = late_type;
    poor.host_alloc = no_host_alloc;
    late_device d = {.base = {.type = &poor}};
    nvllm_error err = {0};
    uint8_t block[256];
    plan p = {0};
    plan_add(&p, "x", 1);
    assert_int_equal(upload_parts(&d.base, block, p.total, p.part, p.count, NULL, 0, &err), NVLLM_ERR_MEMORY);
    assert_non_null(strstr(err.message, "page-locked"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(upload_brings_every_byte_to_its_place),
                                       cmocka_unit_test(upload_brings_rows_to_places_further_apart),
                                       cmocka_unit_test(upload_of_one_byte_and_of_nothing),
                                       cmocka_unit_test(upload_reads_a_stores_files),
                                       cmocka_unit_test(upload_of_a_file_that_was_cut_names_weight_and_file),
                                       cmocka_unit_test(upload_ends_with_the_devices_sentence),
                                       cmocka_unit_test(upload_without_pinned_memory_is_out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
