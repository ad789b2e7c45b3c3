/* Pre-tokenizers by the name that a GGUF gives in tokenizer.ggml.pre.
 *
 * Names and what they stand for are those of llama.cpp (src/llama-vocab.cpp, MIT). Regular expressions are the
 * models' own (tokenizer.json) where llama.cpp quotes them beside an approximation of its own, and Qwen's NFC is
 * applied, which llama.cpp leaves out; both show only in rare characters.
 * Not here, and so refused by name: the names that need more than regular expressions over byte-level BPE (gemma4,
 * granite-embed-multi-311m, sarvam-moe, whitespace, kimi-k2, afmoe, tiny_aya, cohere2moe). No architecture that we
 * run has them. */
#ifndef NVLLM_TEXT_TOK_NAMED_PRE_H
#define NVLLM_TEXT_TOK_NAMED_PRE_H

#include <stdbool.h>
#include <stddef.h>

#define TOK_NAMED_REGEXES 6

typedef struct {
    const char *names;                    /* separated by spaces, with one at either end */
    const char *regex[TOK_NAMED_REGEXES]; /* Oniguruma; applied one after the other, matches isolated */
    bool ignore_merges;                   /* a piece that is a token is not merged */
    bool nfc;
    bool add_bos; /* where the file does not say */
} tok_named_pre;

const tok_named_pre *tok_named_pre_find(const char *name); /* NULL: not known */

/* `list` has words separated by spaces, with one at either end: is `word` one of them? */
bool tok_is_listed(const char *list, const char *word, size_t len);

#endif
