/* See races.h. */
#include "races.h"
#include "machine.h"

#include <unordered_map>

namespace emulator
{

enum { PIECE = 2, PIECES = PAGE / PIECE, RECENT = 1024 };

/* One access: grid, block, thread, and whether it was an atomic; time 0: none. */
struct mark {
    uint32_t grid, block;
    uint16_t thread;
    bool atomic;
    uint64_t time;
};

/* What happened to a piece last; `other` is a reader of another thread than `read`, of another warp if there is one. */
struct piece {
    mark write, read, other;
};

struct page {
    uintptr_t number;
    piece *pieces; /* NULL until first touched */
};

struct release {
    uint64_t time;
    uint64_t covers, met; /* what was done up to then, and the block's last barrier before it */
    uint32_t thread;
};

const accessor *running;
static const bool looking = NVLLM_EMULATED_RACES; /* the kernels tell of their accesses */
static uint64_t now;
static bool in_atomic;
/* Never destroyed; used, or the compiler keeps no pointer to it where nothing is looked for, and it has leaked. */
[[gnu::used]] static std::unordered_map<uintptr_t, page *> &pages =
    *new std::unordered_map<uintptr_t, page *>;
static std::unordered_map<uint64_t, std::vector<release>>
    releases; /* of blocks of grids that have not ended */
static struct {
    uintptr_t number;
    page *found;
} recent[RECENT]; /* page 0 is nobody's */

uint64_t meeting_time()
{
    return ++now;
}

void watch(const void *memory, size_t bytes)
{
    uintptr_t first = (uintptr_t)memory / PAGE, end = ((uintptr_t)memory + bytes + PAGE - 1) / PAGE;
    for (uintptr_t n = first; looking && n < end; n++) {
        pages[n] = new page{n, NULL};
        recent[n % RECENT] = {n, pages[n]};
    }
}

void forget(const void *memory, size_t bytes)
{
    uintptr_t first = (uintptr_t)memory / PAGE, end = ((uintptr_t)memory + bytes + PAGE - 1) / PAGE;
    for (uintptr_t n = first; looking && n < end; n++) {
        auto at = pages.find(n);
        free(at->second->pieces);
        delete at->second;
        pages.erase(at);
        recent[n % RECENT] = {n, NULL};
    }
}

static page *find(uintptr_t number)
{
    auto &slot = recent[number % RECENT];
    if (slot.number == number) return slot.found;
    auto at = pages.find(number);
    slot = {number, at == pages.end() ? NULL : at->second};
    return slot.found;
}

static uint64_t block_key(uint32_t grid, uint32_t block)
{
    return (uint64_t)grid << 32 | block;
}

/* By an atomic of the other block behind its access, and one of this block since. */
static bool handed_over(const mark &m, const accessor &me)
{
    const block_times &mine = *me.of_block;
    auto found = releases.find(block_key(m.grid, m.block));
    if (found == releases.end() || mine.acquired == 0) return false;
    bool told = mine.acquired_by == me.thread || mine.acquired < mine.met ||
                (mine.acquired_by / 32 == me.thread / 32 && mine.acquired < *me.warp_met);
    if (!told) return false;
    for (const release &r : found->second)
        if (r.time < mine.acquired && m.time <= r.covers && (m.thread == r.thread || m.time <= r.met))
            return true;
    return false;
}

/* Whether what `m` did is before what runs now. */
static bool ordered(const mark &m, const accessor &me)
{
    const block_times &b = *me.of_block;
    if (m.grid > me.grid) return false;
    if (m.grid < me.grid) return m.grid < me.first_of_chain || me.waited || (b.waited && b.waited < b.met);
    if (m.block == me.block) {
        if (m.thread == me.thread || m.time <= b.met) return true;
        if (m.thread / 32 == me.thread / 32 && m.time <= *me.warp_met) return true;
        return m.atomic && in_atomic;
    }
    if (m.block / me.cluster_size == me.block / me.cluster_size && m.time <= b.cluster_met) return true;
    return (m.atomic && in_atomic) || handed_over(m, me);
}

static void demand(const mark &m, const char *did, const void *at, bool write)
{
    if (m.time == 0 || ordered(m, *running)) return;
    char whose[80] = "this kernel";
    if (m.grid != running->grid)
        snprintf(whose, sizeof whose, "a kernel %d launches %s", abs((int)(m.grid - running->grid)),
                 m.grid < running->grid ? "before" : "later");
    fail("race: %s %p, which thread %d of block number %u of %s %s, and nothing is between",
         write ? "writes" : "reads", at, m.thread, m.block, whose, did);
}

static bool same_warp(const mark &a, const mark &b)
{
    return a.grid == b.grid && a.block == b.block && a.thread / 32 == b.thread / 32;
}

static bool same_thread(const mark &a, const mark &b)
{
    return same_warp(a, b) && a.thread == b.thread;
}

static void note(piece &p, const mark &me, const void *at, bool write)
{
    demand(p.write, "has written", at, write);
    if (write) {
        demand(p.read, "has read", at, write);
        demand(p.other, "has read", at, write);
        p.write = me;
        p.read = p.other = mark();
        return;
    }
    if (p.read.time && !same_thread(p.read, me) &&
        (!p.other.time || same_thread(p.other, me) || !same_warp(p.read, me)))
        p.other = p.read;
    p.read = me;
}

void note_access(const void *at, size_t bytes, bool write)
{
    if (!looking || !running || bytes < PIECE) return;
    mark me = {running->grid, running->block, (uint16_t)running->thread, in_atomic, now + 1};
    for (uintptr_t i = (uintptr_t)at / PIECE; i < ((uintptr_t)at + bytes) / PIECE; i++) {
        page *p = find(i / PIECES);
        if (!p) return;
        if (!p->pieces) p->pieces = (piece *)calloc(PIECES, sizeof *p->pieces);
        if (!p->pieces) fail("out of memory for what is remembered of accesses");
        note(p->pieces[i % PIECES], me, at, write);
    }
}

static void acquire(block_times *block, uint32_t thread)
{
    block->acquired = meeting_time();
    block->acquired_by = thread;
}

void atomic_begins(const void *at, size_t bytes, block_times *block, bool relaxed)
{
    if (!looking || !running) return;
    in_atomic = true;
    note_access(at, bytes, true);
    block->asked = relaxed;
    block->asked_by = running->thread;
    if (!relaxed) acquire(block, running->thread);
    uint64_t covers = relaxed ? running->fenced : meeting_time(),
             met = relaxed ? running->fenced_met : block->met;
    releases[block_key(running->grid, running->block)].push_back(
        {meeting_time(), covers, met, running->thread});
}

void word_begins(const void *at, size_t bytes)
{
    if (!looking || !running) return;
    in_atomic = true;
    note_access(at, bytes, true);
}

void fence(accessor *who, block_times *block)
{
    who->fenced = meeting_time();
    who->fenced_met = block->met;
    if (block->asked && block->asked_by == who->thread) acquire(block, who->thread);
}

void atomic_ends()
{
    in_atomic = false;
}

void grid_ended(uint32_t grid)
{
    for (auto at = releases.begin(); at != releases.end();)
        at = at->first >> 32 == grid ? releases.erase(at) : std::next(at);
}

} // namespace emulator

