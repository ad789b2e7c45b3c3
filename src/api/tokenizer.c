/* The tokenizer handle: opened from any model source, without the weights. */
#include "api/handles.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)NVLLM_ADD_SPECIAL == (int)TOKENIZER_ADD_SPECIAL, "flags are passed through");
_Static_assert((int)NVLLM_PARSE_SPECIAL == (int)TOKENIZER_PARSE_SPECIAL, "flags are passed through");
_Static_assert((int)NVLLM_SKIP_SPECIAL == (int)TOKENIZER_SKIP_SPECIAL, "flags are passed through");

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static nvllm_status open_gguf(tokenizer **out, const char *path, nvllm_error *err)
{
    gguf *file;
    nvllm_status st = gguf_open(&file, path, err);
    if (st) return st;
    st = tokenizer_of_gguf(out, file, err);
    gguf_close(file);
    return st;
}

static nvllm_status open_source(tokenizer **out, const char *source, nvllm_error *err)
{
    if (file_exists(source) && !ends_with(source, ".gguf")) return tokenizer_open(out, source, err);
    model_source found;
    nvllm_status st = model_source_resolve(&found, source, err);
    if (st) return st;
    st = found.kind == MODEL_GGUF ? open_gguf(out, found.path, err) : tokenizer_open(out, found.path, err);
    model_source_free(&found);
    return st;
}

nvllm_status nvllm_tokenizer_open(nvllm_tokenizer **out, const char *source, nvllm_error *err)
{
    nvllm_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return error_memory(err, sizeof *t, "a tokenizer");
    nvllm_status st = open_source(&t->tokenizer, source, err);
    if (st) {
        free(t);
        return st;
    }
    *out = t;
    return NVLLM_OK;
}

void nvllm_tokenizer_close(nvllm_tokenizer *t)
{
    if (!t) return;
    tokenizer_close(t->tokenizer);
    free(t);
}

const char *nvllm_tokenizer_note(const nvllm_tokenizer *t)
{
    return tokenizer_note(t->tokenizer);
}

nvllm_status nvllm_tokenize(const nvllm_tokenizer *t, const char *text, size_t len, unsigned flags,
                            int32_t **ids, size_t *n_ids, nvllm_error *err)
{
    return tokenizer_encode(t->tokenizer, text, len, flags, ids, n_ids, err);
}

nvllm_status nvllm_detokenize(const nvllm_tokenizer *t, const int32_t *ids, size_t n_ids, unsigned flags,
                              char **text, size_t *len, nvllm_error *err)
{
    buffer b = {0};
    nvllm_status st = tokenizer_decode(t->tokenizer, ids, n_ids, flags, &b, err);
    size_t n = b.len;
    char *made = st ? NULL : buffer_take(&b);
    if (!st && !made) st = error_memory(err, n, "text");
    if (st) {
        buffer_free(&b);
        return st;
    }
    *text = made;
    *len = n;
    return NVLLM_OK;
}

nvllm_status nvllm_token_bytes(const nvllm_tokenizer *t, int32_t id, char **bytes, size_t *len,
                               nvllm_error *err)
{
    buffer b = {0};
    nvllm_status st = tokenizer_token_bytes(t->tokenizer, id, &b, err);
    size_t n = b.len;
    char *made = st ? NULL : buffer_take(&b);
    if (!st && !made) st = error_memory(err, n, "a token");
    if (st) {
        buffer_free(&b);
        return st;
    }
    *bytes = made;
    *len = n;
    return NVLLM_OK;
}
