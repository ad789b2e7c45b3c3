/* Patterns of normalizers, pre-tokenizers and decoders: a literal string or a regular expression.
 *
 * The reference runs Oniguruma (Ruby syntax); we run PCRE2 with its JIT. tok_onig_translate rewrites what
 * the two read differently (\s, \w, \h, \v, \uHHHH, ...) and refuses what it cannot rewrite, by name.
 * A compiled pattern is immutable; what a match needs to write lives in a tok_matcher, one per call.
 * All text given here is valid UTF-8. */
#ifndef NVLLM_TEXT_TOK_PATTERN_H
#define NVLLM_TEXT_TOK_PATTERN_H

#include "base/buffer.h"
#include "base/error.h"

#include <jansson.h>

typedef struct tok_matcher tok_matcher;
typedef struct tok_pattern tok_pattern;

/* The PCRE2 spelling of an Oniguruma pattern is appended to `out`. */
nvllm_status tok_onig_translate(buffer *out, const char *pattern, size_t len, nvllm_error *err);

nvllm_status tok_pattern_regex(tok_pattern **out, const char *regex, size_t len, nvllm_error *err);
nvllm_status tok_pattern_literal(tok_pattern **out, const char *text, size_t len, nvllm_error *err);
/* {"String": "..."} or {"Regex": "..."}; `where` names the part in the error. */
nvllm_status tok_pattern_from_json(tok_pattern **out, const json_t *json, const char *where,
                                   nvllm_error *err);
void tok_pattern_close(tok_pattern *p);
bool tok_pattern_is_regex(const tok_pattern *p); /* a literal is searched without a matcher */

nvllm_status tok_matcher_open(tok_matcher **out, nvllm_error *err);
void tok_matcher_close(tok_matcher *m);

/* Walks over the matches of one text from left to right. An empty match is skipped where the match before
 * it ended, as in the reference. Start with {.text = , .len = } and the rest zero. */
typedef struct {
    const char *text;
    size_t len;
    size_t next;  /* where the search goes on */
    bool matched; /* there was a match, and it ended at last_end */
    size_t last_end;
    size_t start, end; /* the match found */
} tok_search;

/* *found is false when no match is left. Fails when a match exceeds the limits on steps and memory. */
nvllm_status tok_search_next(tok_search *s, const tok_pattern *p, tok_matcher *m, bool *found,
                             nvllm_error *err);

#endif
