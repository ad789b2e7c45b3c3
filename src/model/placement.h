/* Where a model's weights and a step's arrays lie for a backend: the host's own memory, or copies on the device.
 *
 * With a backend that shares the host's memory nothing is copied and everything here is a view. */
#ifndef NVLLM_MODEL_PLACEMENT_H
#define NVLLM_MODEL_PLACEMENT_H

#include "backend/backend.h"
#include "model/model.h"
#include "model/step.h"

typedef struct {
    backend *backend;
    weights weights; /* a table whose data pointers are the backend's */
    const float *inv_freq;
    void *block; /* one device block for all of the above; NULL: views */
    size_t block_bytes;
    int32_t *step_ints, *host_ints; /* the step's arrays on the device, and their staging copy */
    size_t step_bytes;
    void *edits; /* the draws' penalties, biases and bans on the device */
    size_t edit_bytes;
    float *host_logits; /* [max_logits, V] */
} placement;

nvllm_status placement_open(placement *out, const model *m, backend *b, int32_t max_tokens,
                            int32_t max_logits, int32_t page_entries, nvllm_error *err);
void placement_close(placement *p);

/* Bytes of the device's memory that the weights take; 0: they stay where they are. */
size_t placement_weight_bytes(const model *m, const backend *b);
/* And the arrays of a step. */
size_t placement_step_bytes(int32_t max_tokens, int32_t max_logits, int32_t page_entries);

/* The step with pointers that the backend's ops can read. On a device of its own memory: of the page table the first
 * `columns`, and `rows` rows: where these are more than the step has (every row with one token and one draw), the last row
 * again and again. It writes the same into the same slot of the cache, and its draws have results of their own. */
nvllm_status placement_step(placement *p, batch *out, const batch *step, int32_t rows, int32_t columns,
                            nvllm_error *err);

/* Logits that the host can read and change: [N, V]. */
nvllm_status placement_logits(placement *p, float **out, float *device, int32_t N, int32_t V,
                              nvllm_error *err);

#endif
