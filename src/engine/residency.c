/* Who has pages: the waiting queue, admission with prefix hits, growth, preemption, and the listing of full pages.
 *
 * A sequence takes pages as it grows. When they run out, the last of the running ones (lowest priority, youngest) gives
 * all of its back and waits at the head of its class; its tokens are kept and computed again, so its text does not
 * change. */
#include "engine/state.h"

/* ---- The waiting queue --------------------------------------------------------------------------------------- */

/* Before the first of lower priority; a preempted one also before the first of the same priority that never ran. */
void residency_enqueue(engine *e, sequence *s)
{
    sequence **at = &e->waiting;
    while (*at && ((*at)->request.priority > s->request.priority ||
                   ((*at)->request.priority == s->request.priority && ((*at)->admitted || !s->admitted))))
        at = &(*at)->next;
    s->next = *at;
    *at = s;
    e->n_waiting++;
}

static void drop_cancelled_waiting(engine *e)
{
    int32_t room = e->options.max_sequences;
    sequence **at = &e->waiting;
    while (*at) {
        sequence *s = *at;
        if (!s->cancelled) {
            at = &s->next;
            continue;
        }
        if (room-- == 0) {
            e->cancel_pending = true; /* the rest in the next step: events have room for so many */
            return;
        }
        engine_emit(e, s, ENGINE_CANCELLED, -1);
        *at = s->next;
        e->n_waiting--;
        sequence_free(s);
    }
}

/* ---- Ends ---------------------------------------------------------------------------------------------------- */

static void give_back(engine *e, sequence *s)
{
    kv_pages_release(&e->pages, s->pages, s->n_pages);
    s->n_pages = 0;
}

void residency_drop_ended(engine *e)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < e->n_running; i++) {
        sequence *s = e->running[i];
        if (!s->ended) {
            e->running[kept++] = s;
            continue;
        }
        give_back(e, s);
        sequence_free(s);
    }
    e->n_running = kept;
}

void residency_drop_cancelled(engine *e)
{
    if (!e->cancel_pending) return;
    e->cancel_pending = false;
    for (int32_t i = 0; i < e->n_running; i++) {
        sequence *s = e->running[i];
        if (!s->cancelled) continue;
        engine_emit(e, s, ENGINE_CANCELLED, -1);
        s->ended = true;
    }
    residency_drop_ended(e);
    drop_cancelled_waiting(e);
}

/* ---- Admission ----------------------------------------------------------------------------------------------- */

/* Shares the listed pages that hold the sequence's first tokens; the last token is always computed. */
static void hit_prefix(engine *e, sequence *s)
{
    prefix_index *x = &e->pages.index;
    bool scores = s->request.score && !s->scored; /* every position's logits are wanted */
    s->n_listed = s->n_computed = 0;
    s->listed_parent = PREFIX_ROOT;
    if (e->options.no_prefix_cache || scores) return;
    int32_t most = (s->n_tokens - 1) / PAGE_SLOTS;
    e->counts.prefix_queries += (uint64_t)s->n_tokens;
    while (s->n_listed < most) {
        int32_t page = prefix_index_find(x, s->listed_parent, s->tokens + s->n_listed * PAGE_SLOTS);
        if (page < 0) break;
        kv_pages_share(&e->pages, page);
        s->pages[s->n_pages++] = page;
        s->n_listed++;
        s->listed_parent = page;
        s->listed_generation = x->generation[page];
    }
    s->n_computed = s->n_listed * PAGE_SLOTS;
    e->counts.prefix_hits += (uint64_t)s->n_computed;
}

/* Pages for the tokens it has, and one of growth for everybody: admitting more would preempt at once. */
static bool has_room(const engine *e, const sequence *s)
{
    if (e->n_running == 0) return true;
    int32_t need = pages_for(s->n_tokens) - s->n_pages;
    return need + e->n_running + 1 <= kv_pages_available(&e->pages);
}

static void insert_running(engine *e, sequence *s)
{
    int32_t i = e->n_running++;
    for (; i > 0 && e->running[i - 1]->request.priority < s->request.priority; i--)
        e->running[i] = e->running[i - 1];
    e->running[i] = s;
}

/* In the queue's order; the first that does not fit holds the rest back, so nobody is starved. */
void residency_admit(engine *e)
{
    while (e->waiting && e->n_running < e->options.max_sequences) {
        sequence *s = e->waiting;
        hit_prefix(e, s);
        if (!has_room(e, s)) {
            e->counts.prefix_queries -= e->options.no_prefix_cache ? 0 : (uint64_t)s->n_tokens;
            e->counts.prefix_hits -= (uint64_t)s->n_computed;
            give_back(e, s);
            return;
        }
        e->waiting = s->next;
        e->n_waiting--;
        s->next = NULL;
        if (!s->admitted) engine_emit(e, s, ENGINE_STARTED, -1)->cached_tokens = s->n_computed;
        s->admitted = true;
        insert_running(e, s);
    }
}

/* ---- Growth -------------------------------------------------------------------------------------------------- */

static int32_t missing_pages(const step_row *row)
{
    const sequence *s = row->sequence;
    int32_t missing = pages_for((int64_t)s->n_computed + row->count) - s->n_pages;
    return missing > 0 ? missing : 0;
}

bool residency_reserve(engine *e, const step_row *rows, int32_t n_rows)
{
    int32_t missing = 0;
    for (int32_t r = 0; r < n_rows; r++) missing += missing_pages(&rows[r]);
    if (missing > kv_pages_available(&e->pages)) return false;
    for (int32_t r = 0; r < n_rows; r++) {
        sequence *s = rows[r].sequence;
        int32_t count = missing_pages(&rows[r]);
        kv_pages_take(&e->pages, s->pages + s->n_pages, count);
        s->n_pages += count;
    }
    return true;
}

void residency_preempt(engine *e)
{
    sequence *s = e->running[--e->n_running];
    give_back(e, s);
    residency_enqueue(e, s);
    e->counts.preemptions++;
}

/* ---- Listing ------------------------------------------------------------------------------------------------- */

/* A page that equals a listed one stays unlisted and is freed with its owner; the chain goes on behind the listed. */
static void list_pages_of(engine *e, sequence *s)
{
    prefix_index *x = &e->pages.index;
    int32_t known = s->n_computed < s->n_tokens ? s->n_computed : s->n_tokens;
    while ((s->n_listed + 1) * PAGE_SLOTS <= known) {
        const int32_t *tokens = s->tokens + s->n_listed * PAGE_SLOTS;
        if (!prefix_index_is(x, s->listed_parent, s->listed_generation))
            return; /* the chain is broken for good */
        int32_t page = prefix_index_find(x, s->listed_parent, tokens);
        if (page < 0) {
            page = s->pages[s->n_listed];
            prefix_index_add(x, page, s->listed_parent, tokens);
        }
        s->listed_parent = page;
        s->listed_generation = x->generation[page];
        s->n_listed++;
    }
}

void residency_list_pages(engine *e, const step_row *rows, int32_t n_rows)
{
    for (int32_t r = 0; r < n_rows && !e->options.no_prefix_cache; r++)
        if (rows[r].sequence) list_pages_of(e, rows[r].sequence);
}
