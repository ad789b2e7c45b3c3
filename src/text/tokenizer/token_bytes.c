/* The bytes of one token; see tokenizer_token_bytes in tokenizer.h.
 *
 * A byte-level piece is its bytes in disguise and "<0x..>" names one byte. Any other piece goes through the decoder
 * behind a letter, so that what a decoder does at the start of a text (dropping a space) does not happen to it. */
#include "text/tokenizer/parts.h"
#include "text/utf8.h"

#include <string.h>

static bool has_step(const tok_decoder *d, tok_decode_kind kind)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->step[i].kind == kind) return true;
    return false;
}

/* A piece with a character that stands for no byte is text as it is: an added token. */
static void append_byte_level(buffer *out, const char *piece, size_t len)
{
    size_t before = out->len;
    uint32_t code = 0;
    for (size_t i = 0; i < len;) {
        unsigned n = utf8_decode(piece + i, len - i, &code);
        int byte = n ? tok_char_to_byte(code) : -1;
        if (byte < 0) {
            out->len = before;
            buffer_append(out, piece, len);
            return;
        }
        buffer_putc(out, (char)byte);
        i += n;
    }
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte that "<0x..>" names, or -1. */
static int named_byte(const char *piece, size_t len)
{
    if (len != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') return -1;
    int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static nvllm_status append_decoded(buffer *out, const tokenizer *t, const char *piece, size_t len,
                                   nvllm_error *err)
{
    static const char before[] = "a";
    tok_decoding state;
    buffer text = {0};
    nvllm_status st = tok_decoding_open(&state, &t->decoder, err);
    if (st) return st;
    st = tok_decoding_push(&state, before, 1, &text, err);
    if (!st) st = tok_decoding_push(&state, piece, len, &text, err);
    if (!st) st = tok_decoding_finish(&state, &text, err);
    size_t skip = text.len && text.data[0] == before[0] ? 1 : 0;
    if (!st) buffer_append(out, text.data + skip, text.len - skip);
    if (!st && text.failed) st = error_memory(err, len, "a token");
    buffer_free(&text);
    tok_decoding_close(&state);
    return st;
}

nvllm_status tokenizer_token_bytes(const tokenizer *t, int32_t id, buffer *out, nvllm_error *err)
{
    size_t len;
    const char *piece = tokenizer_id_to_piece(t, id, &len);
    if (!piece) return NVLLM_OK;
    int byte = has_step(&t->decoder, TOK_DEC_BYTE_FALLBACK) ? named_byte(piece, len) : -1;
    nvllm_status st = NVLLM_OK;
    if (has_step(&t->decoder, TOK_DEC_BYTE_LEVEL))
        append_byte_level(out, piece, len);
    else if (byte >= 0)
        buffer_putc(out, (char)byte);
    else
        st = append_decoded(out, t, piece, len, err);
    return !st && out->failed ? error_memory(err, len, "a token") : st;
}
