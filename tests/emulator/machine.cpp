/* Threads as fibers, and where they meet; see machine.h. */
#include "machine.h"
#include "races.h"
#include "thread.h"

#include <algorithm>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <map>
#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#if !defined __x86_64__
#error "the emulator switches fibers on x86-64 only"
#endif

/* Keeps what the ABI wants kept on the stack that is left, and the stack itself in *from. */
extern "C" void emulator_switch(void **from, void *to);
asm(".text\n"
    ".globl emulator_switch\n"
    ".type emulator_switch, @function\n"
    "emulator_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size emulator_switch, . - emulator_switch\n");

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator
{

enum { LANES = 32, STACK_BYTES = 128 * 1024, STACK_MARK = 0x5afe, SHARED_SPAN = 1 << 20, ALIGNMENT = 4096 };

int code_major = 9;

enum class state { ready, at_warp, at_block, at_first, at_cluster, at_grid, looking, ended };

struct pending_copy {
    void *to;
    const void *from; /* NULL: data has it already */
    unsigned char data[16];
    int bytes;
    bool committed_last; /* last of its group */
};

struct thread {
    void *stack_at;
    void *stack; /* STACK_BYTES, with a mark at its far end */
    state now;
    warp_function together;
    void *mine;
    std::vector<pending_copy> copies;
    uint3 index;
    accessor who;
};

/* 32 neighbours in a block. They run one after the other until each has stopped. */
struct warp {
    int first, n;
    int ready, at_instruction; /* how many are */
    int step;                  /* 1 or -1: the way to the lane that runs next */
    uint64_t met;              /* when, last */
};

struct shared_variable {
    const void *tag;       /* NULL: the dynamic one */
    void *block;           /* of ALIGNMENT, what memory lies in */
    unsigned char *memory; /* at an odd multiple of its alignment */
    size_t alignment, bytes;
};

/* In shared memory, by its address. */
struct memory_barrier {
    int count, missing; /* arrivals of a phase, and those that have not come */
    long bytes;         /* expected and not copied yet */
    uint32_t phase;
};

struct bulk_transfer {
    void *to;
    const void *from;
    int bytes;
    uint32_t barrier;
};

struct block {
    uint3 index;
    std::map<uint32_t, memory_barrier> barriers;
    std::vector<bulk_transfer> transfers; /* on their way */
    int first_threads;                    /* that meet */
    std::vector<thread> threads;
    std::vector<warp> warps;
    std::vector<shared_variable> shared; /* in the order in which they are first asked for */
    int triggered, waited;
    block_times times;
};

struct cluster {
    std::vector<block> blocks;
    const kernel_launch *of;
};

/* ---- What runs now ------------------------------------------------------------------------------------------- */

static cluster *at_cluster;
static block *at_block;
static int at_thread;
static void *scheduler;

static unsigned random_below(unsigned n)
{
    static uint32_t x = 2463534242u;
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    return x % n;
}

void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "emulator: ");
    vfprintf(stderr, format, args);
    va_end(args);
    if (at_cluster)
        fprintf(stderr, "\n  in block (%u, %u, %u), thread %d of %s", blockIdx.x, blockIdx.y, blockIdx.z,
                at_thread, at_cluster->of->name);
    fprintf(stderr, "\n");
    abort();
}

void hide(const void *memory, size_t bytes)
{
#if defined __SANITIZE_ADDRESS__
    __asan_poison_memory_region(memory, bytes);
#else
    (void)memory, (void)bytes;
#endif
}

static thread &self()
{
    return at_block->threads[(size_t)at_thread];
}

static void set_thread()
{
    running = &self().who;
    threadIdx = self().index;
}

/* The lane that runs next; there is one. */
static void choose_lane(const warp &w)
{
    int lane = at_thread - w.first;
    do {
        lane += w.step;
        if (lane < 0) lane = w.n - 1;
        if (lane == w.n) lane = 0;
    } while (at_block->threads[(size_t)(w.first + lane)].now != state::ready);
    at_thread = w.first + lane;
    set_thread();
}

