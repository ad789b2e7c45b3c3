/* Attention over the tiles of K and V that come through the ring of persistent_block.cuh, on tensor cores.
 *
 * A tile is 64 positions, eight copies of eight neighbours. Four warps share one, and the next four the next: each takes
 * two neighbours of every copy, 16 positions, all its heads, and keeps an online softmax of its own (arXiv:1805.02867, in
 * base 2) until the warps' results are merged.
 *
 *     scores [heads, positions] = q [heads, channels] * K^T       weights as the next product's input, where they lie
 *     sum [heads, channels]    += weights [heads, positions] * V  (arXiv:2307.08691, 3.1)
 *
 * The 16 rows of a product are 8 heads twice: q, and later the weights, are each the sum of two bf16 numbers, and the
 * lane that gets a head's sum by the one also gets the other. So nothing is rounded that was not before, but for 2^-17.
 *
 * Which channels a product takes first does not matter while q and K agree: a lane reads 8 neighbours, 16 bytes, and they
 * are two products' share of it. Position n of a warp's product is one of copy n / 2 + n % 2 * 4: then eight lanes, which
 * read 64 bytes of two positions, meet all banks of shared memory, and so do the eight positions of a matrix of V. */
#ifndef NVLLM_OPS_PERSISTENT_TILES_CUH
#define NVLLM_OPS_PERSISTENT_TILES_CUH

#include "ops/persistent_block.cuh"

enum {
    TILE_WARPS = 4,                    /* that share a tile */
    TILES_AT_ONCE = WARPS / TILE_WARPS /* by turns */
};
static_assert(KV_COPIES * (COPY_POSITIONS * 2 * MOST_ROPE_PAIRS * 2 + 16) <= STAGE_PITCH, "a tile of K is one stage");

/* A block's shared memory in attention: what prepare_heads and merge_warps want. C is at most 32 * CHUNKS. */
template <int CHUNKS> struct attention_memory {
    typedef __nv_bfloat16 element;
    static constexpr int WIDTH = 32 * CHUNKS;
    alignas(16) element q[2][HEADS_AT_ONCE][WIDTH]; /* high and low part; ready, times scale * log2(e) */
    alignas(16) element fresh_k[WIDTH], fresh_v[WIDTH];
    alignas(16) float sum[WARPS][HEADS_AT_ONCE][WIDTH + 8];
    float most[WARPS][HEADS_AT_ONCE], total[WARPS][HEADS_AT_ONCE];

    __device__ __forceinline__ void put_q(int head, int c, float v)
    {
        element high = __float2bfloat16_rn(v);
        q[0][head][c] = high;
        q[1][head][c] = __float2bfloat16_rn(v - __bfloat162float(high));
    }
};

/* ---- One warp's part of a tile ------------------------------------------------------------------------------- */

/* Lane l has head l / 4; of it, channels 8 * i + 2 * (l % 4) and the next by the high parts of the weights, then by the
 * low ones. */
template <int CHUNKS> struct warp_result {
    float most, total; /* of this lane's positions */
    float sum[4 * CHUNKS][4];
};

/* Channels 32 * i + 8 * (l % 4) and on of the lane's head. */
template <int CHUNKS> struct warp_queries {
    uint4 high[CHUNKS], low[CHUNKS];
};

/* The 16 positions that a warp takes: where this lane finds its parts of them, and which are seen. */
typedef struct {
    const unsigned char *k; /* channels 8 * (l % 4) and on of position l / 4 */
    uint32_t v;             /* a row of a matrix, see load_matrices_transposed */
    int second;             /* bytes from a position to its neighbour, l / 4 + 8 */
    bool seen[4];           /* positions 2 * (l % 4) and the next, then these + 8 */
} warp_tile;

static __device__ __forceinline__ uint4 channels_or_zero(const void *from, bool there)
{
    return there ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
}

template <int CHUNKS>
static __device__ __forceinline__ warp_queries<CHUNKS> load_queries(const attention_memory<CHUNKS> &shared,
                                                                    int heads, int C)
{
    warp_queries<CHUNKS> q;
    int lane = threadIdx.x % 32, head = lane / 4, first = lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 32 * i + first;
        bool there = head < heads && c < C;
        q.high[i] = channels_or_zero(&shared.q[0][there ? head : 0][c], there);
        q.low[i] = channels_or_zero(&shared.q[1][there ? head : 0][c], there);
    }
    return q;
}

/* Scores of the lane's four positions. */
template <int CHUNKS>
static __device__ __forceinline__ void score_tile(float (&score)[4], const warp_queries<CHUNKS> &q,
                                                  const warp_tile &t, int C)
{
    float part[2][2][4] = {}; /* positions, halves of the channels */
    int first = threadIdx.x % 4 * 8;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        bool there = 32 * i + first < C;
        uint32_t one[4] = {q.high[i].x, q.low[i].x, q.high[i].y, q.low[i].y},
                 two[4] = {q.high[i].z, q.low[i].z, q.high[i].w, q.low[i].w};
#pragma unroll
        for (int n = 0; n < 2; n++) {
            uint4 k = channels_or_zero(t.k + n * t.second + 64 * i, there);
            mma_16x8x16(part[n][0], one, k.x, k.y, __nv_bfloat16());
            mma_16x8x16(part[n][1], two, k.z, k.w, __nv_bfloat16());
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float(&p)[2][4] = part[i / 2];
        float s = (p[0][i % 2] + p[1][i % 2]) + (p[0][i % 2 + 2] + p[1][i % 2 + 2]);
        score[i] = t.seen[i] ? s : -INFINITY;
    }
}

