/* What one emulated CUDA thread can ask of the machine; the headers beside this one put CUDA's names on it. */
#ifndef NVLLM_EMULATOR_THREAD_H
#define NVLLM_EMULATOR_THREAD_H

#include <stddef.h>
#include <stdint.h>

namespace emulator
{

/* Does an instruction of a warp: lanes[l] is what lane l gave to meet_warp. */
typedef void (*warp_function)(void *const *lanes);

/* Waits for all 32 lanes, which must come with the same function; NULL: nothing is to be done. */
void meet_warp(void *mine, warp_function together);
void meet_block();
void meet_first(int threads); /* the block's first threads */
void meet_cluster();

/* Between two looks at what another block of a cooperative grid will write; all lanes of a warp. */
void let_others_run();

void trigger_next();   /* the next kernel may begin */
void wait_for_grids(); /* the kernels ahead have ended */

void *dynamic_memory(size_t alignment);
/* The block's variable of this tag. */
void *static_memory(const void *tag, size_t bytes, size_t alignment);

/* Shared memory by 32-bit addresses; `bytes` are checked to lie in it, and to be aligned to their number. */
uint32_t address_of(const void *memory);
void *memory_at(uint32_t address, size_t bytes);
void *memory_of_block(uint32_t address, int rank, size_t bytes); /* of another block of the cluster */

/* Barriers in shared memory, and copies that arrive at them when somebody waits there. All lanes of a warp wait. */
void barrier_init(uint32_t barrier, int count);
void barrier_arrive(uint32_t barrier, int expected_bytes);
bool barrier_ended(uint32_t barrier, uint32_t parity);
void barrier_wait(uint32_t barrier, uint32_t parity);
void bulk_copy(uint32_t to, const void *from, int bytes, uint32_t barrier);

void copy_later(uint32_t to, const void *from, int bytes);
void copies_end_group();
void copies_arrive(int groups_left); /* all but the last groups; < 0: all, ended or not */

/* Around an atomic operation on `bytes` at `at`; relaxed: it orders nothing without fences. */
void begin_atomic(const void *at, size_t bytes, bool relaxed);
void begin_word(const void *at, size_t bytes,
                bool write); /* a load or a store that orders nothing, fences or not */
void end_atomic();
void fence_memory();

} // namespace emulator

#endif
