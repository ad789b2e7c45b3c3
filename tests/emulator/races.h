/* Finds accesses to the same memory, one of them a write, with nothing between that orders them: between threads of a
 * block, blocks of a grid, and kernels that overlap by programmatic launch.
 *
 * The kernels are compiled with the calls that ThreadSanitizer would get (-fsanitize=thread), and races.cpp answers them
 * instead. What orders: barriers of the block and the cluster, __syncwarp within a warp, atomics between blocks (with
 * barriers around them; atomicAdd and its like with a fence of the same thread before and behind, too), and waiting for the
 * kernels ahead. Shuffles and matrix instructions do not. Memory is seen in pieces of two bytes; single bytes are not looked
 * at. Of the readers of a piece two are remembered. */
#ifndef NVLLM_EMULATOR_RACES_H
#define NVLLM_EMULATOR_RACES_H

#include <stddef.h>
#include <stdint.h>

namespace emulator
{

/* Who runs, as far as order is concerned. Times are those of meetings, counted by meeting_time(). */
struct accessor {
    uint32_t grid, first_of_chain; /* grids before first_of_chain had ended when this one began */
    uint32_t block, thread;        /* in the grid; blocks of a cluster have neighbouring numbers */
    uint32_t cluster_size;
    uint64_t waited;             /* when it had waited for the grids ahead, 0: not yet */
    uint64_t fenced, fenced_met; /* its last fence, and the block's last barrier then */
    const uint64_t *warp_met;    /* the last __syncwarp of its warp, */
    const struct block_times *of_block;
};

struct block_times {
    uint64_t met, cluster_met; /* the last barrier */
    uint64_t waited;           /* the first thread's wait for the grids ahead */
    uint64_t acquired; /* its last atomic that acquires, or fence behind one that does not, and who did it */
    uint32_t acquired_by;
    uint32_t asked_by; /* thread of the last atomic that no fence has followed, */
    bool asked;        /* if there is one */
};

/* NULL between threads. */
extern const accessor *running;

uint64_t meeting_time(); /* later than all before */

/* Memory that is looked at, in whole pages. */
enum { PAGE = 4096 };
void watch(const void *memory, size_t bytes);
void forget(const void *memory, size_t bytes);

void note_access(const void *at, size_t bytes, bool write);
/* An atomic of `running`; accesses until atomic_ends are its own. It releases what its block wrote, and acquires; relaxed:
 * it releases what was written before the thread's last fence, and the thread's next fence acquires. */
void atomic_begins(const void *at, size_t bytes, block_times *block, bool relaxed);
void word_begins(const void *at, size_t bytes); /* of `running`, and orders nothing else at all */
void fence(accessor *who, block_times *block);
void atomic_ends();
void grid_ended(uint32_t grid);

} // namespace emulator

#endif
