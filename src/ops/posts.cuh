/* Values that the blocks of one kernel hand to each other: words {value, tag} in global memory.
 *
 * A word is written whole and read whole, so a reader that sees the tag it waits for has the value that was written with
 * it: no fence, no counter, no barrier stands between the two blocks, and looking for the word is reading it. (A barrier of
 * all blocks and a read behind it take half as long again on an H200.) Nothing else is ordered by a word.
 *
 * Whose blocks wait for each other must all be running: a cooperative launch sees to that. A word may be written again when
 * every block that looks for it has seen it; where that follows from what the writer itself has waited for, there is
 * nothing to do for it (persistent.cu). Tags of old words must differ from those that are waited for. */
#ifndef NVLLM_OPS_POSTS_CUH
#define NVLLM_OPS_POSTS_CUH

#include "ops/cuda.cuh"

static __device__ __forceinline__ void post_float(uint64_t *to, float value, uint32_t tag)
{
    post_word(to, __float_as_uint(value), tag);
}

/* Looks until every lane of the warp says that its words are there. look(): reads them, and tells whether all were. */
template <class F> static __device__ __forceinline__ void look_until(const F &look)
{
    while (__any_sync(0xffffffffu, !look())) before_next_look();
}

/* N pairs of words of this lane, `stride` words from one to the next; those past `count` words are {0, tag}. */
template <int N>
static __device__ __forceinline__ void read_pairs(uint4 (&pair)[N], const uint64_t *words, int first,
                                                  int stride, int count, uint32_t tag)
{
    look_until([&] {
        bool all = true;
#pragma unroll
        for (int i = 0; i < N; i++) {
            int at = first + i * stride;
            pair[i] = at < count ? posted_pair(words + at) : make_uint4(0, tag, 0, tag);
        }
#pragma unroll
        for (int i = 0; i < N; i++) all = all && pair[i].y == tag && pair[i].w == tag;
        return all;
    });
}

#endif
