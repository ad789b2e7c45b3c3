/* What a model takes of a device's memory, known before any of it is taken: arithmetic on shapes, nothing is measured.
 *
 * The runner allocates by the same figures, but for a device's rounding (some MB) and for what its driver and library
 * take when kernels are loaded and steps recorded; the headroom of api/engine_options.c is for those. */
#ifndef NVLLM_MODEL_MEMORY_PLAN_H
#define NVLLM_MODEL_MEMORY_PLAN_H

#include "model/runner.h"

typedef struct {
    size_t weights;     /* copies on the device; 0: the backend reads the model's own */
    size_t kv;          /* options.pages pages */
    size_t activations; /* and the step's arrays */
    size_t scratch;     /* of the kernels */
} memory_plan;

memory_plan memory_plan_of(const model *m, backend *b, const runner_options *options);
size_t memory_plan_sum(const memory_plan *p);

/* The largest step of these options. */
backend_shape memory_plan_shape(const model *m, const runner_options *options);

#endif
