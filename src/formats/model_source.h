/* What the user's MODEL means: a Hugging Face folder, a .gguf file, or org/name[@revision] in the Hugging Face cache,
 * which is shared with the Python tools. Nothing is downloaded here.
 *
 * An existing path wins over a cache entry of the same name. The cache is looked up as huggingface_hub does:
 * $HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else
 * ~/.cache/huggingface/hub; in it models--{org}--{name}/refs/{revision} (default main) holds the commit whose files
 * are in snapshots/{commit}. A revision may also be that commit's hash. */
#ifndef NVLLM_FORMATS_MODEL_SOURCE_H
#define NVLLM_FORMATS_MODEL_SOURCE_H

#include "base/error.h"

typedef enum { MODEL_HF_FOLDER, MODEL_GGUF } model_kind;

typedef struct {
    char *path; /* absolute: the folder, or the .gguf file */
    model_kind kind;
} model_source;

/* Not found: one sentence that lists where it looked. */
nvllm_status model_source_resolve(model_source *out, const char *model, nvllm_error *err);

/* The same with the cache folder given (tests, options); NULL: there is no cache. */
nvllm_status model_source_resolve_in(model_source *out, const char *model, const char *cache,
                                     nvllm_error *err);
void model_source_free(model_source *source);

/* The cache folder that the environment names (free); NULL: it names none, or out of memory. The only function here
 * that reads the environment. */
char *model_cache_dir(void);

#endif
