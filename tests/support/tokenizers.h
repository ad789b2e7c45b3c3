/* Two tokenizers that should be one: the same ids for a text, and the same text for the ids. */
#ifndef NVLLM_TEST_TOKENIZERS_H
#define NVLLM_TEST_TOKENIZERS_H

#include "support/test.h"
#include "text/tokenizer.h"

static inline void check_same_tokens(const tokenizer *one, const tokenizer *other, const char *text,
                                     size_t len, unsigned encode_flags, unsigned decode_flags)
{
    int32_t *a, *b;
    size_t a_count, b_count, i = 0;
    buffer a_text = {0}, b_text = {0};
    assert_int_equal(tokenizer_encode(one, text, len, encode_flags, &a, &a_count, NULL), NVLLM_OK);
    assert_int_equal(tokenizer_encode(other, text, len, encode_flags, &b, &b_count, NULL), NVLLM_OK);
    while (i < a_count && i < b_count && a[i] == b[i]) i++;
    if (i < a_count || i < b_count) fail_msg("\"%.*s\": ids differ from number %zu", (int)len, text, i);
    assert_int_equal(tokenizer_decode(one, a, a_count, decode_flags, &a_text, NULL), NVLLM_OK);
    assert_int_equal(tokenizer_decode(other, a, a_count, decode_flags, &b_text, NULL), NVLLM_OK);
    assert_int_equal(a_text.len, b_text.len);
    if (a_text.len) assert_memory_equal(a_text.data, b_text.data, a_text.len);
    buffer_free(&a_text);
    buffer_free(&b_text);
    free(a);
    free(b);
}

#endif