/* All lanes are at one instruction, which is done now. */
static void do_instruction(warp &w)
{
    void *lanes[LANES];
    const warp_function together = self().together;
    for (int l = 0; l < LANES; l++) {
        thread &t = at_block->threads[(size_t)(w.first + l)];
        if (t.together != together) fail("the lanes of a warp are at different instructions");
        lanes[l] = t.mine;
        t.now = state::ready;
    }
    if (together)
        together(lanes);
    else
        w.met = meeting_time();
    w.ready = LANES;
    w.at_instruction = 0;
    w.step = random_below(2) ? 1 : -1;
}

/* This thread cannot go on: another lane runs, or the scheduler when all have stopped. */
static void stop(state why)
{
    thread &t = self();
    warp &w = at_block->warps[(size_t)(at_thread / LANES)];
    t.now = why;
    w.ready--;
    w.at_instruction += why == state::at_warp;
    if (w.at_instruction == LANES) {
        do_instruction(w);
        return; /* this lane is the next */
    }
    if (w.ready == 0) {
        emulator_switch(&t.stack_at, scheduler);
        return;
    }
    choose_lane(w);
    emulator_switch(&t.stack_at, self().stack_at);
}

static void finish_copies(thread &t, size_t keep_groups);

static void enter_thread()
{
    at_cluster->of->kernel();
    finish_copies(self(), 0);
    stop(state::ended);
    abort();
}

static std::vector<void *> &free_stacks = *new std::vector<void *>; /* for the process */

static void prepare(thread &t)
{
    if (free_stacks.empty()) {
        void *memory = NULL;
        if (posix_memalign(&memory, 64, STACK_BYTES)) fail("out of memory for stacks");
        *(int *)memory = STACK_MARK;
        free_stacks.push_back(memory);
    }
    t.stack = free_stacks.back();
    free_stacks.pop_back();
#if defined __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(t.stack, STACK_BYTES); /* frames that were left for good */
#endif
    size_t shift =
        (uintptr_t)t.stack / STACK_BYTES * 832 % (STACK_BYTES / 4); /* not all in the same cache sets */
    void **top = (void **)((char *)t.stack + STACK_BYTES - shift / 64 * 64) - 2;
    *--top = NULL; /* the return address of enter_thread; keeps the stack aligned as after a call */
    *--top = (void *)enter_thread;
    for (int i = 0; i < 6; i++) *--top = NULL;
    t.stack_at = top;
    t.now = state::ready;
}

static void release(thread &t)
{
    if (*(int *)t.stack != STACK_MARK) fail("a thread used more than %d bytes of stack", STACK_BYTES);
    free_stacks.push_back(t.stack);
    t.stack = NULL;
}

/* ---- Meetings ------------------------------------------------------------------------------------------------ */

static bool some_look(const warp &w)
{
    for (int l = 0; l < w.n; l++)
        if (at_block->threads[(size_t)(w.first + l)].now == state::looking) return true;
    return false;
}

/* Runs the ready lanes of a warp until all have stopped; true: some were ready. */
static bool run_warp(warp &w)
{
    if (w.ready == 0) return false;
    w.step = random_below(2) ? 1 : -1;
    at_thread = w.first;
    choose_lane(w);
    emulator_switch(&scheduler, self().stack_at);
    running = NULL;
    if (w.at_instruction > 0 && !some_look(w))
        fail("%d of 32 lanes are at an instruction of the whole warp", w.at_instruction);
    return true;
}

static bool run_block(block &b)
{
    size_t warps = b.warps.size(), turn = random_below((unsigned)warps);
    bool moved = false;
    at_block = &b;
    blockIdx = b.index;
    for (size_t i = 0; i < warps; i++) moved = run_warp(b.warps[(i + turn) % warps]) || moved;
    return moved;
}

