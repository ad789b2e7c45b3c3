/* UTF-8: strict decoding (no surrogates, no overlong forms, at most U+10FFFF), encoding, the lossy
 * conversion that replaces bad bytes by U+FFFD, and the few character classes that tokenizers need.
 *
 * Character data come from utf8proc; the definitions are those of the Rust standard library and of its
 * regex crate, because the reference tokenizer is written with them. */
#ifndef NVLLM_TEXT_UTF8_H
#define NVLLM_TEXT_UTF8_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length 1..4 of the valid character at text[0..len) and its code point; 0 when there is none. */
unsigned utf8_decode(const char *text, size_t len, uint32_t *code);

/* Length of the character that starts with `lead`, in text known to be valid. */
unsigned utf8_length(char lead);

unsigned utf8_encode(uint32_t code, char out[4]); /* length written */

/* Number of leading bytes of text that are valid; equals len when all of it is. */
size_t utf8_valid_prefix(const char *text, size_t len);

/* Appends bytes[0..len) with each maximal ill-formed part replaced by U+FFFD, and returns how many bytes
 * were consumed: an incomplete but so far valid character at the end stays (at most 3 bytes). */
size_t utf8_append_lossy(buffer *out, const char *bytes, size_t len);

bool utf8_is_space(uint32_t code);       /* property White_Space */
bool utf8_is_numeric(uint32_t code);     /* categories Nd, Nl, No */
bool utf8_is_punctuation(uint32_t code); /* categories P*, and all of ASCII's punctuation */
bool utf8_is_word(uint32_t code);        /* \w of UTS 18: Alphabetic, M*, Nd, Pc, Join_Control */

#endif
