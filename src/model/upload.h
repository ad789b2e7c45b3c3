/* Brings a model's weights from their files into a block of the device's memory.
 *
 * A few threads read the files into a small ring of page-locked buffers, and each full buffer goes to the device with a
 * copy that nobody waits for; a buffer is filled again when its copy is done. So reading and copying overlap, no page
 * of the files becomes the process's own, and one thread, the caller's, talks to the device. */
#ifndef NVLLM_MODEL_UPLOAD_H
#define NVLLM_MODEL_UPLOAD_H

#include "backend/backend.h"
#include "formats/tensor_store.h"

/* `bytes` of the block: rows that follow each other in `from`, and in the block are row_apart bytes apart, with zeros in
 * between. */
typedef struct {
    const void *from; /* in the store's files or in memory */
    size_t offset;    /* in the device's block; parts come with rising offsets and do not overlap */
    size_t bytes, row_bytes, row_apart;
    const char *name; /* for sentences: the weight's role */
    int32_t layer;
} upload_part;

/* block: [total] on a device that has fence. What lies between parts is left with any content. threads: most
 * readers; 0: up to eight, one per core. Returns when all is there. */
nvllm_status upload_parts(backend *b, void *block, size_t total, const upload_part *parts, size_t count,
                          const tensor_store *store, int threads, nvllm_error *err);

#endif
