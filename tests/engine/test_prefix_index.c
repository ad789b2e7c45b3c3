/* The prefix index: exact matches only, also when page ids are reused under the feet of listed children. */
#include "support/test.h"
#include "engine/prefix_index.h"

enum { SLOTS = 4, PAGES = 8 };

static prefix_index open_index(void)
{
    prefix_index x;
    assert_int_equal(prefix_index_open(&x, PAGES, SLOTS, NULL), NVLLM_OK);
    return x;
}

static void prefix_find_needs_the_same_parent_and_tokens(void **state)
{
    (void)state;
    prefix_index x = open_index();
    const int32_t a[SLOTS] = {1, 2, 3, 4}, b[SLOTS] = {1, 2, 3, 5};
    prefix_index_add(&x, 3, PREFIX_ROOT, a);
    prefix_index_add(&x, 5, 3, b);
    assert_int_equal(prefix_index_find(&x, PREFIX_ROOT, a), 3);
    assert_int_equal(prefix_index_find(&x, PREFIX_ROOT, b), -1);
    assert_int_equal(prefix_index_find(&x, 3, b), 5);
    assert_int_equal(prefix_index_find(&x, 3, a), -1);
    assert_int_equal(prefix_index_find(&x, 5, a), -1);
    prefix_index_close(&x);
}

/* Page 3 goes and comes back with other tokens: what was listed behind the old page 3 is not behind the new one. */
static void prefix_children_of_a_removed_page_are_not_found_behind_its_successor(void **state)
{
    (void)state;
    prefix_index x = open_index();
    const int32_t a[SLOTS] = {1, 2, 3, 4}, other[SLOTS] = {9, 9, 9, 9}, child[SLOTS] = {7, 7, 7, 7};
    prefix_index_add(&x, 3, PREFIX_ROOT, a);
    prefix_index_add(&x, 5, 3, child);
    uint32_t generation = x.generation[3];
    prefix_index_remove(&x, 3);
    assert_false(prefix_index_is(&x, 3, generation));
    prefix_index_add(&x, 3, PREFIX_ROOT, other);
    assert_false(prefix_index_is(&x, 3, generation));
    assert_int_equal(prefix_index_find(&x, PREFIX_ROOT, a), -1);
    assert_int_equal(prefix_index_find(&x, PREFIX_ROOT, other), 3);
    assert_int_equal(prefix_index_find(&x, 3, child), -1);
    prefix_index_remove(&x, 5); /* still listed under its old name, and removable */
    prefix_index_add(&x, 5, 3, child);
    assert_int_equal(prefix_index_find(&x, 3, child), 5);
    prefix_index_close(&x);
}

/* Against a plain list of (parent, tokens), through 5,000 random changes. */
static void prefix_random_changes_match_a_plain_list(void **state)
{
    (void)state;
    prefix_index x = open_index();
    bool listed[PAGES] = {false};
    int32_t tokens[PAGES][SLOTS];
    uint32_t seed = 11;
    for (int step = 0; step < 5000; step++) {
        seed = seed * 1664525u + 1013904223u;
        int32_t page = (int32_t)(seed >> 9) % PAGES, fresh[SLOTS];
        for (int i = 0; i < SLOTS; i++) fresh[i] = (int32_t)(seed >> (12 + 2 * i)) & 1;
        if (listed[page]) {
            prefix_index_remove(&x, page);
            listed[page] = false;
        } else if (prefix_index_find(&x, PREFIX_ROOT, fresh) < 0) {
            prefix_index_add(&x, page, PREFIX_ROOT, fresh);
            memcpy(tokens[page], fresh, sizeof fresh);
            listed[page] = true;
        }
        int32_t want = -1;
        for (int32_t p = 0; p < PAGES; p++)
            if (listed[p] && memcmp(tokens[p], fresh, sizeof fresh) == 0) want = p;
        assert_int_equal(prefix_index_find(&x, PREFIX_ROOT, fresh), want);
    }
    prefix_index_close(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefix_find_needs_the_same_parent_and_tokens),
        cmocka_unit_test(prefix_children_of_a_removed_page_are_not_found_behind_its_successor),
        cmocka_unit_test(prefix_random_changes_match_a_plain_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
