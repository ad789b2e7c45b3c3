/* How attention.cu reads the cache: 8 elements of a position per lane, and tiles of positions through the page table. */
#ifndef NVLLM_OPS_ATTENTION_CACHE_CUH
#define NVLLM_OPS_ATTENTION_CACHE_CUH

#include "ops/attention_block.cuh"

/* VECTOR elements as stored. */
template <class E> struct pack {
    uint4 part[sizeof(E) * VECTOR / 16];
};

template <class E> static __device__ __forceinline__ void widen(float (&out)[VECTOR], const pack<E> &p)
{
    widen_pair(out, p.part[0].x, E());
    widen_pair(out + 2, p.part[0].y, E());
    widen_pair(out + 4, p.part[0].z, E());
    widen_pair(out + 6, p.part[0].w, E());
}
template <> __device__ __forceinline__ void widen<float>(float (&out)[VECTOR], const pack<float> &p)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        out[4 * i] = __uint_as_float(p.part[i].x);
        out[4 * i + 1] = __uint_as_float(p.part[i].y);
        out[4 * i + 2] = __uint_as_float(p.part[i].z);
        out[4 * i + 3] = __uint_as_float(p.part[i].w);
    }
}

/* The first n (even, may be <= 0) of VECTOR elements, the others zero; only aligned for pairs. */
template <class E> static __device__ __forceinline__ pack<E> load_pairs(const E *from, int n)
{
    pack<E> p;
    uint32_t word[sizeof p / 4];
    constexpr int per_pair = sizeof(E) / 2;
#pragma unroll
    for (int i = 0; i < (int)(sizeof p / 4); i++)
        word[i] = i / per_pair * 2 < n ? ((const uint32_t *)from)[i] : 0;
#pragma unroll
    for (int i = 0; i < (int)(sizeof p / 16); i++)
        p.part[i] = make_uint4(word[4 * i], word[4 * i + 1], word[4 * i + 2], word[4 * i + 3]);
    return p;
}

/* ---- Reading the cache --------------------------------------------------------------------------------------- */

/* A lane's view of the tiles: it holds channels c .. c+7 of the positions tile + row + u * PER_LOAD, u < UNROLL. */
template <class E, int L> struct tile_reader {
    static constexpr int PER_LOAD = 32 / L, UNROLL = L == 8 ? 2 : 4, TILE = WARPS * PER_LOAD * UNROLL;
    const int32_t *pages; /* the row's */
    int kv_head, K, S, C, page_shift;
    int row, c, begin, end; /* positions in begin <= j < end are read */

    __device__ __forceinline__ tile_reader(const attend_args &d, const job &j, int kv)
    {
        const op_attention_args &a = d.op.attention;
        int lane = threadIdx.x % 32;
        pages = a.pages + (size_t)j.row * a.P;
        kv_head = kv, K = a.kv.K, S = a.kv.S, C = a.kv.C, page_shift = d.page_shift;
        row = (int)threadIdx.x / 32 * PER_LOAD * UNROLL + lane / L;
        c = lane % L * VECTOR;
        begin = j.begin, end = min(j.end, j.fresh);
    }

    /* The page of a tile, asked for ahead of time; tiles past the end have none. */
    __device__ __forceinline__ int page_of(int tile) const
    {
        return page_shift >= 0 && tile < end ? pages[tile >> page_shift] : 0;
    }

    __device__ __forceinline__ void load(pack<E> (&out)[UNROLL], const void *pool, int tile, int page) const
    {
        if (page_shift < 0) {
            load_anywhere(out, (const E *)pool, tile);
            return;
        }
        size_t first = (((size_t)page * K + kv_head) << page_shift) + (tile & (S - 1)) + row;
        const E *from = (const E *)pool + first * C + c;
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            int j = tile + row + u * PER_LOAD;
            bool there = j >= begin && j < end && c < C;
#pragma unroll
            for (int i = 0; i < (int)(sizeof out[u] / 16); i++)
                out[u].part[i] = load_once((const uint4 *)(from + u * PER_LOAD * C) + i, there);
        }
    }

    /* Any S, any even C: a page for every position, and a pair at a time. */
    __device__ __forceinline__ void load_anywhere(pack<E> (&out)[UNROLL], const E *pool, int tile) const
    {
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            int j = tile + row + u * PER_LOAD, n = j >= begin && j < end ? C - c : 0;
            size_t at = n > 0 ? (((size_t)pages[j / S] * K + kv_head) * S + j % S) * C + c : 0;
            out[u] = load_pairs(pool + at, n);
        }
    }
};

#endif
