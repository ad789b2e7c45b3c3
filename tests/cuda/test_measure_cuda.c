/* What the GPU is measured with: marks around work, and its limits. */
#include "support/device.h"

#include <stdbool.h>

static device gpu;

/* The rest of a test is about time, which says nothing where tests/emulator plays the GPU. */
static void skip_times_if_emulated(void)
{
    if (!device_is_emulated(&gpu)) return;
    print_message("an emulated GPU: its times are left alone\n");
    skip();
}

static void marks_of_the_gpu_measure_what_lies_between(void **state)
{
    (void)state;
    backend *b = gpu.backend;
    size_t bytes = (size_t)256 << 20;
    char *from = malloc(bytes), *to = device_alloc(&gpu, bytes);
    assert_non_null(from);
    memset(from, 1, bytes);
    assert_true(b->type->mark(b, 0));
    assert_true(b->type->mark(b, 1));
    assert_int_equal(b->type->copy_in(b, to, from, bytes, NULL), NVLLM_OK);
    assert_true(b->type->mark(b, 5000)); /* far beyond the first table */
    double nothing = b->type->between(b, 0, 1), copy = b->type->between(b, 1, 5000);
    print_message("marks: empty %.2f us, copy of 256 MiB %.0f us\n", nothing, copy);
    free(from);
    device_release(&gpu);
    assert_true(nothing >= 0 && copy >= 0);
    skip_times_if_emulated();
    assert_true(nothing < 1000);
    assert_true(copy > 500 && copy < 2e6); /* 0.13 to 500 GB/s */
}

static void pause_hides_what_the_host_takes(void **state)
{
    (void)state;
    backend *b = gpu.backend;
    assert_true(b->type->mark(b, 0));
    b->type->pause(b, 5000);
    assert_true(b->type->mark(b, 1));
    assert_true(b->type->mark(b, 2));
    assert_true(b->type->mark(b, 3));
    double pause = b->type->between(b, 0, 1), first = b->type->between(b, 1, 2),
           second = b->type->between(b, 2, 3);
    print_message("pause of 5000 us: %.0f us; marks after it cost %.2f and %.2f us\n", pause, first, second);
    assert_true(pause > 4900 && second >= 0);
    skip_times_if_emulated();
    assert_true(pause < 50000);
    assert_true(second < 20);
}

/* Lists of a model's number of kernels. */
static void record_list(int32_t key, float *x, int kernels)
{
    const backend_type *type = gpu.backend->type;
    nvllm_error err = {0};
    type->record(gpu.backend);
    for (int i = 0; i < kernels; i++)
        device_run(&gpu, OP_SILU_MUL, &(op_args){.silu_mul = {x + 2, x, x + 1, 1, 2, 1, 1}});
    if (type->record_end(gpu.backend, key, &err)) fail_msg("%s", err.message);
}

static void lists_make_room_for_others_and_fit_the_headroom(void **state)
{
    (void)state;
    enum { KERNELS = 150, HEADROOM = 400 << 20 }; /* of 512 MiB, which hold the kernels themselves, too */
    const backend_type *type = gpu.backend->type;
    int kernels = device_size(&gpu, KERNELS, 2);
    float *x = device_alloc(&gpu, 3 * sizeof *x), got;
    size_t before, after, total;
    record_list(1, x, kernels);
    assert_true(type->replay(gpu.backend, 1));
    device_read(&gpu, &got, x, sizeof got);
    type->memory(gpu.backend, &before, &total);
    for (int32_t key = 2; key <= BACKEND_KEPT_LISTS; key++) record_list(key, x, kernels);
    for (int32_t key = BACKEND_KEPT_LISTS; key > 0; key--)
        if (key != 7) assert_true(type->replay(gpu.backend, key));
    record_list(BACKEND_MAX_RECORDED, x, kernels); /* for which 7 makes room */
    for (int32_t key = 1; key <= BACKEND_KEPT_LISTS; key++)
        assert_true(type->replay(gpu.backend, key) == (key != 7));
    record_list(7, x, kernels); /* and for this one the list of that key, which was not replayed */
    assert_false(type->replay(gpu.backend, BACKEND_MAX_RECORDED));
    assert_true(type->replay(gpu.backend, 7));
    device_read(&gpu, &got, x, sizeof got);
    type->memory(gpu.backend, &after, &total);
    device_release(&gpu);
    skip_times_if_emulated();
    print_message("recorded lists: %.1f KiB for a list of %d kernels\n",
                  (double)(before - after) / 1024 / BACKEND_KEPT_LISTS, KERNELS);
    assert_true(before - after < HEADROOM);
}

/* What is measured takes an emulated GPU hours: there it gets too little memory for that. */
static void limits_of_the_gpu_are_measured(void **state)
{
    (void)state;
    bool emulated = device_is_emulated(&gpu);
    size_t left, total;
    gpu.backend->type->memory(gpu.backend, &left, &total);
    if (emulated) device_alloc(&gpu, left - ((size_t)200 << 20));
    backend_limits limits = backend_measure(gpu.backend);
    print_message("%s (%s): reads %.0f GB/s, bf16 products %.0f GFLOP/s\n", gpu.backend->isa, gpu.backend->id,
                  limits.read_bytes_per_s * 1e-9, limits.bf16_flops * 1e-9);
    assert_memory_equal(gpu.backend->id, "GPU-", 4);
    assert_int_equal(strlen(gpu.backend->id), 40);
    device_read(&gpu, &limits, device_copy(&gpu, &limits, sizeof limits),
                sizeof limits); /* no error is left */
    device_release(&gpu);
    if (emulated) assert_true(limits.read_bytes_per_s == 0 && limits.bf16_flops == 0);
    skip_times_if_emulated();
    assert_true(limits.read_bytes_per_s > 50e9 && limits.read_bytes_per_s < 50e12);
    assert_true(limits.bf16_flops > 5e12 && limits.bf16_flops < 20e15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_of_the_gpu_measure_what_lies_between),
        cmocka_unit_test(pause_hides_what_the_host_takes),
        cmocka_unit_test(lists_make_room_for_others_and_fit_the_headroom),
        cmocka_unit_test(limits_of_the_gpu_are_measured),
    };
    if (!device_open(&gpu)) return 77;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
