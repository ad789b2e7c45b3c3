/* One .safetensors file: 8 bytes of header length (little-endian), a JSON header, then the tensors' bytes.
 *
 * Everything is checked at open, as strictly as the reference library does: the header inside the file and at most
 * 100 MB, valid JSON without duplicate keys, offsets inside the file, in order, without overlap or hole, and as many
 * bytes as shape and dtype need. __metadata__ is ignored. Other dtypes than F32, F16, BF16 are listed, marked
 * `refused`. Layout: https://huggingface.co/docs/safetensors */
#ifndef NVLLM_FORMATS_SAFETENSORS_H
#define NVLLM_FORMATS_SAFETENSORS_H

#include "base/error.h"
#include "base/file.h"
#include "formats/tensor.h"

typedef struct safetensors safetensors;

/* Maps and checks `path`. On failure *out is NULL. */
nvllm_status safetensors_open(safetensors **out, const char *path, nvllm_error *err);

/* The same from bytes that the caller keeps alive and unchanged until close; `name` is used in sentences. */
nvllm_status safetensors_parse(safetensors **out, const uint8_t *data, size_t size, const char *name,
                               nvllm_error *err);
void safetensors_close(safetensors *file);

size_t safetensors_count(const safetensors *file);
const tensor *safetensors_at(const safetensors *file, size_t index); /* in the order of their bytes */
file_map safetensors_map(const safetensors *file);                   /* the whole file's bytes */

#endif
