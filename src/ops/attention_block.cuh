/* A block of attention.cu: what it is asked to do, which part of that is its own, its shared memory, and the heads that it
 * norms and turns itself before it attends. */
#ifndef NVLLM_OPS_ATTENTION_BLOCK_CUH
#define NVLLM_OPS_ATTENTION_BLOCK_CUH

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

/* Which part of it is this block's. A column is a kv head's group of query heads. */
typedef struct {
    int split, column, row; /* by_token: split is the token */
    int columns;
} block_place;

/* One row's or token's split, in absolute positions. */
typedef struct {
    int row, token;
    int origin;     /* first tile */
    int begin, end; /* visible part */
    int fresh;      /* position whose k and v this block makes, INT_MAX: none */
    int splits;     /* that have something to do */
} job;

/* The split's positions, of those below visible_end; false: it has none. */
static __device__ __forceinline__ bool find_split(job &j, const attend_args &d, int window, int split,
                                                  int visible_end)
{
    int visible = window > 0 ? max(0, visible_end - window) : 0;
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

/* false: nothing to do. */
static __device__ __forceinline__ bool find_job(job &j, const attend_args &d, const block_place &at)
{
    const op_attention_args &a = d.op.attention;
    j.row = d.by_token ? row_of(a.row_start, a.R, at.split) : at.row;
    int first = a.row_start[j.row], past = a.row_start[j.row + 1], length = a.kv_len[j.row];
    j.token = d.by_token ? at.split : first;
    if ((past - first > 1) != (d.by_token != 0) || past == first) return false;
    return find_split(j, d, a.window, d.by_token ? 0 : at.split, length - (past - j.token) + 1);
}

/* The heads of a block: query heads first .. first + n - 1 of kv head kv. */
typedef struct {
    int kv, first, n;
    bool writes; /* the fresh k and v into the cache: one block of the kv head's does */
} block_heads;

static __device__ __forceinline__ block_heads heads_of_column(const attend_args &d, int column)
{
    int ratio = d.op.attention.H / d.op.attention.kv.K;
    block_heads b;
    b.kv = column;
    int offset = 0;
    if (d.groups > 1) {
        b.kv = column / d.groups;
        offset = column % d.groups * d.heads;
    }
    b.writes = offset == 0;
    b.first = b.kv * ratio + offset;
    b.n = min(d.heads, ratio - offset);
    return b;
}

/* A block's shared memory. C is at most L * VECTOR. */
template <class E, int G, int L> struct block_memory {
    typedef E element;
    static constexpr int WIDTH = L * VECTOR;
    alignas(16) float q[G][WIDTH]; /* ready, times scale * log2(e) */
    alignas(16) E fresh_k[WIDTH], fresh_v[WIDTH];
    alignas(16) float4 sum[WARPS][G][L * 2];
    float most[WARPS][G], total[WARPS][G];
    bool last;

    __device__ __forceinline__ void put_q(int head, int c, float v)
    {
        q[head][c] = v;
    }
};

/* ---- New heads ----------------------------------------------------------------------------------------------- */

/* Norm weights of the head that is number `item` here: n of q, then k, then v. */
template <int N>
static __device__ __forceinline__ head_pairs<N> item_weights(const attend_args &d, int item, int n)
{
    const float *w = item < n ? d.op.q_norm : item == n ? d.op.k_norm : NULL;
    head_pairs<N> none = {};
    return w ? load_head<N>(w, d.op.attention.kv.C, d.op.pairing) : none;
}

template <class E, int N>
static __device__ __forceinline__ void keep_fresh(E *shared, E *cache, bool write, const head_pairs<N> &h,
                                                  int C, int padded, rope_pairing pairing)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N; i++) {
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

/* Heads as the products left them in memory. */
struct stored_heads {
    const attend_args &d;
    size_t q, kv; /* where the block's first query head and its kv head begin */

    __device__ __forceinline__ stored_heads(const attend_args &d, const job &j, const block_heads &b) : d(d)
    {
        size_t token = (size_t)j.token * d.op.attention.q_stride, C = d.op.attention.kv.C;
        q = token + (size_t)b.first * C;
        kv = token + (size_t)b.kv * C;
    }

    template <int N>
    __device__ __forceinline__ head_pairs<N> load(int item, int n, int C, rope_pairing pairing) const
    {
        const float *head = item < n    ? d.op.attention.q + q + (size_t)item * C
                            : item == n ? d.op.k + kv
                                        : d.op.v + kv;
        return load_head<N>(head, C, pairing);
    }
};

/* q's heads into shared memory, and k and v of a fresh position there and into the cache: a warp per head. Items are n
 * heads of q, then k, then v; heads.load gives one to a warp. M: a block_memory, or what has the same of it. */
template <class M, class H, int N>
static __device__ __forceinline__ void prepare_heads(M &shared, const attend_args &d, const job &j,
                                                     const block_heads &b, head_pairs<N> w, const H &heads)
{
    typedef typename M::element E;
    const op_attention_args &a = d.op.attention;
    int C = a.kv.C, half = C / 2, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int items = b.n + (j.fresh == INT_MAX ? 0 : 2);
    float to_score = a.scale * 1.44269504089f;
    int slot = d.op.k ? d.op.slot[j.token] : 0; /* asked for early, as all that follows */
    head_pairs<N> turn = {};
    if (d.op.k && warp <= b.n)
        turn = load_turn<N>(d.op.cos + (size_t)j.token * half, d.op.sin + (size_t)j.token * half, C);
    for (int item = warp; item < items; item += WARPS) {
        head_pairs<N> h = heads.template load<N>(item, b.n, C, d.op.pairing);
        if (item != warp) w = item_weights<N>(d, item, b.n);
        if (item < b.n ? d.op.q_norm != NULL : item == b.n && d.op.k_norm) norm_head(h, w, C, d.op.eps);
        if (d.op.k && item <= b.n) turn_head(h, turn);
        if (item >= b.n) {
            size_t to = pool_index(a.kv, slot, b.kv);
            bool is_k = item == b.n;
            keep_fresh(is_k ? shared.fresh_k : shared.fresh_v, (E *)(is_k ? a.kv.k_pool : a.kv.v_pool) + to,
                       b.writes, h, C, M::WIDTH, d.op.pairing);
            continue;
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            int pair = lane + 32 * i;
            if (pair >= half) break;
            int2 to = pair_at(pair, half, d.op.pairing);
            shared.put_q(item, to.x, h.x[i].x * to_score);
            shared.put_q(item, to.y, h.x[i].y * to_score);
        }
    }
}

#endif