/* Whether all threads that have not ended, and at least one, are in this state. */
static bool all_in(const block &b, state s)
{
    bool some = false;
    for (const thread &t : b.threads) {
        if (t.now != s && t.now != state::ended) return false;
        some = some || t.now == s;
    }
    return some;
}

static void wake(block &b, state from)
{
    for (size_t i = 0; i < b.threads.size(); i++)
        if (b.threads[i].now == from) {
            b.threads[i].now = state::ready;
            b.warps[i / LANES].ready++;
        }
}

static bool has(const cluster &c, state s)
{
    for (const block &b : c.blocks)
        for (const thread &t : b.threads)
            if (t.now == s) return true;
    return false;
}

static bool first_have_met(const block &b)
{
    int there = 0;
    for (const thread &t : b.threads) there += t.now == state::at_first;
    return there > 0 && there == b.first_threads;
}

static bool open_barriers(cluster &c)
{
    bool opened = false, all = true;
    for (block &b : c.blocks) {
        if (all_in(b, state::at_block)) {
            wake(b, state::at_block);
            b.times.met = meeting_time();
            opened = true;
        }
        if (first_have_met(b)) {
            wake(b, state::at_first);
            b.times.met = meeting_time();
            opened = true;
        }
        all = all && all_in(b, state::at_cluster);
    }
    if (all)
        for (block &b : c.blocks) {
            wake(b, state::at_cluster);
            b.times.met = b.times.cluster_met = meeting_time();
        }
    return opened || all;
}

static uint64_t words_written; /* by all threads so far */

enum {
    IDLE_ROUNDS = 1000
}; /* in which threads only look for what others write, and then they wait for ever */

static bool wake_looking(cluster &c)
{
    bool some = has(c, state::looking);
    if (some)
        for (block &b : c.blocks) wake(b, state::looking);
    return some;
}

/* Runs a cluster until its threads have ended or wait for the kernels ahead; these have ended: to its end. */
static void run_cluster(cluster &c, bool ahead_ended)
{
    int idle = 0;
    uint64_t before = 0;
    at_cluster = &c;
    blockDim = c.of->block;
    gridDim = c.of->grid;
    for (;;) {
        bool moved = false;
        size_t turn = random_below((unsigned)c.blocks.size());
        if (ahead_ended)
            for (block &b : c.blocks) wake(b, state::at_grid);
        for (size_t i = 0; i < c.blocks.size(); i++)
            moved = run_block(c.blocks[(i + turn) % c.blocks.size()]) || moved;
        moved = open_barriers(c) || moved || (ahead_ended && has(c, state::at_grid));
        bool looked = wake_looking(c);
        idle = looked && words_written == before ? idle + 1 : 0;
        before = words_written;
        if (idle > IDLE_ROUNDS) fail("threads look for words that nobody writes");
        if (moved || looked) continue;
        if (has(c, state::at_grid)) break;
        if (has(c, state::at_first) || has(c, state::at_block) || has(c, state::at_cluster) ||
            has(c, state::at_warp))
            fail("threads wait at a barrier that others do not reach");
        break;
    }
    at_cluster = NULL;
}

/* ---- Grids --------------------------------------------------------------------------------------------------- */

static unsigned count(const dim3 &d)
{
    return d.x * d.y * d.z;
}

static uint3 position(unsigned i, const dim3 &of)
{
    return {i % of.x, i / of.x % of.y, i / (of.x * of.y)};
}

/* What make_next gave. */
static void take_back(block &b)
{
    for (thread &t : b.threads) release(t);
    for (shared_variable &v : b.shared) {
        forget(v.memory, v.bytes);
        free(v.block);
    }
    b.shared.clear();
}

running_grid::running_grid(const kernel_launch &of, uint32_t number, uint32_t first_of_chain)
    : launch(of), number(number), first_of_chain(first_of_chain)
{
    order.resize(count(launch.grid) / count(launch.cluster));
    for (size_t i = 0; i < order.size(); i++) order[i] = (unsigned)i;
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random_below((unsigned)i)]);
}

