/* UTF-8: what is valid, what replaces the rest, and the character classes. */
#include "support/test.h"
#include "text/utf8.h"

static void utf8_decode_of_every_code_point_gives_it_back(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        char text[4];
        uint32_t back = 0;
        unsigned n = utf8_encode(code, text);
        bool surrogate = code >= 0xD800 && code <= 0xDFFF;
        if (utf8_decode(text, n, &back) != (surrogate ? 0 : n) || (!surrogate && back != code) ||
            utf8_length(text[0]) != n || (n > 1 && utf8_decode(text, n - 1, &back) != 0))
            fail_msg("U+%04X", (unsigned)code);
    }
}

static void utf8_valid_prefix_stops_at_the_first_bad_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t valid;
    } cases[] = {{"", 0},
                 {"abcdefghijk", 11},
                 {"abcdefgh\x80", 8},
                 {"\xC0\x80", 0},
                 {"a\xC1\xBF", 1},
                 {"\xE0\x9F\x80", 0},
                 {"\xED\xA0\x80", 0},
                 {"\xF0\x8F\xBF\xBF", 0},
                 {"\xF4\x90\x80\x80", 0},
                 {"\xF4\x8F\xBF\xBF", 4},
                 {"\xE6\x88\x91\xE6\x83", 3},
                 {"\xFF", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(utf8_valid_prefix(cases[i].text, strlen(cases[i].text)), cases[i].valid);
}

/* Expected by Rust's String::from_utf8_lossy; `left` bytes may still become a character. */
static void utf8_lossy_replaces_each_maximal_part_and_keeps_an_open_end(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
        size_t left;
    } cases[] = {{"a\xFF"
                  "b",
                  "a\xEF\xBF\xBD"
                  "b",
                  0},
                 {"\xE6\x88", "", 2},
                 {"\xE6\x88(", "\xEF\xBF\xBD(", 0},
                 {"\xF0\x9F\x91", "", 3},
                 {"\xF0\x9F\x91\xF0\x9F\x91\x8D", "\xEF\xBF\xBD\xF0\x9F\x91\x8D", 0},
                 {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", 0},
                 {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buffer out = {0};
        size_t len = strlen(cases[i].bytes), used = utf8_append_lossy(&out, cases[i].bytes, len);
        assert_int_equal(len - used, cases[i].left);
        assert_string_equal(out.data ? out.data : "", cases[i].text);
        buffer_free(&out);
    }
}

static void utf8_classes_follow_unicode(void **state)
{
    (void)state;
    assert_true(utf8_is_space(0x85) && utf8_is_space(0x3000) && utf8_is_space('\v') &&
                !utf8_is_space(0x200B));
    assert_false(utf8_is_space(0x180E)); /* no longer white space since Unicode 6.3 */
    assert_true(utf8_is_numeric('7') && utf8_is_numeric(0xBD) && utf8_is_numeric(0x2167) &&
                !utf8_is_numeric('a'));
    assert_true(utf8_is_punctuation('$') && utf8_is_punctuation(0x3002) && !utf8_is_punctuation(0xA9));
    assert_true(utf8_is_word('_') && utf8_is_word(0x301) && utf8_is_word(0x24B6) && !utf8_is_word('-'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_decode_of_every_code_point_gives_it_back),
        cmocka_unit_test(utf8_valid_prefix_stops_at_the_first_bad_byte),
        cmocka_unit_test(utf8_lossy_replaces_each_maximal_part_and_keeps_an_open_end),
        cmocka_unit_test(utf8_classes_follow_unicode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
