/* All tensors of a model, whatever the files are: a Hugging Face folder (model.safetensors, or the shards of
 * model.safetensors.index.json) or one .gguf. The files stay mapped until the store is closed; every tensor, name
 * and data pointer is borrowed from it. Names are the files' own: mapping them to layers is the model's business. */
#ifndef NVLLM_FORMATS_TENSOR_STORE_H
#define NVLLM_FORMATS_TENSOR_STORE_H

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/tensor.h"

typedef struct tensor_store tensor_store;

/* `path` is a folder or a .gguf file. Checked: every shard of the index exists and holds the tensors that the index
 * says it holds; no name comes twice. On failure *out is NULL. */
nvllm_status tensor_store_open(tensor_store **out, const char *path, nvllm_error *err);
void tensor_store_close(tensor_store *store);

size_t tensor_store_count(const tensor_store *store);
const tensor *tensor_store_at(const tensor_store *store, size_t index); /* sorted by name */
const tensor *tensor_store_find(const tensor_store *store,
                                const char *name); /* NULL: absent; see `refused` */

/* The tensor, usable; absent or refused is an error that names it. */
nvllm_status tensor_store_get(const tensor **out, const tensor_store *store, const char *name,
                              nvllm_error *err);

const char *tensor_store_path(const tensor_store *store); /* as given to open */
const gguf *tensor_store_gguf(const tensor_store *store); /* NULL for a Hugging Face folder */
size_t tensor_store_bytes(const tensor_store *store);     /* mapped, all files */

/* Copies `bytes` from `from`: by reading the file where that is a place in a tensor of the store, else from memory.
 * store: NULL for a model without files. Any thread. */
nvllm_status tensor_store_read(void *to, const tensor_store *store, const void *from, size_t bytes,
                               nvllm_error *err);

/* Asks the kernel to read all files ahead; returns at once. */
void tensor_store_prefetch(const tensor_store *store);

#endif