running_grid::~running_grid()
{
    for (auto &c : begun) /* the card has failed */
        for (block &b : c->blocks) take_back(b);
    grid_ended(number);
}

std::unique_ptr<cluster> running_grid::make_next()
{
    const dim3 size = launch.cluster;
    dim3 clusters(launch.grid.x / size.x, launch.grid.y / size.y, launch.grid.z / size.z);
    uint3 at = position(order.back(), clusters);
    std::unique_ptr<cluster> c(new cluster);
    uint32_t first = order.back() * count(size);
    order.pop_back();
    c->of = &launch;
    c->blocks.resize(count(size));
    for (unsigned i = 0; i < c->blocks.size(); i++) {
        block &b = c->blocks[i];
        uint3 in = position(i, size);
        b.index = {at.x * size.x + in.x, at.y * size.y + in.y, at.z * size.z + in.z};
        b.threads.resize(count(launch.block));
        for (thread &t : b.threads) prepare(t);
        for (int lane = 0; lane < (int)b.threads.size(); lane += LANES) {
            int n = std::min<int>(LANES, (int)b.threads.size() - lane);
            b.warps.push_back(warp{lane, n, n, 0, 1, 0});
        }
        for (size_t t = 0; t < b.threads.size(); t++)
            b.threads[t].index = position((unsigned)t, launch.block);
        for (size_t t = 0; t < b.threads.size(); t++)
            b.threads[t].who = {number, first_of_chain,          first + i, (uint32_t)t, count(size), 0, 0,
                                0,      &b.warps[t / LANES].met, &b.times};
    }
    return c;
}

void running_grid::close(cluster &c)
{
    for (block &b : c.blocks) {
        all_triggered = all_triggered && b.triggered == (int)b.threads.size();
        if (launch.programmatic && b.waited == 0)
            fail("block (%u, %u, %u) of %s ended without waiting for the kernels before it", b.index.x,
                 b.index.y, b.index.z, launch.name);
        take_back(b);
    }
}

void running_grid::begin(int n)
{
    for (; n > 0 && !order.empty(); n--) {
        begun.push_back(make_next());
        run_cluster(*begun.back(), false);
    }
}

void running_grid::run_until_left(int n)
{
    while ((int)(order.size() + begun.size()) > n) {
        if (begun.empty()) begun.push_back(make_next());
        run_cluster(*begun.front(), true);
        close(*begun.front());
        begun.pop_front();
    }
}

bool running_grid::next_may_begin() const
{
    bool all = all_triggered && order.empty();
    for (const auto &c : begun)
        for (const block &b : c->blocks) all = all && b.triggered == (int)b.threads.size();
    return all;
}

/* ---- What a thread may do (thread.h) ------------------------------------------------------------------------- */

void meet_warp(void *mine, warp_function together)
{
    self().mine = mine;
    self().together = together;
    stop(state::at_warp);
}

void meet_block()
{
    stop(state::at_block);
}

void meet_first(int threads)
{
    if (at_thread >= threads) fail("a thread meets the first %d and is none of them", threads);
    at_block->first_threads = threads;
    stop(state::at_first);
}

void meet_cluster()
{
    if (code_major < 9) fail("this kernel's code has no clusters");
    stop(state::at_cluster);
}

void trigger_next()
{
    at_block->triggered += code_major >= 9;
}

void wait_for_grids()
{
    if (!at_cluster->of->programmatic || code_major < 9) return;
    at_block->waited++;
    stop(state::at_grid);
    self().who.waited = meeting_time();
    if (at_block->times.waited == 0) at_block->times.waited = self().who.waited;
}

