/* How a block of the GPU's decode attention goes through its positions: online softmax per lane group, then the groups of a
 * warp brought together. attention.cu says what a block is. */
#ifndef NVLLM_OPS_ATTENTION_SOFTMAX_CUH
#define NVLLM_OPS_ATTENTION_SOFTMAX_CUH

#include "ops/attention_cache.cuh"

/* ---- Softmax ------------------------------------------------------------------------------------------------- */

/* A lane's running result for G heads; the lanes of a group agree on most and total. */
template <int G> struct running {
    float most[G], total[G], sum[G][VECTOR];
};

/* Scores of U positions, or -infinity where a lane group has none; the group's sum by halves. */
template <class E, int G, int L, int U>
static __device__ __forceinline__ void score(float (&s)[U][G], const float (&q)[G][VECTOR],
                                             const pack<E> (&k)[U], int position, int per_load, int begin,
                                             int end)
{
#pragma unroll
    for (int u = 0; u < U; u++) {
        float x[VECTOR];
        widen(x, k[u]);
#pragma unroll
        for (int g = 0; g < G; g++) {
            s[u][g] = 0;
#pragma unroll
            for (int i = 0; i < VECTOR; i++) s[u][g] = fmaf(q[g][i], x[i], s[u][g]);
        }
    }
#pragma unroll
    for (int offset = L / 2; offset > 0; offset >>= 1)
#pragma unroll
        for (int u = 0; u < U; u++)
#pragma unroll
            for (int g = 0; g < G; g++) s[u][g] += __shfl_xor_sync(0xffffffffu, s[u][g], offset);
#pragma unroll
    for (int u = 0; u < U; u++) {
        int j = position + u * per_load;
        bool seen = j >= begin && j < end;
#pragma unroll
        for (int g = 0; g < G; g++) s[u][g] = seen ? s[u][g] : -INFINITY;
    }
}

/* Scores become weights relative to the new maximum, and what was summed before is brought to it. */
template <int G, int U> static __device__ __forceinline__ void weigh(running<G> &now, float (&s)[U][G])
{
#pragma unroll
    for (int g = 0; g < G; g++) {
        float most = now.most[g];
#pragma unroll
        for (int u = 0; u < U; u++) most = fmaxf(most, s[u][g]);
        float old = exp2_approx(now.most[g] - most), total = now.total[g] * old;
        now.most[g] = most;
#pragma unroll
        for (int u = 0; u < U; u++) {
            s[u][g] = exp2_approx(s[u][g] - most);
            total += s[u][g];
        }
        now.total[g] = total;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) now.sum[g][i] *= old;
    }
}

template <class E, int G, int U>
static __device__ __forceinline__ void add_values(running<G> &now, const float (&s)[U][G],
                                                  const pack<E> (&v)[U])
{
#pragma unroll
    for (int u = 0; u < U; u++) {
        float x[VECTOR];
        widen(x, v[u]);
#pragma unroll
        for (int g = 0; g < G; g++)
#pragma unroll
            for (int i = 0; i < VECTOR; i++) now.sum[g][i] = fmaf(s[u][g], x[i], now.sum[g][i]);
    }
}

/* The lane groups of a warp brought together, and left in shared memory. */
template <class E, int G, int L>
static __device__ __forceinline__ void leave_warp(block_memory<E, G, L> &shared, running<G> &now)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int g = 0; g < G; g++) {
        float most = now.most[g];
#pragma unroll
        for (int offset = L; offset < 32; offset <<= 1)
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
        float factor = exp2_approx(now.most[g] - most), total = now.total[g] * factor;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) now.sum[g][i] *= factor;
#pragma unroll
        for (int offset = L; offset < 32; offset <<= 1) {
            total += __shfl_xor_sync(0xffffffffu, total, offset);
#pragma unroll
            for (int i = 0; i < VECTOR; i++)
                now.sum[g][i] += __shfl_xor_sync(0xffffffffu, now.sum[g][i], offset);
        }
        const float *x = now.sum[g];
        if (lane < L) {
            shared.sum[warp][g][2 * lane] = make_float4(x[0], x[1], x[2], x[3]);
            shared.sum[warp][g][2 * lane + 1] = make_float4(x[4], x[5], x[6], x[7]);
        }
        if (lane == 0) {
            shared.most[warp][g] = most;
            shared.total[warp][g] = total;
        }
    }
}

/* ---- All positions ------------------------------------------------------------------------------------------- */

/* The tile that comes next, on its way from memory. */
template <class E, int L> struct next_tile {
    pack<E> k[tile_reader<E, L>::UNROLL], v[tile_reader<E, L>::UNROLL];
    int first, page_after; /* its first position; the page of the tile behind it */
};

/* Asks for the job's first tile: of the cache only, so it may be called before q, k and v of this step are there. */
template <class E, int L>
static __device__ __forceinline__ void ask_first_tile(next_tile<E, L> &t, const tile_reader<E, L> &cache,
                                                      const kv_layer &kv, const job &j)
{
    t.first = j.origin;
    int page = cache.page_of(t.first);
    t.page_after = cache.page_of(t.first + tile_reader<E, L>::TILE);
    cache.load(t.k, kv.k_pool, t.first, page);
    cache.load(t.v, kv.v_pool, t.first, page);
}

/* From q and the fresh k and v in shared memory, behind a barrier; leaves every warp's result there. */
template <class E, int G, int L>
static __device__ __forceinline__ void attend_tiles(block_memory<E, G, L> &shared, next_tile<E, L> &t,
                                                    const tile_reader<E, L> &cache, const kv_layer &kv,
                                                    const job &j, const block_heads &b)
{
    using reader = tile_reader<E, L>;
    constexpr int U = reader::UNROLL;
    running<G> now;
    float q[G][VECTOR];
#pragma unroll
    for (int g = 0; g < G; g++) {
        now.most[g] = LOWEST;
        now.total[g] = 0;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            now.sum[g][i] = 0;
            q[g][i] = g < b.n && cache.c + i < kv.C ? shared.q[g][cache.c + i] : 0;
        }
    }
    while (t.first < j.end) {
        int position = t.first + cache.row, after = t.first + reader::TILE;
        if (after > j.fresh)
#pragma unroll
            for (int u = 0; u < U; u++)
                if (position + u * reader::PER_LOAD == j.fresh) {
                    t.k[u] = *(const pack<E> *)(shared.fresh_k + cache.c);
                    t.v[u] = *(const pack<E> *)(shared.fresh_v + cache.c);
                }
        float s[U][G];
        score<E, G, L, U>(s, q, t.k, position, reader::PER_LOAD, j.begin, j.end);
        cache.load(t.k, kv.k_pool, after, t.page_after);
        weigh(now, s);
        add_values(now, s, t.v);
        cache.load(t.v, kv.v_pool, after, t.page_after);
        t.page_after = cache.page_of(after + reader::TILE);
        t.first = after;
    }
    leave_warp(shared, now);
}

#endif