/* ---- What the compiler calls --------------------------------------------------------------------------------- */

using emulator::note_access;

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_read_range(void *at, size_t bytes)
{
    note_access(at, bytes, false);
}
void __tsan_write_range(void *at, size_t bytes)
{
    note_access(at, bytes, true);
}
void __tsan_read1(void *at)
{
    note_access(at, 1, false);
}
void __tsan_write1(void *at)
{
    note_access(at, 1, true);
}
void __tsan_read2(void *at)
{
    note_access(at, 2, false);
}
void __tsan_write2(void *at)
{
    note_access(at, 2, true);
}
void __tsan_unaligned_read2(void *at)
{
    note_access(at, 2, false);
}
void __tsan_unaligned_write2(void *at)
{
    note_access(at, 2, true);
}
void __tsan_read4(void *at)
{
    note_access(at, 4, false);
}
void __tsan_write4(void *at)
{
    note_access(at, 4, true);
}
void __tsan_unaligned_read4(void *at)
{
    note_access(at, 4, false);
}
void __tsan_unaligned_write4(void *at)
{
    note_access(at, 4, true);
}
void __tsan_read8(void *at)
{
    note_access(at, 8, false);
}
void __tsan_write8(void *at)
{
    note_access(at, 8, true);
}
void __tsan_unaligned_read8(void *at)
{
    note_access(at, 8, false);
}
void __tsan_unaligned_write8(void *at)
{
    note_access(at, 8, true);
}
void __tsan_read16(void *at)
{
    note_access(at, 16, false);
}
void __tsan_write16(void *at)
{
    note_access(at, 16, true);
}
void __tsan_unaligned_read16(void *at)
{
    note_access(at, 16, false);
}
void __tsan_unaligned_write16(void *at)
{
    note_access(at, 16, true);
}
/* The host's atomics, of flags that kernels write. */
int __tsan_atomic32_load(const volatile int *at, int)
{
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
}
