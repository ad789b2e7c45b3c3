/* What every unit test includes: cmocka, and where the fixtures lie.
 *
 * TEST_FIXTURES  tests/fixtures of this checkout (always there)
 * TEST_SHARED    real models and tokenizers (may be missing: call test_need_shared first)
 * Test names state unit, condition and expectation. Fixed seeds only. */
#ifndef NVLLM_TEST_H
#define NVLLM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* Skips the running test, with a reason, where `path` does not exist. */
static inline void test_need(const char *path)
{
    if (access(path, R_OK) == 0) return;
    print_message("[  SKIPPED ] needs %s\n", path);
    skip();
}

#endif
