/* The split of <think> answers, for every way to cut them into pieces. */
#include "serve/reasoning.h"
#include "support/test.h"

typedef struct {
    const char *text;
    reasoning_state start;
    const char *thought, *content;
} split_case;

static const split_case cases[] = {
    {"<think>\nlet me see\n</think>\n\nyes", REASONING_AT_START, "let me see", "yes"},
    {" \n<think>a</think>b", REASONING_AT_START, "a", "b"},
    {"let me see\n</think>\n\nyes", REASONING_OPENED, "let me see", "yes"},
    {"no tags at all", REASONING_AT_START, "", "no tags at all"},
    {"  indented", REASONING_AT_START, "", "  indented"},
    {"first words <think>x</think>", REASONING_AT_START, "", "first words <think>x</think>"},
    {"<thinker>", REASONING_AT_START, "", "<thinker>"},
    {"<think>a </thin b </think>c </think> d", REASONING_AT_START, "a </thin b", "c </think> d"},
    {"<think>a\n\n b", REASONING_AT_START, "a\n\n b", ""},
    {"<think></think>", REASONING_AT_START, "", ""},
    {"<thi", REASONING_AT_START, "", "<thi"},
    {"<think>x</thi", REASONING_AT_START, "x</thi", ""},
    {"<think>x</think>", REASONING_NONE, "", "<think>x</think>"},
    {"", REASONING_AT_START, "", ""},
};

static void check_equal(const wire *got, const char *want)
{
    assert_false(got->failed);
    assert_int_equal(got->len, strlen(want));
    if (got->len) assert_memory_equal(got->data, want, got->len);
}

static void reasoning_in_pieces_is_split_at_its_tags(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const split_case *c = &cases[i];
        size_t len = strlen(c->text);
        for (size_t piece = 1; piece <= len + 1; piece++) {
            reasoning r = {.state = c->start};
            wire thought = {0}, content = {0};
            for (size_t k = 0; k < len; k += piece)
                reasoning_push(&r, c->text + k, len - k < piece ? len - k : piece, &thought, &content);
            reasoning_finish(&r, &thought, &content);
            check_equal(&thought, c->thought);
            check_equal(&content, c->content);
            reasoning_free(&r);
            wire_free(&thought);
            wire_free(&content);
        }
    }
}

static void reasoning_is_shown_before_it_ends(void **state)
{
    (void)state;
    reasoning r = {.state = REASONING_AT_START};
    wire thought = {0}, content = {0};
    reasoning_push(&r, "<think>some words", 17, &thought, &content);
    check_equal(&thought, "some words");
    reasoning_push(&r, " more </", 8, &thought, &content);
    check_equal(&thought, "some words more");
    reasoning_free(&r);
    wire_free(&thought);
    wire_free(&content);
}

static void prompt_tells_how_the_answer_begins(void **state)
{
    (void)state;
    assert_int_equal(reasoning_after_prompt("user<think>\n", 12), REASONING_OPENED);
    assert_int_equal(reasoning_after_prompt("<think>\n\n</think>\n\n", 19), REASONING_NONE);
    assert_int_equal(reasoning_after_prompt("assistant\n", 10), REASONING_AT_START);
    assert_int_equal(reasoning_after_prompt("", 0), REASONING_AT_START);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reasoning_in_pieces_is_split_at_its_tags),
        cmocka_unit_test(reasoning_is_shown_before_it_ends),
        cmocka_unit_test(prompt_tells_how_the_answer_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
