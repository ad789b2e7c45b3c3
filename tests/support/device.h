/* What the tests on the GPU share: the opened device, arrays there, and the comparison with the reference.
 *
 * A test builds an op's args twice: with host pointers for the reference's function, and with device_copy'd pointers
 * for the GPU's. Without a usable GPU every such test program ends with 77 and the reason: call device_open in main. */
#ifndef NVLLM_TEST_DEVICE_H
#define NVLLM_TEST_DEVICE_H

#include "backend/backend.h"
#include "ops/op_check.h"

typedef struct {
    backend *backend;
    void *memory[4096]; /* freed by device_release */
    int count;
} device;

/* false: there is no usable GPU, and the reason has been printed; main returns 77. */
static inline bool device_open(device *d)
{
    nvllm_error err = {0};
    *d = (device){0};
    if (backend_open(&d->backend, "cuda", &(backend_options){0}, &err) == NVLLM_OK) return true;
    printf("SKIP: %s\n", err.message);
    return false;
}

/* tests/emulator plays the GPU: large shapes would take minutes, and times say nothing. */
static inline bool device_is_emulated(const device *d)
{
    return strncmp(d->backend->isa, "emulated", 8) == 0;
}

/* A size of a test: the usual one, or a smaller one there. */
static inline int32_t device_size(const device *d, int32_t usual, int32_t emulated)
{
    return device_is_emulated(d) ? emulated : usual;
}

/* Every third of a product of shapes is run there: by the sum of their indices, so that each meets each. */
static inline bool device_leaves_out(const device *d, size_t sum_of_indices)
{
    return device_is_emulated(d) && sum_of_indices % 3 != 0;
}

/* Scratch for ops of this shape; call once before the ops of a test. */
static inline void device_reserve(device *d, const backend_shape *shape)
{
    nvllm_error err = {0};
    if (d->backend->type->reserve_scratch(d->backend, shape, &err)) fail_msg("%s", err.message);
}

static inline void *device_alloc(device *d, size_t bytes)
{
    void *p = d->backend->type->alloc(d->backend, bytes);
    assert_non_null(p);
    assert_true(d->count < (int)(sizeof d->memory / sizeof *d->memory));
    return d->memory[d->count++] = p;
}

static inline void *device_copy(device *d, const void *from, size_t bytes)
{
    void *p = device_alloc(d, bytes);
    assert_int_equal(d->backend->type->copy_in(d->backend, p, from, bytes, NULL), NVLLM_OK);
    return p;
}

/* The weight there as model/placement.c lays it out: rows of Q8_0 at multiples of 16 bytes, with zeros between them. */
static inline weight device_weight(device *d, const weight *host)
{
    size_t row = dtype_row_bytes(host->format, host->cols), apart = row;
    if (host->format == DTYPE_Q8_0) apart = (row + 15) / 16 * 16;
    uint8_t *rows = calloc((size_t)host->rows, apart);
    assert_non_null(rows);
    for (size_t r = 0; r < (size_t)host->rows; r++)
        memcpy(rows + r * apart, (const uint8_t *)host->data + r * row, row);
    weight there = *host;
    there.data = device_copy(d, rows, apart * (size_t)host->rows);
    there.row_bytes = apart;
    free(rows);
    return there;
}

/* Waits for the ops before it; fails with the device's sentence. */
static inline void device_read(device *d, void *to, const void *from, size_t bytes)
{
    nvllm_error err = {0};
    if (d->backend->type->copy_out(d->backend, to, from, bytes, &err)) fail_msg("%s", err.message);
}

static inline void device_run(device *d, op_kind kind, const op_args *args)
{
    assert_non_null(d->backend->type->op[kind]);
    d->backend->type->op[kind](d->backend, args);
}

/* Frees what device_alloc and device_copy took: at the end of a test. */
static inline void device_release(device *d)
{
    while (d->count > 0) d->backend->type->free(d->backend, d->memory[--d->count], 0);
}

static inline void device_close(device *d)
{
    device_release(d);
    backend_close(d->backend);
}

/* ||got - want|| / ||want||, which must be at most `bound`; NaN fails. Returns it. */
static inline double device_check(const float *got, const float *want, size_t n, double bound,
                                  const char *what)
{
    double gap = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        gap += d * d;
        size += (double)want[i] * (double)want[i];
    }
    double error = sqrt(gap / (size > 0 ? size : 1));
    if (!(error <= bound)) fail_msg("%s: relative error %.3g, at most %.3g is allowed", what, error, bound);
    return error;
}

#endif
