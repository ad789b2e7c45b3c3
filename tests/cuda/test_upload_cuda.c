/* Memory and upload on the GPU: every byte arrives, figures of free memory follow what is taken, and a refused
 * allocation leaves the device usable. With --perf: the rate of the upload. */
#define _GNU_SOURCE
#include "support/test.h"
#include "support/device.h"
#include "model/upload.h"

#include <time.h>

static device gpu;
static bool perf;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* [n] words that differ from each other, so that a chunk at the wrong place shows. */
static uint32_t *numbered(size_t n)
{
    uint32_t *words = malloc(n * sizeof *words);
    assert_non_null(words);
    for (size_t i = 0; i < n; i++) words[i] = (uint32_t)i * 2654435761u;
    return words;
}

static void upload_brings_every_byte_to_the_gpu(void **state)
{
    (void)state;
    static const size_t words[] = {1, 63, 64, 1 << 19, (1 << 19) + 1, 7000001, 12345, 5, 3 << 20};
    enum { N = sizeof words / sizeof *words };
    upload_part part[N];
    size_t all = 0, total = 0;
    for (size_t i = 0; i < N; i++) all += words[i];
    uint32_t *from = numbered(all), *to;
    for (size_t i = 0, at = 0; i < N; at += words[i++]) {
        part[i] =
            (upload_part){from + at, total, words[i] * 4, words[i] * 4, words[i] * 4, "words", (int32_t)i};
        total += (words[i] * 4 + 255) & ~(size_t)255;
    }
    for (int threads = 1; threads <= 8; threads *= 2) {
        nvllm_error err = {0};
        uint8_t *block = device_alloc(&gpu, total);
        if (upload_parts(gpu.backend, block, total, part, N, NULL, threads, &err))
            fail_msg("%s", err.message);
        to = malloc(total);
        assert_non_null(to);
        device_read(&gpu, to, block, total);
        for (size_t i = 0; i < N; i++)
            if (memcmp((uint8_t *)to + part[i].offset, part[i].from, part[i].bytes) != 0)
                fail_msg("%d threads: part %zu of %zu bytes differs", threads, i, part[i].bytes);
        free(to);
        device_release(&gpu);
    }
    free(from);
}

static void upload_rate(void **state)
{
    (void)state;
    const size_t words = (size_t)300 << 20;
    if (!perf) skip();
    uint32_t *from = numbered(words);
    uint8_t *block = device_alloc(&gpu, words * 4);
    upload_part part = {from, 0, words * 4, words * 4, words * 4, "words", 0};
    for (int threads = 1; threads <= 8; threads *= 2)
        for (int again = 0; again < 2; again++) {
            double start = now();
            assert_int_equal(upload_parts(gpu.backend, block, words * 4, &part, 1, NULL, threads, NULL),
                             NVLLM_OK);
            double took = now() - start;
            printf("upload of %.2f GB, %d threads: %.1f ms, %.1f GB/s\n", (double)words * 4e-9, threads,
                   took * 1e3, (double)words * 4e-9 / took);
        }
    double start = now();
    assert_int_equal(gpu.backend->type->copy_in(gpu.backend, block, from, words * 4, NULL), NVLLM_OK);
    device_read(&gpu, from, block, 4);
    printf("one pageable copy of the same: %.1f ms\n", (now() - start) * 1e3);
    device_release(&gpu);
    free(from);
}

static void memory_shrinks_by_what_is_taken(void **state)
{
    (void)state;
    const size_t bytes = (size_t)256 << 20;
    size_t before, total, after, again;
    gpu.backend->type->memory(gpu.backend, &before, &total);
    assert_true(before > 0 && before <= total);
    device_alloc(&gpu, bytes);
    gpu.backend->type->memory(gpu.backend, &after, &total);
    assert_true(before - after >= bytes);
    device_release(&gpu);
    gpu.backend->type->memory(gpu.backend, &again, &total);
    assert_true(again >= after + bytes);
}

static void allocation_that_is_refused_leaves_the_device_usable(void **state)
{
    (void)state;
    nvllm_error err = {0};
    size_t left, total;
    uint32_t in = 42, out = 0;
    gpu.backend->type->memory(gpu.backend, &left, &total);
    assert_null(gpu.backend->type->alloc(gpu.backend, total + ((size_t)1 << 30)));
    assert_int_equal(backend_out_of_memory(gpu.backend, total, "a test", &err), NVLLM_ERR_MEMORY);
    assert_non_null(strstr(err.message, "GB are free"));
    printf("%s\n", err.message);
    device_read(&gpu, &out, device_copy(&gpu, &in, sizeof in), sizeof out);
    assert_int_equal(out, 42);
    device_release(&gpu);
}

static void gpu_that_is_not_there_is_named(void **state)
{
    (void)state;
    backend *b = NULL;
    nvllm_error err = {0};
    assert_int_equal(backend_open(&b, "cuda:1000", &(backend_options){0}, &err), NVLLM_ERR_USAGE);
    assert_non_null(strstr(err.message, "there is no GPU 1000"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(upload_brings_every_byte_to_the_gpu),
                                       cmocka_unit_test(upload_rate),
                                       cmocka_unit_test(memory_shrinks_by_what_is_taken),
                                       cmocka_unit_test(allocation_that_is_refused_leaves_the_device_usable),
                                       cmocka_unit_test(gpu_that_is_not_there_is_named)};
    double start = now();
    backend_prepare("cuda");
    double prepared = now();
    if (!device_open(&gpu)) return 77;
    perf = argc > 1 && strcmp(argv[1], "--perf") == 0;
    if (perf)
        printf("driver and context: %.0f ms, then opening: %.0f ms\n", (prepared - start) * 1e3,
               (now() - prepared) * 1e3);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
