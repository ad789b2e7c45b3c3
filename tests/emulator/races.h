/* Finds accesses to the same memory, one of them a write, with nothing between that orders them: between threads of a
 * block, blocks of a grid, and kernels that overlap by programmatic launch.
 *
 * The kernels are compiled with the calls that ThreadSanitizer would get (-fsanitize=thread), and races.cpp answers them
 * instead. What orders: barriers of the block and the cluster, __syncwarp within a warp, atomics between blocks (with
 * barriers around them), and waiting for the kernels ahead. Shuffles and matrix instructions do not. Memory is seen in
 * pieces of two bytes; single bytes are not looked at. Of the readers of a piece two are remembered. */
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
    uint64_t waited;          /* when it had waited for the grids ahead, 0: not yet */
    const uint64_t *warp_met; /* the last __syncwarp of its warp, */
    const struct block_times *of_block;
};

struct block_times {
    uint64_t met, cluster_met; /* the last barrier */
    uint64_t waited;           /* the first thread's wait for the grids ahead */
    uint64_t acquired;         /* its last atomic, and who did it */
    uint32_t acquired_by;
};

/* NULL between threads. */
extern const accessor *running;

uint64_t meeting_time(); /* later than all before */

/* Memory that is looked at, in whole pages. */
enum { PAGE = 4096 };
void watch(const void *memory, size_t bytes);
void forget(const void *memory, size_t bytes);

void note_access(const void *at, size_t bytes, bool write);
/* An atomic of `running`, which releases what its block wrote; accesses until atomic_ends are its own. */
void atomic_begins(const void *at, size_t bytes, block_times *block);
void atomic_ends();
void grid_ended(uint32_t grid);

} // namespace emulator

#endif
