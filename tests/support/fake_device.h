/* What a backend "with memory of its own" needs besides a backend in the host's memory, for tests that play a device. */
#ifndef NVLLM_TEST_FAKE_DEVICE_H
#define NVLLM_TEST_FAKE_DEVICE_H

#include "backend/backend.h"

#include <stdlib.h>
#include <string.h>

static inline nvllm_status fake_copy(backend *b, void *to, const void *from, size_t bytes, nvllm_error *err)
{
    (void)b;
    (void)err;
    memcpy(to, from, bytes);
    return NVLLM_OK;
}

static inline nvllm_status fake_fence(backend *b, int i, nvllm_error *err)
{
    (void)b;
    (void)i;
    (void)err;
    return NVLLM_OK;
}

static inline void *fake_host_alloc(backend *b, size_t bytes)
{
    (void)b;
    return calloc(1, bytes);
}

static inline void fake_host_free(backend *b, void *memory)
{
    (void)b;
    free(memory);
}

/* Copies that are done at once. */
static inline void fake_device(backend_type *type)
{
    type->copy_in = type->copy_out = fake_copy;
    type->fence = type->fence_wait = fake_fence;
    type->host_alloc = fake_host_alloc;
    type->host_free = fake_host_free;
}

#endif
