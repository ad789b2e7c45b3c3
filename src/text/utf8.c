/* UTF-8; see utf8.h. */
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

/* Bytes of the well-formed prefix of one character at s[0..len): `*need` is the length its lead byte asks
 * for (0: not a lead byte). The second byte's range is what rules out overlong forms and surrogates. */
static unsigned scan(const unsigned char *s, size_t len, unsigned *need)
{
    unsigned char lead = s[0], low = 0x80, high = 0xBF;
    *need = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (*need < 2) return *need;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
    unsigned n = 1;
    while (n < *need && n < len && s[n] >= low && s[n] <= high) {
        low = 0x80;
        high = 0xBF;
        n++;
    }
    return n;
}

unsigned utf8_decode(const char *text, size_t len, uint32_t *code)
{
    if (len == 0) return 0;
    const unsigned char *s = (const unsigned char *)text;
    unsigned need, got = scan(s, len, &need);
    if (need == 0 || got < need) return 0;
    static const unsigned char lead_mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t value = s[0] & lead_mask[need];
    for (unsigned i = 1; i < need; i++) value = value << 6 | (s[i] & 0x3Fu);
    *code = value;
    return need;
}

unsigned utf8_length(char lead)
{
    unsigned char c = (unsigned char)lead;
    return c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

unsigned utf8_encode(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    unsigned n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead_bits[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (unsigned i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)(lead_bits[n] | code);
    return n;
}

size_t utf8_valid_prefix(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        while (i + 8 <= len) {
            memcpy(&eight, s + i, 8);
            if (eight & 0x8080808080808080u) break;
            i += 8;
        }
        if (i == len) break;
        unsigned need, got = scan(s + i, len - i, &need);
        if (need == 0 || got < need) break;
        i += need;
    }
    return i;
}

size_t utf8_append_lossy(buffer *out, const char *bytes, size_t len)
{
    size_t i = 0;
    while (i < len) {
        size_t valid = utf8_valid_prefix(bytes + i, len - i);
        buffer_append(out, bytes + i, valid);
        i += valid;
        if (i == len) break;
        unsigned need, got = scan((const unsigned char *)bytes + i, len - i, &need);
        if (need && got == len - i) break;
        buffer_puts(out, "\xEF\xBF\xBD");
        i += got ? got : 1;
    }
    return i;
}

bool utf8_is_space(uint32_t code)
{
    if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13);
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool utf8_is_numeric(uint32_t code)
{
    if (code < 0x80) return code >= '0' && code <= '9';
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool utf8_is_punctuation(uint32_t code)
{
    if (code < 0x80)
        return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') || (code >= '[' && code <= '`') ||
               (code >= '{' && code <= '~');
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

/* Alphabetic symbols (So): the circled, squared and negative Latin letters. */
static bool is_letter_symbol(uint32_t code)
{
    return (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
           (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
}

bool utf8_is_word(uint32_t code)
{
    if (code == 0x200C || code == 0x200D) return true;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC ||
           is_letter_symbol(code);
}
