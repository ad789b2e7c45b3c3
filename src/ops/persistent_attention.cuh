/* The attention of persistent.cu: between words of other blocks, over tiles that come through the ring (persistent_tiles.cuh).
 *
 * A block has one column (a kv head with a group of its query heads) and one split of the positions, or nothing. With
 * several splits each posts its part, and each brings together its own share of the channels of all parts. */
#ifndef NVLLM_OPS_PERSISTENT_ATTENTION_CUH
#define NVLLM_OPS_PERSISTENT_ATTENTION_CUH

#include "ops/persistent_tiles.cuh"

/* q, k and v from their words. */
struct posted_heads {
    const uint64_t *q, *k, *v;
    uint32_t tag;

    template <int N>
    __device__ __forceinline__ head_pairs<N> load(int item, int n, int C, rope_pairing pairing) const
    {
        const uint64_t *head = item < n ? q + item * C : item == n ? k : v;
        int lane = threadIdx.x % 32, half = C / 2;
        head_pairs<N> h;
        look_until([&] {
            bool all = true;
#pragma unroll
            for (int i = 0; i < N; i++) {
                int pair = lane + 32 * i;
                bool there = pair < half;
                int2 at = pair_at(there ? pair : 0, half, pairing);
                uint2 x = there ? posted_word(head + at.x) : make_uint2(0, tag);
                uint2 y = there ? posted_word(head + at.y) : make_uint2(0, tag);
                h.x[i] = make_float2(__uint_as_float(x.x), __uint_as_float(y.x));
                all = all && x.y == tag && y.y == tag;
            }
            return all;
        });
        return h;
    }
};

/* A part: channels of every head, two words each pair; then of every head the largest score and the sum of weights. */
static __device__ __forceinline__ uint64_t *part_words(const persistent_args &a, int column, int split)
{
    return a.m.words + a.at.partial + (size_t)(split * a.columns + column) * a.at.per_part;
}

/* Two neighbouring channels of all parts. */
static __device__ __forceinline__ float2 merge_parts(const persistent_args &a, int column, int splits, int g,
                                                     int c, uint32_t tag)
{
    enum { AT_ONCE = 8 };
    int C = a.m.C;
    float most = LOWEST, total = 0;
    float2 sum = make_float2(0, 0);
    for (int first = 0; first < splits; first += AT_ONCE) {
        uint4 value[AT_ONCE], stat[AT_ONCE];
        look_until([&] {
            bool all = true;
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const uint64_t *part = part_words(a, column, first + i);
                bool there = first + i < splits;
                value[i] = there ? posted_pair(part + g * C + c) : make_uint4(0, tag, 0, tag);
                stat[i] = there ? posted_pair(part + HEADS_AT_ONCE * C + 2 * g)
                                : make_uint4(__float_as_uint(LOWEST), tag, 0, tag);
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                all = all && value[i].y == tag && value[i].w == tag && stat[i].y == tag && stat[i].w == tag;
            return all;
        });
        float before = most;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) most = fmaxf(most, __uint_as_float(stat[i].x));
        float old = exp2_approx(before - most);
        total *= old, sum.x *= old, sum.y *= old;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            float factor = exp2_approx(__uint_as_float(stat[i].x) - most);
            total += factor * __uint_as_float(stat[i].z);
            sum.x += factor * __uint_as_float(value[i].x);
            sum.y += factor * __uint_as_float(value[i].z);
        }
    }
    return make_float2(sum.x / total, sum.y / total);
}

/* The block's result: for the product behind, or for the other splits and then its share of the channels. */
template <int CHUNKS, bool WHOLE>
static __device__ __forceinline__ void post_result(const attention_memory<CHUNKS> &shared,
                                                   const persistent_args &a, const block_state &b,
                                                   const attention_share &s)
{
    const job &j = s.j;
    const block_heads &heads = s.heads;
    const block_place &place = s.place;
    const int C = WHOLE ? 32 * CHUNKS : a.m.C, half = C / 2, pairs = heads.n * half;
    uint64_t *out = a.m.words + a.at.attention + heads.first * half;
    uint64_t *part = part_words(a, place.column, place.split);
    for (int i = threadIdx.x; i < pairs; i += THREADS) {
        int g = i / half, c = i % half * 2;
        merged<2> all = merge_warps<2>(shared, g, c);
        if (j.splits == 1) {
            post_word(out + i, narrow_pair(all.sum[0] / all.total, all.sum[1] / all.total, __nv_bfloat16()),
                      b.tag);
            continue;
        }
        post_float(part + g * C + c, all.sum[0], b.tag);
        post_float(part + g * C + c + 1, all.sum[1], b.tag);
        if (c > 0) continue;
        post_float(part + HEADS_AT_ONCE * C + 2 * g, all.most, b.tag);
        post_float(part + HEADS_AT_ONCE * C + 2 * g + 1, all.total, b.tag);
    }
    if (j.splits == 1) return;
    int past = s.own_end;
    for (int base = s.own_pair; base < past; base += THREADS) {
        int i = base + (int)threadIdx.x;
        if (base + (int)threadIdx.x / 32 * 32 >= past) break; /* whole warps */
        int at = min(i, past - 1);
        float2 v = merge_parts(a, place.column, j.splits, at / half, at % half * 2, b.tag);
        if (i < past) post_word(out + i, narrow_pair(v.x, v.y, __nv_bfloat16()), b.tag);
    }
}

/* One layer's attention, by the blocks that have a part in it. */
template <int CHUNKS, bool WHOLE>
static __device__ __forceinline__ void attend_layer(const persistent_args &a, block_state &b,
                                                    const persistent_layer &l, int length)
{
    const attention_share &s = b.s->attention;
    if (l.window != s.window) {
        meet();
        if (threadIdx.x == 0) b.s->attention = share_of_attention(a, l.window, length);
        meet();
    }
    if (s.none) return;
    attend_args d = a.attend;
    d.op.attention.kv.k_pool = l.k_pool;
    d.op.attention.kv.v_pool = l.v_pool;
    d.op.q_norm = l.q_norm;
    d.op.k_norm = l.k_norm;
    d.op.cos = b.s->cos;
    d.op.sin = b.s->sin;
    attention_memory<CHUNKS> &shared = *(attention_memory<CHUNKS> *)b.work;
    head_pairs<CHUNKS / 2> w = item_weights<CHUNKS / 2>(d, threadIdx.x / 32, s.heads.n);
    const uint64_t *qkv = a.m.words + a.at.qkv, *k = qkv + (a.m.H + s.heads.kv) * a.m.C;
    posted_heads posted = {qkv + s.heads.first * a.m.C, k, k + a.m.K * a.m.C, b.tag};
    prepare_heads(shared, d, s.j, s.heads, w, posted);
    meet();
    attend_share<CHUNKS, WHOLE>(a, b, shared, s);
    meet();
    post_result<CHUNKS, WHOLE>(shared, a, b, s);
}

#endif
