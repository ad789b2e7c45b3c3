/* The parts of a tokenizer, for the files that build one (tokenizer_json, tokenizer_sentencepiece,
 * tokenizer_spec) and the one that runs it (tokenizer.c). */
#ifndef NVLLM_TEXT_TOKENIZER_PARTS_H
#define NVLLM_TEXT_TOKENIZER_PARTS_H

#include "text/tokenizer/added.h"
#include "text/tokenizer/decode.h"
#include "text/tokenizer/model.h"
#include "text/tokenizer/normalize.h"
#include "text/tokenizer/pretokenize.h"
#include "text/tokenizer.h"

struct tokenizer {
    tok_added added;
    tok_normalizer normalizer;
    tok_pretokenizer pretokenizer;
    tok_model model;
    tok_decoder decoder;
    tok_ids before, after; /* what TOKENIZER_ADD_SPECIAL puts around the text */
    int32_t vocab_size, bos, eos;
    const char *note; /* a string constant, or NULL */
};

nvllm_status tokenizer_new(tokenizer **out, nvllm_error *err);

/* The last step of every builder: search tables, vocab_size, and the ids in before, after, bos and eos checked.
 * `added_normalizer` is applied to the strings of added tokens that are searched in normalized text. */
nvllm_status tokenizer_finish(tokenizer *t, const tok_normalizer *added_normalizer, nvllm_error *err);

/* SentencePiece's normalizer and the decoder that undoes it, for a model in t. */
typedef struct {
    bool squeeze;      /* remove_extra_whitespaces */
    bool space_prefix; /* add_dummy_prefix */
} tokenizer_spm_options;

nvllm_status tokenizer_spm_parts(tokenizer *t, tokenizer_spm_options options, nvllm_error *err);
nvllm_status tokenizer_spm_finish(tokenizer *t, nvllm_error *err);

/* One piece of a SentencePiece vocabulary, in id order; `type` as in tokenizer.h. */
nvllm_status tokenizer_spm_piece(tokenizer *t, tokenizer_text piece, double score, int32_t type,
                                 nvllm_error *err);

#endif
