/* What an engine's options mean for a model on this machine: defaults, limits, and whether it fits into memory. */
#ifndef NVLLM_API_ENGINE_OPTIONS_H
#define NVLLM_API_ENGINE_OPTIONS_H

#include "api/handles.h"
#include "engine/engine.h"

/* Memory that this process could still get, in bytes; 0: unknown. */
size_t memory_available(void);

/* Fills in defaults; refuses with figures what is out of range or does not fit. */
nvllm_status engine_options_resolve(engine_options *out, const nvllm_engine_options *from, const model *m,
                                    nvllm_error *err);

#endif
