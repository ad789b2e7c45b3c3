/* What becomes of the warps' results in a block of attention.cu: they are brought together and written, or merged with
 * those of the other splits by the last block to arrive. */
#ifndef NVLLM_OPS_ATTENTION_MERGE_CUH
#define NVLLM_OPS_ATTENTION_MERGE_CUH

#include "ops/attention_block.cuh"

/* The warps' results of N neighbouring channels. M: a block_memory, or what has the same of it. */
template <int N> struct merged {
    float most, total, sum[N];
};
template <int N, class M>
static __device__ __forceinline__ merged<N> merge_warps(const M &shared, int g, int c)
{
    merged<N> all = {LOWEST, 0, {}};
#pragma unroll
    for (int w = 0; w < WARPS; w++) all.most = fmaxf(all.most, shared.most[w][g]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        float factor = exp2_approx(shared.most[w][g] - all.most);
        all.total += factor * shared.total[w][g];
#pragma unroll
        for (int i = 0; i < N; i++) all.sum[i] += factor * ((const float *)shared.sum[w][g])[c + i];
    }
    return all;
}

/* One channel of all splits, MERGE_STEP of them in flight. stats and sums are the first split's. */
template <int G, int padded>
static __device__ __forceinline__ float merge_splits(const float2 *stats, const float *sums, int splits)
{
    float most = LOWEST, total = 0, sum = 0;
    for (int first = 0; first < splits; first += MERGE_STEP) {
        float2 stat[MERGE_STEP];
        float value[MERGE_STEP], before = most;
#pragma unroll
        for (int i = 0; i < MERGE_STEP; i++) {
            bool there = first + i < splits;
            stat[i] = there ? __ldcg(stats + (size_t)(first + i) * G) : make_float2(LOWEST, 0);
            value[i] = there ? __ldcg(sums + (size_t)(first + i) * G * padded) : 0;
        }
#pragma unroll
        for (int i = 0; i < MERGE_STEP; i++) most = fmaxf(most, stat[i].x);
        float old = exp2_approx(before - most);
        total *= old, sum *= old;
#pragma unroll
        for (int i = 0; i < MERGE_STEP; i++) {
            float factor = exp2_approx(stat[i].x - most);
            total += factor * stat[i].y;
            sum += factor * value[i];
        }
    }
    return sum / total;
}

/* Counts the block in, and tells whether it was the last: then all others' stores are visible to it. The counter goes
 * back to zero by itself. */
static __device__ __forceinline__ bool arrive_last(unsigned *counter, int blocks)
{
    return increment_wrapping(counter, (unsigned)blocks - 1) == (unsigned)blocks - 1;
}

template <class E, int G, int L>
static __device__ __forceinline__ void write_out(block_memory<E, G, L> &shared, const attend_args &d,
                                                 const job &j, const block_heads &b, const block_place &place)
{
    constexpr int padded = L * VECTOR;
    const op_attention_args &a = d.op.attention;
    int column = place.row * place.columns + place.column, first_block = column * d.splits;
    float2 *stats = d.partial_stats + (size_t)first_block * G;
    float *sums = d.partial_sums + (size_t)first_block * G * padded;
    float *out = a.out + (size_t)j.token * a.out_stride + (size_t)b.first * a.kv.C;
    for (int i = threadIdx.x; i < b.n * padded; i += THREADS) {
        int g = i / padded, c = i % padded;
        if (c >= a.kv.C) continue;
        merged<1> all = merge_warps<1>(shared, g, c);
        if (j.splits == 1) {
            out[(size_t)g * a.kv.C + c] = all.sum[0] / all.total;
            continue;
        }
        size_t at = (size_t)place.split * G + g;
        sums[at * padded + c] = all.sum[0];
        if (c == 0) stats[at] = make_float2(all.most, all.total);
    }
    if (j.splits == 1) return;
    __syncthreads();
    if (threadIdx.x == 0) shared.last = arrive_last(d.counters + column, j.splits);
    __syncthreads();
    if (!shared.last) return;
    for (int i = threadIdx.x; i < b.n * padded; i += THREADS) {
        int g = i / padded, c = i % padded;
        if (c < a.kv.C)
            out[(size_t)g * a.kv.C + c] =
                merge_splits<G, padded>(stats + g, sums + (size_t)g * padded + c, j.splits);
    }
}

#endif
