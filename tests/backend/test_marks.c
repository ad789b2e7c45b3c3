/* mark and between, which every backend has. */
#define _GNU_SOURCE
#include "support/test.h"

#include "backend/backend.h"

#include <time.h>

static backend *opened(const char *device)
{
    nvllm_error err = {0};
    backend *b;
    if (backend_open(&b, device, &(backend_options){.threads = 1}, &err)) fail_msg("%s", err.message);
    return b;
}

static void wait_ms(long ms)
{
    nanosleep(&(struct timespec){0, ms * 1000000}, NULL);
}

static void check_marks(const char *device)
{
    backend *b = opened(device);
    assert_true(b->type->mark(b, 0));
    wait_ms(20);
    assert_true(b->type->mark(b, 1));
    assert_true(b->type->mark(b, 100000)); /* far beyond the first table */
    double pause = b->type->between(b, 0, 1), rest = b->type->between(b, 1, 100000);
    assert_true(pause >= 20e3 && pause < 2e6);
    assert_true(rest >= 0 && rest < 1e6);
    assert_true(b->type->between(b, 0, 100000) >= pause);
    assert_true(b->type->mark(b, 0)); /* anew */
    assert_true(b->type->between(b, 0, 1) <= 0);
    backend_close(b);
}

static void marks_of_cpu_and_reference_measure_time(void **state)
{
    (void)state;
    check_marks("cpu");
    check_marks("reference");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_of_cpu_and_reference_measure_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
