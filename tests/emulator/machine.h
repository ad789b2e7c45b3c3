/* A CUDA device played by the CPU, for tests on machines without a GPU: the kernels' own source is compiled by the C++
 * compiler against the headers of this folder, and every CUDA thread is a fiber.
 *
 * What is played, and made as unkind as the rules allow:
 *  - the threads of a warp meet at shuffles, votes, matrix instructions; those of a block and a cluster at barriers.
 *    Between two meetings warps and lanes run in a pseudo-random order, one after the other;
 *  - blocks of a cooperative grid run in turns, so that they can wait for what the others write; other blocks cannot;
 *  - with programmatic launch, a kernel begins as early as it may: before the kernels ahead of it have done their work,
 *    so that reading their results before cudaGridDependencySynchronize() gives wrong numbers;
 *  - shared memory begins as NaNs; asynchronous copies read at once or late, and arrive only when waited for;
 *  - all memory comes from malloc, to the byte, so that AddressSanitizer sees a kernel's accesses past the end; and it is
 *    aligned to what CUDA promises and no more, so that UndefinedBehaviorSanitizer sees misaligned vectors.
 * A broken rule (lanes that diverge at a shuffle, a barrier that is not reached, misaligned copies, a block that never
 * waits for the kernels before it or has more shared memory than there is, a call that waits while a stream records)
 * ends the process with the kernel's name, block and thread.
 *
 * Races are found where the kernels are compiled for it (races.h).
 *
 * Not played: time, caches, registers. One thread at a time uses all this: the
 * runtime's functions (runtime.cpp) hold a lock. */
#ifndef NVLLM_EMULATOR_MACHINE_H
#define NVLLM_EMULATOR_MACHINE_H

#include "cuda_runtime.h"

#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace emulator
{

struct kernel_launch {
    std::function<void()> kernel; /* one thread's work */
    const char *name;
    dim3 grid, block, cluster;
    size_t dynamic_shared, most_shared; /* most: with the kernel's own variables */
    bool programmatic;                  /* may begin before the kernels ahead of it have ended */
    bool cooperative;                   /* all blocks run at once: the whole grid is one cluster here */
};

/* Compute capability, major, that the kernels are compiled for. Below 9 they have no waits for other kernels and no
 * clusters in them. */
extern int code_major;

struct cluster;

/* A launch on its way. Its blocks run in clusters (of one block, mostly). */
class running_grid
{
  public:
    /* Grids have rising numbers; those before first_of_chain have ended. */
    running_grid(const kernel_launch &launch, uint32_t number, uint32_t first_of_chain);
    ~running_grid();

    /* Begins up to n further clusters, which stop where they wait for the kernels ahead. */
    void begin(int n);
    /* The kernels ahead have ended: runs clusters to their ends until at most n are left. */
    void run_until_left(int n);
    /* Every block has begun and lets the next kernel begin. */
    bool next_may_begin() const;

  private:
    const kernel_launch launch;
    const uint32_t number, first_of_chain;
    std::vector<unsigned> order; /* of clusters that have not begun; the last is next */
    std::deque<std::unique_ptr<cluster>> begun;
    bool all_triggered = true; /* by blocks that have ended */
    std::unique_ptr<cluster> make_next();
    void close(cluster &c);
};

/* AddressSanitizer takes these bytes for memory that nobody has, until they are freed. */
void hide(const void *memory, size_t bytes);

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace emulator

#endif
