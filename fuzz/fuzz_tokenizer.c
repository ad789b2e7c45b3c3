/* Fuzz target: tokenizer.json (first byte 'J') or SentencePiece's tokenizer.model (any other first byte).
 * What opens must encode a fixed text of many scripts without harm, decode what it encoded, and give the same text
 * as a stream. Errors are fine; the sentence must be there. */
#include "text/detokenizer.h"

#include <stdlib.h>
#include <string.h>

static const char text[] =
    " The dog's <s>12\r\n caf\xC3\xA9 cafe\xCC\x81 \xE2\x96\x81the\xE2\x96\x81 <unk>ab<pad> "
    "\xE6\x88\x91\xE6\x83\xB3 \xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "bbbbbbbbbbbbbbbbbbb \xEF\xAC\x81 \xC4\xB0 x?!..;  ";

static void decode(const tokenizer *t, const int32_t *ids, size_t count, unsigned flags)
{
    buffer whole = {0}, stream = {0};
    detokenizer *d = NULL;
    nvllm_error err;
    nvllm_status st = tokenizer_decode(t, ids, count, flags, &whole, &err);
    nvllm_status streamed = detokenizer_open(&d, t, flags, &err);
    for (size_t i = 0; streamed == NVLLM_OK && i < count; i++)
        streamed = detokenizer_push(d, ids[i], &stream, &err);
    if (streamed == NVLLM_OK) streamed = detokenizer_finish(d, &stream, &err);
    if (st != streamed) abort();
    if (st == NVLLM_OK &&
        (whole.len != stream.len || (whole.len && memcmp(whole.data, stream.data, whole.len))))
        abort();
    detokenizer_close(d);
    buffer_free(&whole);
    buffer_free(&stream);
}

static void use(const tokenizer *t)
{
    for (unsigned flags = 0; flags < 8; flags += 3) { /* 0, ADD | PARSE, PARSE | SKIP */
        int32_t *ids;
        size_t count;
        nvllm_error err = {0};
        if (tokenizer_encode(t, text, sizeof text - 1, flags, &ids, &count, &err) != NVLLM_OK) {
            if (!err.message[0]) abort();
            continue;
        }
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || ids[i] >= tokenizer_vocab_size(t)) abort();
        decode(t, ids, count, flags);
        free(ids);
    }
    int32_t some[64];
    for (int32_t i = 0; i < 64; i++) some[i] = (i * 37) % (tokenizer_vocab_size(t) + 2) - 1;
    decode(t, some, 64, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    tokenizer *t;
    nvllm_error err = {0};
    nvllm_status st = data[0] == 'J' ? tokenizer_from_json(&t, (const char *)data + 1, size - 1, &err)
                                     : tokenizer_from_sentencepiece(&t, data + 1, size - 1, &err);
    if (st != NVLLM_OK) {
        if (t || !err.message[0]) abort();
        return 0;
    }
    use(t);
    tokenizer_close(t);
    return 0;
}
