/* Tokenizer: text <-> token ids, as the model's own tokenizer does it.
 *
 * Opened from a Hugging Face folder (tokenizer.json, else SentencePiece's tokenizer.model), from either file,
 * or from the arrays of a GGUF. The oracle is the `tokenizers` package (and `sentencepiece` for
 * tokenizer.model); parts of a tokenizer that we do not know are refused by name when it is opened.
 * A tokenizer is immutable and may be used by any number of threads at once; every call has its own scratch.
 * It does not know chat templates, and it never decides by itself that text of a user is a control token. */
#ifndef NVLLM_TEXT_TOKENIZER_H
#define NVLLM_TEXT_TOKENIZER_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdint.h>

typedef struct tokenizer tokenizer;

nvllm_status tokenizer_open(tokenizer **out, const char *path, nvllm_error *err);
nvllm_status tokenizer_from_json(tokenizer **out, const char *json, size_t len, nvllm_error *err);
nvllm_status tokenizer_from_sentencepiece(tokenizer **out, const void *bytes, size_t len, nvllm_error *err);
void tokenizer_close(tokenizer *t);

typedef struct {
    const char *data; /* not NUL-terminated */
    size_t len;
} tokenizer_text;

/* Token types of GGUF, the same numbers as SentencePiece's. */
enum {
    TOKENIZER_NORMAL = 1,
    TOKENIZER_UNKNOWN = 2,
    TOKENIZER_CONTROL = 3,
    TOKENIZER_USER_DEFINED = 4,
    TOKENIZER_UNUSED = 5,
    TOKENIZER_BYTE = 6
};

/* What a GGUF says about its tokenizer. All pointers are borrowed until tokenizer_from_spec returns. */
typedef struct {
    const char *model; /* "llama" (SentencePiece BPE: scores) or "gpt2" (byte-level BPE: merges) */
    const char *pre;   /* gpt2: name of the pre-tokenizer; NULL means "default", and a note */
    const tokenizer_text *tokens;
    size_t token_count;
    const float *scores;          /* [token_count], llama only */
    const int32_t *types;         /* [token_count], or NULL: all normal */
    const tokenizer_text *merges; /* "left right", gpt2 only */
    size_t merge_count;
    int32_t bos_id, eos_id, unk_id; /* -1: none */
    bool add_bos, add_eos;          /* what TOKENIZER_ADD_SPECIAL adds */
    bool add_space_prefix;          /* llama: text starts with a space */
    bool remove_extra_whitespaces;  /* llama: no spaces at the ends, single ones inside */
} tokenizer_spec;

nvllm_status tokenizer_from_spec(tokenizer **out, const tokenizer_spec *spec, nvllm_error *err);

/* What add_bos is for model "gpt2" with this pre-tokenizer (NULL: none named) where the file does not say. */
bool tokenizer_pre_adds_bos(const char *pre);

enum {
    TOKENIZER_ADD_SPECIAL = 1, /* encode: add what the model expects around the text (BOS, ...) */
    TOKENIZER_PARSE_SPECIAL =
        2, /* encode: special tokens in the text become their ids; otherwise they are text */
    TOKENIZER_SKIP_SPECIAL = 4 /* decode: special tokens give no text */
};

/* *ids is malloc'ed, the caller frees it (never NULL on success). Invalid UTF-8 is NVLLM_ERR_FORMAT and the
 * sentence names the byte; text beyond 256 MiB is NVLLM_ERR_LIMIT. */
nvllm_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ids,
                              size_t *count, nvllm_error *err);

/* Appends the text of ids to *out; always valid UTF-8 (U+FFFD where bytes are not). An id without a token
 * gives no text, as in the reference: models have more logits than tokens. */
nvllm_status tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t count, unsigned flags,
                              buffer *out, nvllm_error *err);

/* Appends the bytes that one token stands for inside a text; they may be part of a character. No such id: none. */
nvllm_status tokenizer_token_bytes(const tokenizer *t, int32_t id, buffer *out, nvllm_error *err);

int32_t tokenizer_vocab_size(const tokenizer *t); /* all ids are below it; there may be holes */
int32_t tokenizer_token_to_id(const tokenizer *t, const char *token, size_t len); /* -1: none */
/* The token's string as the vocabulary has it, not NUL-terminated; NULL: no such id. Lives as long as t. */
const char *tokenizer_id_to_piece(const tokenizer *t, int32_t id, size_t *len);
/* What a user should know about how it was read, a clause that lives as long as t; NULL: nothing. */
const char *tokenizer_note(const tokenizer *t);
bool tokenizer_is_special(const tokenizer *t, int32_t id);
int32_t tokenizer_bos(const tokenizer *t); /* -1: not known */
int32_t tokenizer_eos(const tokenizer *t); /* -1: not known; a model's config may name more */

#endif
