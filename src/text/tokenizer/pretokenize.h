/* Pre-tokenizers: cut the text into the pieces that the model sees one by one. A flat list of steps.
 *
 * Split, ByteLevel, Digits, Metaspace, Punctuation, Whitespace, WhitespaceSplit and Sequence as in the
 * reference; others are refused by name when the tokenizer is read. Each step maps pieces to pieces; only
 * ByteLevel and Metaspace change the text. Offsets into the caller's text are not kept, except whether a
 * piece begins at its origin. */
#ifndef NVLLM_TEXT_TOK_PRETOKENIZE_H
#define NVLLM_TEXT_TOK_PRETOKENIZE_H

#include "text/tokenizer/pattern.h"
#include "text/tokenizer/work.h"

typedef enum {
    TOK_SPLIT,       /* at matches of a pattern */
    TOK_BYTE_LEVEL,  /* one printable character per byte */
    TOK_DIGITS,      /* at digits */
    TOK_METASPACE,   /* spaces become a visible character */
    TOK_PUNCTUATION, /* at punctuation */
    TOK_WORDS,       /* Whitespace: runs of \w, runs of neither \w nor \s */
    TOK_SPACE_SPLIT  /* WhitespaceSplit: drop white space */
} tok_pre_kind;

/* What becomes of the text that matched. */
typedef enum {
    TOK_REMOVED,
    TOK_ISOLATED,
    TOK_MERGED_WITH_PREVIOUS,
    TOK_MERGED_WITH_NEXT,
    TOK_CONTIGUOUS
} tok_behavior;

typedef enum { TOK_PREPEND_NEVER, TOK_PREPEND_FIRST, TOK_PREPEND_ALWAYS } tok_prepend;

typedef struct {
    tok_pre_kind kind;
    tok_pattern *pattern; /* Split; ByteLevel with use_regex */
    tok_behavior behavior;
    bool invert;           /* Split: what did not match counts as the match */
    bool add_prefix_space; /* ByteLevel */
    bool split;            /* Metaspace */
    tok_prepend prepend;   /* Metaspace */
    char mark[4];          /* Metaspace: stands for a space */
    size_t mark_len;
} tok_pre_step;

typedef struct {
    tok_pre_step *step;
    size_t count;
} tok_pretokenizer;

extern const char tok_gpt2_regex[]; /* of ByteLevel with use_regex */

/* json null gives the empty list. On failure the list must still be freed. */
nvllm_status tok_pretokenizer_from_json(tok_pretokenizer *p, const json_t *json, nvllm_error *err);
nvllm_status tok_pretokenizer_add(tok_pretokenizer *p, tok_pre_step step,
                                  nvllm_error *err); /* owns step, always */
void tok_pretokenizer_free(tok_pretokenizer *p);

/* Cuts pieces->span in place, through the spare list `other`; both keep their memory for the next call. */
nvllm_status tok_pretokenize(const tok_pretokenizer *p, tok_work *w, tok_pieces *pieces, tok_pieces *other,
                             nvllm_error *err);

/* {"type": "Metaspace"} of a pre-tokenizer or decoder: mark, prepend and split. */
nvllm_status tok_metaspace_from_json(tok_pre_step *s, const json_t *json, const char *where,
                                     nvllm_error *err);

/* GPT-2's printable stand-in for a byte, and back: -1 when the character stands for none. */
uint32_t tok_byte_to_char(unsigned char byte);
int tok_char_to_byte(uint32_t code);

#endif
