/* Added tokens: strings that are cut out of the text before the model sees it, each as one id.
 *
 * Where several match, the leftmost and among those the longest wins. Those with `normalized` false are
 * searched in the text as given, the others afterwards in what the normalizer made of the rest. Special
 * ones count only where the caller asks for it: text of a user never becomes a control token. */
#ifndef NVLLM_TEXT_TOK_ADDED_H
#define NVLLM_TEXT_TOK_ADDED_H

#include "text/tokenizer/normalize.h"
#include "text/tokenizer/trie.h"
#include "text/tokenizer/vocab.h"

typedef struct {
    char *content;
    size_t len;
    int32_t id;
    bool special, normalized, single_word;
    bool lstrip, rstrip; /* takes the white space before / behind it with it */
} tok_added_token;

typedef struct {
    tok_added_token *token; /* sorted by id once finished */
    size_t count, cap;
    tok_trie content;     /* of all, by index: names are unique */
    tok_trie raw, normal; /* what is searched, by index */
} tok_added;

nvllm_status tok_added_from_json(tok_added *a, const json_t *json, nvllm_error *err);
/* Copies token.content. Refuses an empty or repeated content and an id out of range. */
nvllm_status tok_added_add(tok_added *a, tok_added_token token, nvllm_error *err);
/* Checks ids against the model's vocabulary and builds the search, `normalizer` applied to the strings. */
nvllm_status tok_added_finish(tok_added *a, const tok_vocab *vocab, const tok_normalizer *normalizer,
                              nvllm_error *err);
void tok_added_free(tok_added *a);

const tok_added_token *tok_added_by_id(const tok_added *a, int32_t id);
const tok_added_token *tok_added_by_content(const tok_added *a, const char *text, size_t len);

/* A part of the text: an added token (id >= 0) or what lies between (id -1). */
typedef struct {
    size_t start, len;
    int32_t id;
} tok_section;

typedef struct {
    tok_section *data;
    size_t count, cap;
} tok_sections;

typedef enum { TOK_SEARCH_RAW, TOK_SEARCH_NORMALIZED } tok_added_search;

/* Sections of text in order, appended; `special`: special tokens count. */
nvllm_status tok_added_split(const tok_added *a, tok_added_search which, bool special, const char *text,
                             size_t len, tok_sections *out, nvllm_error *err);

#endif
