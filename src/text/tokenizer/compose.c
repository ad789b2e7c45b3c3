/* NFC and NFKC; see compose.h. */
#include "text/tokenizer/compose.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <utf8proc.h>

/* Code points that utf8proc 2.8 normalizes or reorders and the reference (tokenizers 0.23.3) does not, found by
 * comparing both over all code points; U+11930 is the second half of compositions added in Unicode 13. */
static const struct {
    uint32_t first, last;
} newer[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
    {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785},
    {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C},
    {0x1FBF0, 0x1FBF9}};

static bool is_newer(uint32_t code)
{
    size_t low = 0, high = sizeof newer / sizeof *newer;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (newer[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof newer / sizeof *newer && newer[low].first <= code;
}

/* Bytes before the next such code point. Those of two bytes start at U+07FD, lead byte 0xDF. */
static size_t run_length(const char *text, size_t len)
{
    uint32_t code = 0;
    for (size_t i = 0; i < len;) {
        if ((unsigned char)text[i] < 0xDF) {
            i++;
            continue;
        }
        unsigned n = utf8_decode(text + i, len - i, &code);
        if (n && is_newer(code)) return i;
        i += n ? n : 1;
    }
    return len;
}

static nvllm_status compose_run(buffer *out, const char *text, size_t len, tok_compose_form form,
                                nvllm_error *err)
{
    int options = UTF8PROC_STABLE | UTF8PROC_COMPOSE | (form == TOK_COMPOSE_COMPATIBLE ? UTF8PROC_COMPAT : 0);
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t made_len = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &made,
                                             (utf8proc_option_t)options);
    if (made_len < 0)
        return error_set(err, NVLLM_ERR_MEMORY, "normalizing the text: %s", utf8proc_errmsg(made_len));
    buffer_append(out, made, (size_t)made_len);
    free(made);
    return NVLLM_OK;
}

nvllm_status tok_compose(buffer *out, const char *text, size_t len, tok_compose_form form, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    for (size_t i = 0; st == NVLLM_OK && i < len;) {
        size_t run = run_length(text + i, len - i);
        if (run) st = compose_run(out, text + i, run, form, err);
        i += run;
        if (i == len) break;
        size_t n = utf8_length(text[i]);
        if (n > len - i) n = len - i;
        buffer_append(out, text + i, n);
        i += n;
    }
    return st;
}
