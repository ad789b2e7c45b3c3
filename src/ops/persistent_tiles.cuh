/* Attention over the tiles of K and V that come through the ring of persistent_stream.cuh, on tensor cores.
 *
 * A tile is 64 positions, eight copies of eight neighbours. Each of the 8 warps takes the same one of every copy, for all
 * heads, and keeps an online softmax of its own (arXiv:1805.02867, in base 2) until the warps' results are merged.
 *
 *     scores [heads, positions] = q [heads, channels] * K^T       weights as the next product's input, where they lie
 *     sum [heads, channels]    += weights [heads, positions] * V  (arXiv:2307.08691, 3.1)
 *
 * q and the weights are each taken as the sum of two bf16 numbers, so that nothing is rounded that was not before, but for
 * 2^-17. A product has room for both: of its 16 rows 8 are the heads by the high parts, 8 the same by the low ones, and
 * one lane gets a head's sums of both.
 *
 * Which channels a product takes first does not matter while q and K agree: a lane reads 8 neighbours, 16 bytes, and they
 * are two products' share of it. Position n of a warp is one of copy n / 2 + n % 2 * 4: then eight lanes, which read 64
 * bytes of two positions, meet all banks of shared memory once, and so do the eight rows of a matrix of V. The fresh
 * position is read where this step has put it, in place of its row of the tile. */
#ifndef NVLLM_OPS_PERSISTENT_TILES_CUH
#define NVLLM_OPS_PERSISTENT_TILES_CUH

#include "ops/persistent_stream.cuh"

static_assert(KV_COPIES * (COPY_POSITIONS * 2 * MOST_ROPE_PAIRS * 2 + 16) <= STAGE_PITCH,
              "a tile of K is one stage");

/* A block's shared memory in attention: what prepare_heads and merge_warps want. C is at most 32 * CHUNKS. */
template <int CHUNKS> struct attention_memory {
    typedef __nv_bfloat16 element;
    static constexpr int WIDTH = 32 * CHUNKS;
    alignas(16) element
        q[HEADS_AT_ONCE][2 * WIDTH]; /* ready, times scale * log2(e): pairs' high parts before low ones */
    alignas(16) element fresh_k[WIDTH], fresh_v[WIDTH];
    alignas(16) float sum[WARPS][HEADS_AT_ONCE][WIDTH + 8];
    float most[WARPS][HEADS_AT_ONCE], total[WARPS][HEADS_AT_ONCE];

    __device__ __forceinline__ void put_q(int head, int c, float v)
    {
        element high = __float2bfloat16_rn(v), *pair = &q[head][c / 2 * 4 + c % 2];
        pair[0] = high;
        pair[2] = __float2bfloat16_rn(v - __bfloat162float(high));
    }
};

/* ---- One warp's part of a tile ------------------------------------------------------------------------------- */

/* Lane l has of head l / 4 channels 8 * i + 2 * (l % 4) and the next, in sum[i][0] and [1]; what is to be added to them, from
 * low parts, in sum[i][2] and [3]. */
template <int CHUNKS> struct warp_result {
    float most, total; /* of this lane's positions */
    float sum[4 * CHUNKS][4];
};

/* Of head l / 4 channels 32 * i + 8 * (l % 4) and on: two products' share. */
template <int CHUNKS> struct warp_queries {
    uint32_t share[CHUNKS][2][4];
};

/* Where a lane finds its parts of the warp's 8 positions, and which of them are seen. */
typedef struct {
    const unsigned char *k; /* channels 8 * (l % 4) and on of position l / 4 */
    uint32_t v;             /* channels 8 * (l / 8) and on of position l % 8: a row of a matrix */
    bool seen[2];           /* positions 2 * (l % 4) and the next */
    bool whole;             /* all of the tile's are */
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
    int lane = threadIdx.x % 32, head = lane / 4;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int c = 32 * i + lane % 4 * 8;
        bool there = head < heads && c < C;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint4 v = channels_or_zero(&shared.q[there ? head : 0][2 * c + 8 * j], there);
            q.share[i][j][0] = v.x, q.share[i][j][1] = v.y, q.share[i][j][2] = v.z, q.share[i][j][3] = v.w;
        }
    }
    return q;
}

/* The warp's K, then the scores of the lane's two positions. */
template <int CHUNKS>
static __device__ __forceinline__ void load_keys(uint4 (&k)[CHUNKS], const warp_tile &t, int C)
{
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        k[i] = channels_or_zero(t.k + 64 * i, 32 * i + (int)(threadIdx.x % 4) * 8 < C);
}

template <int CHUNKS>
static __device__ __forceinline__ void score_tile(float (&score)[2], const warp_queries<CHUNKS> &q,
                                                  const uint4 (&k)[CHUNKS], const warp_tile &t)
{
    float part[2][4] = {};
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        mma_16x8x16(part[0], q.share[i][0], k[i].x, k[i].y, __nv_bfloat16());
        mma_16x8x16(part[1], q.share[i][1], k[i].z, k[i].w, __nv_bfloat16());
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float s = (part[0][i] + part[1][i]) + (part[0][i + 2] + part[1][i + 2]);
        score[i] = t.seen[i] ? s : -INFINITY;
    }
}

