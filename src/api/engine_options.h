/* What an engine's options mean for a model on this machine: defaults, limits, and whether it fits into memory. */
#ifndef NVLLM_API_ENGINE_OPTIONS_H
#define NVLLM_API_ENGINE_OPTIONS_H

#include "api/handles.h"
#include "engine/engine.h"

/* Fills in defaults, for this model on this device; refuses with figures what is out of range. */
nvllm_status engine_options_resolve(engine_options *out, const nvllm_engine_options *from, const model *m,
                                    backend *b, nvllm_error *err);

/* Where the memory is and what is asked of it, in bytes. On the CPU the mapped weights count and nothing is kept free. */
typedef struct {
    memory_plan parts;
    size_t headroom;         /* left for the driver: kernels as they are loaded, recorded steps, rounding */
    size_t available, total; /* of the device's memory, or this machine's; 0: unknown */
} engine_memory;

engine_memory engine_memory_of(const engine_options *o, const model *m, backend *b);
bool engine_memory_fits(const engine_memory *memory);

/* Refuses, with figures and what to change, what does not fit. */
nvllm_status engine_memory_check(const engine_options *o, const model *m, backend *b, nvllm_error *err);

#endif
