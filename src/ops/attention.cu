/* Paged attention on the GPU for rows with one token in this step (decode).
 *
 * A block does one row, one kv head with up to 8 of its query heads, and one split of the row's positions. The host
 * takes the numbers of splits and heads from the step's longest context, of which it knows a bound, to fill the card;
 * how long a split is, and how many are needed, every block works out from kv_len, so that one recorded graph serves
 * every length. A short context has one split, which writes the result; else the last block to arrive merges what all
 * have left in scratch.
 *
 * In a block a warp takes its part of each tile of positions. L lanes hold one position's K (8 elements each) and, of
 * the weighted sum of V, the same 8 channels: 16-byte loads, log2(L) shuffles per score. Online softmax
 * (arXiv:1805.02867) per lane group, in base 2; the groups are brought together once at the end. The next tile's K is
 * asked for as soon as the scores have used up the registers of this one's, and V likewise.
 *
 * Memory bound: reads 2*K*C*size bytes per position. Prompts that the tensor core kernel refuses (float32 cache, odd
 * C) go through the same kernel token by token, one split each. */
#include "ops/attention.cuh"

enum { WARPS = 8, THREADS = WARPS * 32, VECTOR = 8 };
enum {
    SPLIT_STEP = 64, /* a split's length and first position are multiples of this, and of every tile */
    MOST_SPLITS = 64,
    MOST_BLOCKS = 512, /* when splits are merged; bounds the scratch */
    MOST_HEADS = 8,
    MERGE_STEP = 16
};

static constexpr float LOWEST = -1e30f; /* below every score; finite, so that differences are numbers */

/* ---- The cache's elements ------------------------------------------------------------------------------------ */

/* VECTOR elements as stored. */
template <class E> struct pack {
    uint4 part[sizeof(E) * VECTOR / 16];
};

static __device__ __forceinline__ void widen_pair(float *out, uint32_t pair, __nv_bfloat16)
{
    out[0] = __uint_as_float(pair << 16);
    out[1] = __uint_as_float(pair & 0xffff0000u);
}
static __device__ __forceinline__ void widen_pair(float *out, uint32_t pair, __half)
{
    __half2_raw raw;
    raw.x = (unsigned short)(pair & 0xffffu);
    raw.y = (unsigned short)(pair >> 16);
    float2 both = __half22float2(__half2(raw));
    out[0] = both.x;
    out[1] = both.y;
}

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

/* ---- What a block does --------------------------------------------------------------------------------------- */

typedef struct {
    op_rope_attention_args op; /* k NULL: q is ready, and K and V are in the cache */
    float2 *partial_stats;     /* [block, head]: max, sum of weights */
    float *partial_sums;       /* [block, head, channel] */
    unsigned *counters;        /* [row, y] arrived blocks */
    int splits;
    int groups, heads; /* groups of `heads` query heads (the last may be smaller) per kv head */
    int page_shift;    /* S is 2^page_shift and rows are 16-byte aligned; -1: the general path */
    int by_token;      /* tokens of rows with more than one, instead of rows with one */
} attend_args;

/* One row's or token's split, in absolute positions. */
typedef struct {
    int row, token;
    int origin;     /* first tile */
    int begin, end; /* visible part */
    int fresh;      /* position whose k and v this block makes, INT_MAX: none */
    int splits;     /* that have something to do */
} job;