/* Scores become weights relative to the new maximum, high and low parts, and what was summed before is brought to it. */
template <int CHUNKS>
static __device__ __forceinline__ void weigh_tile(warp_result<CHUNKS> &now, uint32_t (&weights)[2],
                                                  const float (&score)[2], bool is_first)
{
    float most = fmaxf(score[0], score[1]), high[2];
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    if (__any_sync(0xffffffffu, most > now.most)) {
        most = fmaxf(most, now.most);
        float old = exp2_approx(now.most - most);
        now.most = most;
        now.total *= old;
        if (!is_first)
#pragma unroll
            for (int i = 0; i < 4 * CHUNKS; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) now.sum[i][j] *= old;
    }
    float first = exp2_approx(score[0] - now.most), second = exp2_approx(score[1] - now.most);
    now.total += first + second;
    weights[0] = narrow_pair(first, second, __nv_bfloat16());
    widen_pair(high, weights[0], __nv_bfloat16());
    weights[1] = narrow_pair(first - high[0], second - high[1], __nv_bfloat16());
}

/* Matrices of 8 positions and 8 channels; what is not seen may be no number, and is left out of a tile that has such. */
template <int CHUNKS>
static __device__ __forceinline__ void load_values(uint32_t (&v)[CHUNKS][4], const warp_tile &t, int C)
{
    int last = C * 2 - 16 - (int)(threadIdx.x % 32 / 8 * 16); /* where the lane's last row begins */
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        load_matrices_transposed(v[i], t.v + (C < 32 * CHUNKS ? (uint32_t)min(64 * i, last) : 64u * i));
    if (t.whole) return;
    uint32_t seen = (t.seen[0] ? 0xffffu : 0) | (t.seen[1] ? 0xffff0000u : 0);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) v[i][j] &= seen;
}

template <int CHUNKS>
static __device__ __forceinline__ void add_values(warp_result<CHUNKS> &now, const uint32_t (&weights)[2],
                                                  const uint32_t (&v)[CHUNKS][4])
{
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma_16x8x8(now.sum[4 * i + j], weights, v[i][j], __nv_bfloat16());
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
    for (int i = 0; i < 4 * CHUNKS; i++)
        *(float2 *)&shared.sum[warp][head][8 * i + lane % 4 * 2] =
            make_float2(now.sum[i][0] + now.sum[i][2], now.sum[i][1] + now.sum[i][3]);
    if (lane % 4 > 0) return;
    shared.most[warp][head] = now.most;
    shared.total[warp][head] = now.total;
}

/* The copy of the warp's position n. */
static __device__ __forceinline__ int copy_of(int n)
{
    return n / 2 + n % 2 * 4;
}

/* From q and the fresh k and v in shared memory, behind a barrier; leaves every warp's result there. */
template <int CHUNKS, bool WHOLE>
static __device__ __forceinline__ void attend_share(const persistent_args &a, block_state &b,
                                                    attention_memory<CHUNKS> &shared,
                                                    const attention_share &s)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, C = WHOLE ? 32 * CHUNKS : a.m.C,
              copy_of_k = copy_of(lane / 4), copy_of_v = copy_of(lane % 8), in_copy = warp * C * 2,
              k_at = copy_of_k * kv_pitch(C) + in_copy + lane % 4 * 16,
              v_at = copy_of_v * kv_pitch(C) + in_copy + lane / 8 * 16;
    const unsigned char *fresh_k = (const unsigned char *)shared.fresh_k + lane % 4 * 16;
    const uint32_t fresh_v = shared_address(shared.fresh_v) + lane / 8 * 16;
    warp_queries<CHUNKS> q = load_queries(shared, s.heads.n, C);
    warp_result<CHUNKS> now = {};
    now.most = LOWEST;
    int first = s.j.origin + warp; /* of the warp's position in copy 0 */
#pragma unroll 1
    for (int tile = 0; tile < s.tiles; tile++, first += SPLIT_STEP) {
        warp_tile t;
        uint4 k[CHUNKS];
        uint32_t v[CHUNKS][4], weights[2];
        float score[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int position = first + copy_of(lane % 4 * 2 + i) * COPY_POSITIONS;
            t.seen[i] = position >= s.j.begin && position < s.j.end;
        }
        t.whole = first - warp >= s.j.begin && first - warp + SPLIT_STEP <= s.j.end;
        const unsigned char *stage = receive_stage(b);
        t.k = first + copy_of_k * COPY_POSITIONS == s.j.fresh ? fresh_k : stage + k_at;
        load_keys(k, t, C);
        release_stage(a, b);
        score_tile(score, q, k, t);
        stage = receive_stage(b);
        t.v = first + copy_of_v * COPY_POSITIONS == s.j.fresh ? fresh_v : shared_address(stage) + v_at;
        load_values(v, t, C);
        release_stage(a, b);
        weigh_tile(now, weights, score, tile == 0);
        add_values(now, weights, v);
    }
    leave_result(shared, now, s.heads.n);
}

#endif