/* The block's variable of this tag, made when it is first asked for. */
static void *shared_memory(const void *tag, size_t bytes, size_t alignment)
{
    shared_variable v = {tag, NULL, NULL, alignment, bytes};
    size_t sum = at_cluster->of->dynamic_shared + (tag ? bytes : 0), most = at_cluster->of->most_shared;
    for (const shared_variable &other : at_block->shared) {
        if (other.tag == tag) return other.memory;
        sum += other.tag ? other.bytes : 0;
    }
    if (sum > most) fail("%zu bytes of shared memory, and a block has at most %zu", sum, most);
    if (2 * alignment > ALIGNMENT) fail("shared memory aligned to %zu bytes", alignment);
    if (posix_memalign(&v.block, ALIGNMENT, alignment + bytes)) fail("out of memory for shared memory");
    v.memory = (unsigned char *)v.block + alignment;
    memset(v.memory, 0xff, bytes);
    hide(v.block, alignment);
    watch(v.memory, bytes);
    at_block->shared.push_back(v);
    return v.memory;
}

void *dynamic_memory(size_t alignment)
{
    return shared_memory(NULL, at_cluster->of->dynamic_shared, alignment);
}

void *static_memory(const void *tag, size_t bytes, size_t alignment)
{
    return shared_memory(tag, bytes, alignment);
}

/* SHARED_SPAN * (number of the variable + 1) + its alignment + offset. */
uint32_t address_of(const void *memory)
{
    for (size_t i = 0; i < at_block->shared.size(); i++) {
        const shared_variable &v = at_block->shared[i];
        if (memory < v.memory || memory > v.memory + v.bytes) continue;
        return (uint32_t)(SHARED_SPAN * (i + 1) + v.alignment +
                          (size_t)((const unsigned char *)memory - v.memory));
    }
    fail("address %p is not in this block's shared memory", memory);
}

static void *memory_in(const block &b, uint32_t address, size_t bytes)
{
    size_t i = address / SHARED_SPAN - 1;
    if (i >= b.shared.size()) fail("there is no shared memory at %u", address);
    const shared_variable &v = b.shared[i];
    size_t offset = address % SHARED_SPAN - v.alignment; /* far beyond the end when it is below */
    if (offset >= SHARED_SPAN || offset + bytes > v.bytes)
        fail("%zu bytes at %td of shared variable %zu lie outside of it", bytes, (ptrdiff_t)offset, i);
    if (address % bytes) fail("%zu bytes at %zu of shared variable %zu are misaligned", bytes, offset, i);
    return v.memory + offset;
}

void *memory_at(uint32_t address, size_t bytes)
{
    return memory_in(*at_block, address, bytes);
}

void *memory_of_block(uint32_t address, int rank, size_t bytes)
{
    if (rank < 0 || rank >= (int)at_cluster->blocks.size()) fail("there is no block %d in the cluster", rank);
    const block &b = at_cluster->blocks[(size_t)rank];
    if (all_in(b, state::ended))
        fail("block %d of the cluster has ended, and its shared memory with it", rank);
    return memory_in(b, address, bytes);
}

static memory_barrier &barrier_at(uint32_t address)
{
    auto found = at_block->barriers.find(address);
    if (found == at_block->barriers.end()) fail("there is no barrier at %u", address);
    return found->second;
}

static void end_phase_if_complete(memory_barrier &b)
{
    if (b.missing > 0 || b.bytes != 0) return;
    b.missing = b.count;
    b.phase++;
}

void barrier_init(uint32_t barrier, int count)
{
    memory_at(barrier, 8);
    at_block->barriers[barrier] = memory_barrier{count, count, 0, 0};
}

void barrier_arrive(uint32_t barrier, int expected_bytes)
{
    memory_barrier &b = barrier_at(barrier);
    words_written++;
    if (b.missing-- == 0) fail("more arrive at a barrier than it waits for");
    b.bytes += expected_bytes;
    end_phase_if_complete(b);
}