/* false: nothing to do. */
static __device__ __forceinline__ bool find_job(job &j, const attend_args &d)
{
    const op_attention_args &a = d.op.attention;
    j.row = d.by_token ? row_of(a.row_start, a.R, (int)blockIdx.x) : (int)blockIdx.z;
    int first = a.row_start[j.row], past = a.row_start[j.row + 1], length = a.kv_len[j.row];
    j.token = d.by_token ? (int)blockIdx.x : first;
    if ((past - first > 1) != (d.by_token != 0) || past == first) return false;
    int split = d.by_token ? 0 : (int)blockIdx.x, visible_end = length - (past - j.token) + 1;
    int visible = a.window > 0 ? max(0, visible_end - a.window) : 0;
    int start = visible & -SPLIT_STEP, count = visible_end - start, step = SPLIT_STEP;
    j.splits = (count + SPLIT_STEP - 1) / SPLIT_STEP;
    if (j.splits > d.splits) {
        step = ((count + d.splits - 1) / d.splits + SPLIT_STEP - 1) & -SPLIT_STEP;
        j.splits = (count + step - 1) / step;
    }
    if (split >= j.splits) return false;
    j.origin = start + split * step;
    j.begin = max(visible, j.origin);
    j.end = min(visible_end, j.origin + step);
    j.fresh = d.op.k && split == j.splits - 1 ? visible_end - 1 : INT_MAX;
    return true;
}

/* The heads of a block: query heads first .. first + n - 1 of kv head kv. */
typedef struct {
    int kv, first, n;
} block_heads;

static __device__ __forceinline__ block_heads heads_of_block(const attend_args &d)
{
    int ratio = d.op.attention.H / d.op.attention.kv.K;
    block_heads b;
    b.kv = blockIdx.y;
    int offset = 0;
    if (d.groups > 1) {
        b.kv = blockIdx.y / d.groups;
        offset = (int)blockIdx.y % d.groups * d.heads;
    }
    b.first = b.kv * ratio + offset;
    b.n = min(d.heads, ratio - offset);
    return b;
}

/* A block's shared memory. C is at most L * VECTOR. */
template <class E, int G, int L> struct block_memory {
    alignas(16) float q[G][L * VECTOR]; /* ready, times scale * log2(e) */
    alignas(16) E fresh_k[L * VECTOR], fresh_v[L * VECTOR];
    alignas(16) float4 sum[WARPS][G][L * 2];
    float most[WARPS][G], total[WARPS][G];
    bool last;
};

/* ---- New heads ----------------------------------------------------------------------------------------------- */

/* Norm weights of the head that is number `item` here: n of q, then k, then v. */
static __device__ __forceinline__ head_pairs item_weights(const attend_args &d, int item, int n)
{
    const float *w = item < n ? d.op.q_norm : item == n ? d.op.k_norm : NULL;
    head_pairs none = {};
    return w ? load_head(w, d.op.attention.kv.C, d.op.pairing) : none;
}

template <class E>
static __device__ __forceinline__ void keep_fresh(E *shared, E *cache, bool write, const head_pairs &h, int C,
                                                  int padded, rope_pairing pairing)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int pair = lane + 32 * i;
        if (pair >= C / 2) break;
        int2 at = pair_at(pair, C / 2, pairing);
        E x = narrow<E>(h.x[i].x), y = narrow<E>(h.x[i].y);
        shared[at.x] = x;
        shared[at.y] = y;
        if (!write) continue;
        cache[at.x] = x;
        cache[at.y] = y;
    }
    for (int c = C + lane; c < padded; c += 32) shared[c] = narrow<E>(0);
}

