/* The pool of KV pages: counts, sharing, and never a page with two owners who did not ask for it. */
#include "support/test.h"
#include "engine/kv_pages.h"

static kv_pages open_pool(int32_t pages)
{
    kv_pages p;
    assert_int_equal(kv_pages_open(&p, pages, 4, NULL), NVLLM_OK);
    return p;
}

static void kv_take_of_more_than_free_takes_none(void **state)
{
    (void)state;
    kv_pages p = open_pool(4);
    int32_t got[5];
    assert_false(kv_pages_take(&p, got, 5));
    assert_int_equal(p.n_free, 4);
    assert_true(kv_pages_take(&p, got, 4));
    assert_int_equal(p.n_free, 0);
    assert_false(kv_pages_take(&p, got, 1));
    kv_pages_close(&p);
}

static void kv_release_of_shared_page_keeps_it_allocated(void **state)
{
    (void)state;
    kv_pages p = open_pool(2);
    int32_t page;
    assert_true(kv_pages_take(&p, &page, 1));
    kv_pages_share(&p, page);
    kv_pages_release(&p, &page, 1);
    assert_int_equal(p.n_free, 1);
    kv_pages_release(&p, &page, 1);
    assert_int_equal(p.n_free, 2);
    kv_pages_close(&p);
}

/* 2,000 random takes and releases: every page has at most one owner, none is lost. */
static void kv_random_use_never_gives_a_page_twice(void **state)
{
    (void)state;
    enum { PAGES = 37, OWNERS = 12 };
    kv_pages p = open_pool(PAGES);
    int32_t held[OWNERS][PAGES], count[OWNERS] = {0};
    uint32_t seed = 7;
    for (int step = 0; step < 2000; step++) {
        seed = seed * 1664525u + 1013904223u;
        int owner = (int)(seed >> 8) % OWNERS, want = (int)(seed >> 16) % 9;
        if (count[owner]) {
            kv_pages_release(&p, held[owner], count[owner]);
            count[owner] = 0;
        } else if (kv_pages_take(&p, held[owner], want)) {
            count[owner] = want;
        }
        int seen[PAGES] = {0}, total = 0;
        for (int o = 0; o < OWNERS; o++)
            for (int i = 0; i < count[o]; i++, total++) assert_int_equal(seen[held[o][i]]++, 0);
        assert_int_equal(total + p.n_free, PAGES);
    }
    kv_pages_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kv_take_of_more_than_free_takes_none),
        cmocka_unit_test(kv_release_of_shared_page_keeps_it_allocated),
        cmocka_unit_test(kv_random_use_never_gives_a_page_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