/* What was to be copied is, by whoever waits for it. */
static void finish_transfers(uint32_t barrier)
{
    std::vector<bulk_transfer> &all = at_block->transfers;
    for (size_t i = 0; i < all.size();) {
        if (all[i].barrier != barrier) {
            i++;
            continue;
        }
        memcpy(all[i].to, all[i].from, (size_t)all[i].bytes);
        barrier_at(barrier).bytes -= all[i].bytes;
        all.erase(all.begin() + (long)i);
    }
    end_phase_if_complete(barrier_at(barrier));
}

/* Lanes look one after the other, which the warp of a GPU does not. */
static void agree(void *const *lanes)
{
    for (int l = 0; l < 32; l++) *(bool *)lanes[0] &= *(bool *)lanes[l];
    for (int l = 0; l < 32; l++) *(bool *)lanes[l] = *(bool *)lanes[0];
}

bool barrier_ended(uint32_t barrier, uint32_t parity)
{
    memory_barrier &b = barrier_at(barrier);
    if (b.missing == 0) finish_transfers(barrier);
    bool ended = (b.phase & 1) != parity;
    meet_warp(&ended, agree);
    return ended;
}

void barrier_wait(uint32_t barrier, uint32_t parity)
{
    for (;;) {
        memory_barrier &b = barrier_at(barrier);
        if (b.missing == 0) finish_transfers(barrier);
        if ((b.phase & 1) != parity) break;
        stop(state::looking);
    }
    meet_warp(NULL, NULL);
}

void bulk_copy(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
    if (bytes <= 0 || bytes % 16 || (uintptr_t)from % 16 || to % 16)
        fail("a copy of %d misaligned bytes", bytes);
    memory_at(to + (uint32_t)bytes - 16, 16);
    bulk_transfer t = {memory_at(to, 16), from, bytes, barrier};
    memset(t.to, 0xff, (size_t)bytes); /* they may arrive at any time from now on */
    at_block->transfers.push_back(t);
}

void copy_later(uint32_t to, const void *from, int bytes)
{
    pending_copy c = {memory_at(to, 16), from, {}, bytes, false};
    if (bytes != 0 && bytes != 16) fail("an asynchronous copy of %d bytes", bytes);
    if (bytes && (uintptr_t)from % 16) fail("an asynchronous copy from the misaligned %p", from);
    if (bytes == 0 || random_below(2)) {
        if (bytes) memcpy(c.data, from, 16);
        c.from = NULL;
    }
    note_access(c.to, 16, true); /* it may arrive at any time from now on */
    if (bytes) note_access(from, 16, false);
    memset(c.to, 0xff, 16);
    self().copies.push_back(c);
}

/* An empty group is a mark without a copy. */
void copies_end_group()
{
    pending_copy mark = {};
    mark.committed_last = true;
    self().copies.push_back(mark);
}

static void finish_copies(thread &t, size_t keep_groups)
{
    size_t groups = 0, end = t.copies.size();
    for (; end > 0; end--) /* behind the last group that must have arrived */
        if (t.copies[end - 1].committed_last && groups++ == keep_groups) break;
    for (size_t i = 0; i < end; i++) {
        pending_copy &c = t.copies[i];
        if (!c.to) continue;
        note_access(c.to, 16, true);
        memcpy(c.to, c.from ? c.from : c.data, 16);
    }
    t.copies.erase(t.copies.begin(), t.copies.begin() + (long)end);
}

void copies_arrive(int groups_left)
{
    if (groups_left < 0) copies_end_group();
    finish_copies(self(), groups_left < 0 ? 0 : (size_t)groups_left);
}

void let_others_run()
{
    if (!at_cluster->of->cooperative) fail("threads look for words of blocks that may not be running");
    stop(state::looking);
}

void begin_word(const void *at, size_t bytes, bool write)
{
    words_written += write;
    word_begins(at, bytes);
}

void begin_atomic(const void *at, size_t bytes, bool relaxed)
{
    atomic_begins(at, bytes, &at_block->times, relaxed);
}

void fence_memory()
{
    fence(&self().who, &at_block->times);
}

void end_atomic()
{
    atomic_ends();
}

} // namespace emulator