/* q's heads into shared memory, and k and v of a fresh position there and into the cache: a warp per head. */
template <class E, int G, int L>
static __device__ __forceinline__ void prepare_heads(block_memory<E, G, L> &shared, const attend_args &d,
                                                     const job &j, const block_heads &b, head_pairs w)
{
    const op_attention_args &a = d.op.attention;
    int C = a.kv.C, half = C / 2, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int items = b.n + (j.fresh == INT_MAX ? 0 : 2);
    float to_score = a.scale * 1.44269504089f;
    int slot = d.op.k ? d.op.slot[j.token] : 0; /* asked for early, as all that follows */
    head_pairs turn = {};
    if (d.op.k && warp <= b.n)
        turn = load_turn(d.op.cos + (size_t)j.token * half, d.op.sin + (size_t)j.token * half, C);
    for (int item = warp; item < items; item += WARPS) {
        size_t at = (size_t)j.token * a.q_stride;
        const float *x = item < b.n    ? a.q + at + (size_t)(b.first + item) * C
                         : item == b.n ? d.op.k + at + (size_t)b.kv * C
                                       : d.op.v + at + (size_t)b.kv * C;
        head_pairs h = load_head(x, C, d.op.pairing);
        if (item != warp) w = item_weights(d, item, b.n);
        if (item < b.n ? d.op.q_norm != NULL : item == b.n && d.op.k_norm) norm_head(h, w, C, d.op.eps);
        if (d.op.k && item <= b.n) turn_head(h, turn);
        if (item >= b.n) {
            size_t to = pool_index(a.kv, slot, b.kv);
            bool is_k = item == b.n, write = d.groups == 1 || blockIdx.y % d.groups == 0;
            keep_fresh(is_k ? shared.fresh_k : shared.fresh_v, (E *)(is_k ? a.kv.k_pool : a.kv.v_pool) + to,
                       write, h, C, L * VECTOR, d.op.pairing);
            continue;
        }
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            int pair = lane + 32 * i;
            if (pair >= half) break;
            int2 to = pair_at(pair, half, d.op.pairing);
            shared.q[item][to.x] = h.x[i].x * to_score;
            shared.q[item][to.y] = h.x[i].y * to_score;
        }
    }
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

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* The warps' results of one channel: max, sum of weights, weighted sum. */
template <class E, int G, int L>
static __device__ __forceinline__ float3 merge_warps(const block_memory<E, G, L> &shared, int g, int c)
{
    float3 all = {LOWEST, 0, 0};
#pragma unroll
    for (int w = 0; w < WARPS; w++) all.x = fmaxf(all.x, shared.most[w][g]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        float factor = exp2_approx(shared.most[w][g] - all.x);
        all.y += factor * shared.total[w][g];
        all.z += factor * ((const float *)shared.sum[w][g])[c];
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
                                                 const job &j, const block_heads &b)
{
    constexpr int padded = L * VECTOR;
    const op_attention_args &a = d.op.attention;
    int column = (int)(blockIdx.z * gridDim.y + blockIdx.y), first_block = column * d.splits;
    float2 *stats = d.partial_stats + (size_t)first_block * G;
    float *sums = d.partial_sums + (size_t)first_block * G * padded;
    float *out = a.out + (size_t)j.token * a.out_stride + (size_t)b.first * a.kv.C;
    for (int i = threadIdx.x; i < b.n * padded; i += THREADS) {
        int g = i / padded, c = i % padded;
        if (c >= a.kv.C) continue;
        float3 all = merge_warps(shared, g, c);
        if (j.splits == 1) {
            out[(size_t)g * a.kv.C + c] = all.z / all.y;
            continue;
        }
        size_t at = (size_t)blockIdx.x * G + g;
        sums[at * padded + c] = all.z;
        if (c == 0) stats[at] = make_float2(all.x, all.y);
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

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

/* As many as the registers allow. */
template <class E, int G> static constexpr int blocks_per_sm()
{
    return sizeof(E) == 2 && G <= 2 ? 2 : 1;
}

/* E: the cache's element; G: query heads of a block; L: lanes that share a position. Grid: (splits or tokens, kv heads
 * * groups, rows or 1). */
template <class E, int G, int L>
static __global__ void __launch_bounds__(THREADS, blocks_per_sm<E, G>())
    attend(const __grid_constant__ attend_args d)
{
    using reader = tile_reader<E, L>;
    constexpr int U = reader::UNROLL;
    block_memory<E, G, L> &shared = block_shared<block_memory<E, G, L>>();
    kernel_begins();
    const kv_layer &kv = d.op.attention.kv;
    block_heads b = heads_of_block(d);
    head_pairs w = item_weights(d, threadIdx.x / 32, b.n);
    bool early = d.op.k; /* the step's arrays and earlier K and V are older than the step's first kernel */
    if (!early) kernel_waits();
    job j;
    if (!find_job(j, d)) {
        if (early) kernel_waits();
        return;
    }
    reader cache(d, j, b.kv);
    pack<E> k[U], v[U];
    int tile = j.origin, page = cache.page_of(tile), next_page = cache.page_of(tile + reader::TILE);
    cache.load(k, kv.k_pool, tile, page);
    cache.load(v, kv.v_pool, tile, page);
    if (early) kernel_waits();
    prepare_heads(shared, d, j, b, w);
    __syncthreads();
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
    while (tile < j.end) {
        int position = tile + cache.row, after = tile + reader::TILE;
        if (after > j.fresh)
#pragma unroll
            for (int u = 0; u < U; u++)
                if (position + u * reader::PER_LOAD == j.fresh) {
                    k[u] = *(const pack<E> *)(shared.fresh_k + cache.c);
                    v[u] = *(const pack<E> *)(shared.fresh_v + cache.c);
                }
        float s[U][G];
        score<E, G, L, U>(s, q, k, position, reader::PER_LOAD, j.begin, j.end);
        cache.load(k, kv.k_pool, after, next_page);
        weigh(now, s);
        add_values(now, s, v);
        cache.load(v, kv.v_pool, after, next_page);
        next_page = cache.page_of(after + reader::TILE);
        tile = after;
    }
    leave_warp(shared, now);
    __syncthreads();
    write_out(shared, d, j, b);
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

/* Elements that a block keeps per head. */
static int padded_width(int C)
{
    return C <= 64 ? 64 : C <= 128 ? 128 : 256;
}

/* Splits that the longest context of the step can use, by a bound that all replays of a recorded step share; a window
 * begins anywhere in its first split. */
static int useful_splits(const op_attention_args *a)
{
    int64_t length = a->max_len > 0 ? a->max_len : (int64_t)a->P * a->kv.S;
    if (a->window > 0 && a->window + SPLIT_STEP - 1 < length) length = a->window + SPLIT_STEP - 1;
    return (int)((length + SPLIT_STEP - 1) / SPLIT_STEP);
}

/* Enough blocks to fill the card, and none that would find nothing to do: a block that waits for nothing holds registers
 * that the next kernel's could use. */
static int splits_of(const attend_args *d, int blocks)
{
    const op_attention_args *a = &d->op.attention;
    int splits = blocks / (a->kv.K * d->groups * a->R), useful = useful_splits(a);
    if (splits > MOST_SPLITS) splits = MOST_SPLITS;
    if (splits > useful) splits = useful;
    return splits < 1 ? 1 : splits;
}

template <class E, int G, int L> static void launch_attend(attend_args *d, const cuda_context *cuda)
{
    const op_attention_args *a = &d->op.attention;
    int columns = a->kv.K * d->groups, rows = d->by_token ? 1 : a->R;
    int blocks = cuda->multiprocessors * blocks_per_sm<E, G>();
    if (blocks > MOST_BLOCKS) blocks = MOST_BLOCKS;
    d->splits = d->by_token ? 1 : splits_of(d, blocks);
    d->partial_stats = (float2 *)cuda->scratch;
    d->partial_sums = (float *)(d->partial_stats + MOST_BLOCKS * MOST_HEADS);
    d->counters = cuda->counters;
    dim3 grid((unsigned)(d->by_token ? a->T : d->splits), (unsigned)columns, (unsigned)rows);
    launch(cuda, attend<E, G, L>, grid, THREADS, 0, *d);
}

/* Query heads of a block, of the numbers that there are variants for: 1, step, step^2 .. widest.
 *
 * All heads of a kv head in one block read K and V once, but that block computes for a time that grows with them, behind
 * the wait (from instruction counts about 0.2 us per head and 64 positions), and with 4 heads or more takes registers
 * that leave no room beside another kernel's blocks. So while multiprocessors would be idle, they take heads. The other
 * blocks then read K and V again, from the L2 cache: of the most there can be for a grid that still has a multiprocessor
 * per block, 64 positions each, that is some 4 MB or 0.7 us, and before the wait. The step from 2 heads to 1 saves least,
 * and is made only for half as many blocks. Longer contexts fill the card with splits and keep their heads together. */
static int heads_per_block(const attend_args *d, int step, int widest, int multiprocessors)
{
    const op_attention_args *a = &d->op.attention;
    int ratio = a->H / a->kv.K;
    if (d->by_token) return widest; /* has no splits, and tokens to fill the card with */
    int64_t parts = (int64_t)a->kv.K * a->R * useful_splits(a); /* blocks, if each had all heads */
    for (int heads = 1; heads < widest; heads *= step)
        if (parts * ((ratio + heads - 1) / heads) <= (heads == 1 ? multiprocessors / 2 : multiprocessors))
            return heads;
    return widest;
}

/* float32 caches get fewer variants: 1 or 4 heads. */
template <class E, int L> static void launch_heads(attend_args *d, const cuda_context *cuda)
{
    constexpr bool is_small = sizeof(E) == 2;
    constexpr int widest = is_small && L < 32 ? MOST_HEADS : 4;
    int ratio = d->op.attention.H / d->op.attention.kv.K;
    int most = heads_per_block(d, is_small ? 2 : 4, widest, cuda->multiprocessors);
    d->groups = (ratio + most - 1) / most;
    d->heads = (ratio + d->groups - 1) / d->groups;
    if (d->heads == 1)
        launch_attend<E, 1, L>(d, cuda);
    else if (d->heads == 2)
        launch_attend<E, is_small ? 2 : 4, L>(d, cuda);
    else if (d->heads <= 4)
        launch_attend<E, 4, L>(d, cuda);
    else
        launch_attend<E, widest, L>(d, cuda);
}

template <class E> static void launch_width(attend_args *d, const cuda_context *cuda)
{
    switch (padded_width(d->op.attention.kv.C)) {
    case 64: launch_heads<E, 8>(d, cuda); break;
    case 128: launch_heads<E, 16>(d, cuda); break;
    default: launch_heads<E, 32>(d, cuda); break;
    }
}

/* log2(S) when the kernel may read 16 bytes at a time and finds whole tiles in a page; else -1. */
static int page_shift_of(const kv_layer *kv)
{
    int shift = 0;
    uintptr_t misaligned = ((uintptr_t)kv->k_pool | (uintptr_t)kv->v_pool) % 16;
    while (shift < 30 && 1 << shift < kv->S) shift++;
    return 1 << shift == kv->S && kv->S >= SPLIT_STEP && kv->C % VECTOR == 0 && !misaligned ? shift : -1;
}

static void attend_all(attend_args *d, const cuda_context *cuda)
{
    d->page_shift = page_shift_of(&d->op.attention.kv);
    switch (d->op.attention.kv.format) {
    case DTYPE_F32: launch_width<float>(d, cuda); break;
    case DTYPE_F16: launch_width<__half>(d, cuda); break;
    default: launch_width<__nv_bfloat16>(d, cuda); break;
    }
}

void attention_of_single_tokens(const op_rope_attention_args *a, const cuda_context *cuda)
{
    attend_args d = {};
    d.op = *a;
    attend_all(&d, cuda);
}

void attention_of_prompts(const op_attention_args *a, const cuda_context *cuda)
{
    if (op_attention_prompt_cuda(a, cuda)) return;
    attend_args d = {};
    d.op.attention = *a;
    d.by_token = 1;
    attend_all(&d, cuda);
}

/* T <= R: see rope_attention.cu. */
extern "C" void op_attention_cuda(const op_attention_args *a, const cuda_context *cuda)
{
    op_rope_attention_args ready = {};
    ready.attention = *a;
    if (a->T > a->R) attention_of_prompts(a, cuda);
    if (a->R > 1 || a->T == 1) attention_of_single_tokens(&ready, cuda);
}

/* MOST_BLOCKS bounds it for all numbers of tokens, rows and heads. */
extern "C" size_t op_attention_cuda_scratch(int32_t C)
{
    return (size_t)MOST_BLOCKS * MOST_HEADS * (sizeof(float2) + (size_t)padded_width(C) * sizeof(float));
}