/* Scores become weights relative to the new maximum, as high and low parts, and what was summed before is brought to it. */
template <int CHUNKS>
static __device__ __forceinline__ void weigh_tile(warp_result<CHUNKS> &now, uint32_t (&weights)[4],
                                                  float (&score)[4])
{
    float most = fmaxf(fmaxf(score[0], score[1]), fmaxf(score[2], score[3]));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2)), now.most);
    float old = exp2_approx(now.most - most);
    now.most = most;
    now.total *= old;
#pragma unroll
    for (int i = 0; i < 4 * CHUNKS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) now.sum[i][j] *= old;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        score[i] = exp2_approx(score[i] - most);
        now.total += score[i];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float high[2];
        weights[2 * i] = narrow_pair(score[2 * i], score[2 * i + 1], __nv_bfloat16());
        widen_pair(high, weights[2 * i], __nv_bfloat16());
        weights[2 * i + 1] =
            narrow_pair(score[2 * i] - high[0], score[2 * i + 1] - high[1], __nv_bfloat16());
    }
}

/* All ones in the halves whose positions are seen: what stands elsewhere may be no number. */
static __device__ __forceinline__ uint32_t halves_seen(bool low, bool high)
{
    return (low ? 0xffffu : 0) | (high ? 0xffff0000u : 0);
}

template <int CHUNKS>
static __device__ __forceinline__ void add_tile(warp_result<CHUNKS> &now, const uint32_t (&weights)[4],
                                                const warp_tile &t, int C)
{
    uint32_t first = halves_seen(t.seen[0], t.seen[1]), second = halves_seen(t.seen[2], t.seen[3]);
    int last = C * 2 - 16 - (int)(threadIdx.x % 32 / 16 * 16); /* where the lane's last row begins */
#pragma unroll
    for (int i = 0; i < 2 * CHUNKS; i++) {
        if (16 * i >= C) break;
        uint32_t v[4];
        load_matrices_transposed(v, t.v + (uint32_t)min(32 * i, last));
        mma_16x8x16(now.sum[2 * i], weights, v[0] & first, v[1] & second, __nv_bfloat16());
        mma_16x8x16(now.sum[2 * i + 1], weights, v[2] & first, v[3] & second, __nv_bfloat16());
    }
}

/* ---- All tiles ----------------------------------------------------------------------------------------------- */

template <int CHUNKS>
static __device__ __forceinline__ void leave_result(attention_memory<CHUNKS> &shared,
                                                    warp_result<CHUNKS> &now, int heads)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = lane / 4;
    now.total += __shfl_xor_sync(0xffffffffu, now.total, 1);
    now.total += __shfl_xor_sync(0xffffffffu, now.total, 2);
    if (head >= heads) return;
#pragma unroll
    for (int i = 0; i < 4 * CHUNKS; i++) {
        const float(&s)[4] = now.sum[i];
        *(float2 *)&shared.sum[warp][head][8 * i + lane % 4 * 2] = make_float2(s[0] + s[2], s[1] + s[3]);
    }
    if (lane % 4 > 0) return;
    shared.most[warp][head] = now.most;
    shared.total[warp][head] = now.total;
}

static __device__ __forceinline__ void see_positions(warp_tile &t, int first, int begin, int end)
{
    int lane = threadIdx.x % 32, mine = first + lane % 4 * 8 + threadIdx.x / 32 % TILE_WARPS * 2;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int position = mine + i % 2 * (SPLIT_STEP / 2) + i / 2;
        t.seen[i] = position >= begin && position < end;
    }
}

/* From q and the fresh k and v in shared memory, behind a barrier; leaves every warp's result there. The fresh position is
 * a tile of its own, which no ring brings. */
template <int CHUNKS>
static __device__ __forceinline__ void attend_share(const persistent_args &a, block_state &b,
                                                    attention_memory<CHUNKS> &shared, const attention_share &s)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, C = a.m.C, pitch = kv_pitch(C),
        pair = warp % TILE_WARPS * 4 * C, of_matrix = lane % 8, matrix = lane / 8,
        k_at = (lane / 8 + lane / 4 % 2 * 4) * pitch + pair + lane % 4 * 16,
        v_at = (of_matrix / 2 + of_matrix % 2 * 4) * pitch + pair + matrix % 2 * C * 2 + matrix / 2 * 16;
    warp_queries<CHUNKS> q = load_queries(shared, s.heads.n, C);
    warp_result<CHUNKS> now = {};
    now.most = LOWEST;
    int tiles = s.tiles + (s.j.fresh != INT_MAX);
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        bool mine = tile % TILES_AT_ONCE == warp / TILE_WARPS, cached = tile < s.tiles;
        warp_tile t;
        float score[4];
        t.second = cached ? C * 2 : 0;
        if (cached)
            see_positions(t, s.j.origin + tile * SPLIT_STEP, s.j.begin, s.past);
        else
            see_positions(t, s.j.fresh, s.j.fresh, s.j.fresh + 1);
        t.k = cached ? receive_stage(b) + k_at : (const unsigned char *)shared.fresh_k + lane % 4 * 16;
        if (mine) score_tile(score, q, t, C);
        if (cached) release_stage(a, b);
        t.v = cached ? shared_address(receive_stage(b)) + v_at : shared_address(shared.fresh_v) + matrix / 2 * 16;
        if (mine) {
            uint32_t weights[4];
            weigh_tile(now, weights, score);
            add_tile(now, weights, t, C);
        }
        if (cached) release_stage(a, b);
    }
    leave_result(shared, now, s.heads.n);
}

#endif
