/* Paged attention on the GPU for rows with one token in this step (decode), and the write into the cache.
 *
 * A block does one row, one kv head with up to 8 of its query heads, and one split of the row's positions. The host
 * takes the number of splits from the step's longest context (max_len), so that no block is there for nothing; how
 * long a split is, and how many are needed, every block works out from kv_len.
 *
 * Splits are merged in one of three ways. One split writes the result. Up to 16 splits are one thread block cluster
 * (compute capability 9.0 and later): every block sends each other one a share of the channels, straight into its
 * shared memory, and merges the share it gets itself; nobody waits but for those sums. Without clusters, and for long
 * contexts, the last block to arrive merges what all have left in scratch.
 *
 * In a block a warp takes its part of each tile of positions. L lanes hold one position's K (8 elements each) and, of
 * the weighted sum of V, the same 8 channels: 16-byte loads, log2(L) shuffles per score. Online softmax
 * (arXiv:1805.02867) per lane group, in base 2; the groups are brought together once at the end. The next tile's K is
 * asked for as soon as the scores have used up the registers of this one's, and V likewise.
 *
 * In the fused op all that earlier steps wrote (the cache of earlier positions) and the step's own arrays are read
 * before the kernel waits: the first tile into registers, the next ones into the L2 cache. The step's arrays are
 * written before its first kernel starts.
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
    MOST_BLOCKS_OF_CLUSTER = 16,
    PORTABLE_CLUSTER = 8, /* every GPU with clusters runs these */
    TILES_AHEAD = 3,      /* fetched into the L2 cache before the wait, beside the tile in registers */
    MERGE_STEP = 8
};

static constexpr float LOWEST = -1e30f; /* below every score; finite, so that differences are numbers */

/* ---- KV write ------------------------------------------------------------------------------------------------ */

template <class E> static __global__ void kv_write(op_kv_write_args a)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x, slot = a.slot[t];
    for (int i = threadIdx.x; i < a.kv.K * a.kv.C; i += blockDim.x) {
        size_t at = pool_index(a.kv, slot, i / a.kv.C) + i % a.kv.C;
        ((E *)a.kv.k_pool)[at] = narrow<E>(a.k[(size_t)t * a.stride + i]);
        ((E *)a.kv.v_pool)[at] = narrow<E>(a.v[(size_t)t * a.stride + i]);
    }
}

extern "C" void op_kv_write_cuda(const op_kv_write_args *a, const cuda_context *cuda)
{
    switch (a->kv.format) {
    case DTYPE_F32: launch(cuda, kv_write<float>, a->T, 256, 0, *a); break;
    case DTYPE_F16: launch(cuda, kv_write<__half>, a->T, 256, 0, *a); break;
    default: launch(cuda, kv_write<__nv_bfloat16>, a->T, 256, 0, *a); break;
    }
}

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

/* 16 bytes that are read once, or zero; no branch, so that many stay in flight. */
static __device__ __forceinline__ uint4 load_once(const void *from, bool there)
{
    uint4 v = {0, 0, 0, 0};
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.u32 p, %5, 0;\n"
                 "@p ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                 "}"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
                 : "l"(from), "r"((int)there)
                 : "memory");
    return v;
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

static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- Clusters ------------------------------------------------------------------------------------------------ */

/* Compute capability 9.0 and later only; elsewhere never reached. */

template <class T> static __device__ __forceinline__ uint32_t shared_address(const T *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Tells the cluster that this block takes post: everything in one phase of `bytes` bytes. All threads. The others only
 * need to see the mbarrier, for which its fence is enough. */
static __device__ __forceinline__ void open_post(uint64_t *arrived, int bytes)
{
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0)
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n"
                     "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;\n"
                     "fence.mbarrier_init.release.cluster;" ::"r"(shared_address(arrived)),
                     "r"(bytes)
                     : "memory");
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}

/* Until all blocks of the cluster take post, or have ended. All threads. */
static __device__ __forceinline__ void cluster_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

/* Puts v at `to` in the shared memory of another block of the cluster, or this one. */
static __device__ __forceinline__ void post(float4 v, const float4 *to, const uint64_t *arrived, int block)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n.reg .u32 there, count;\n"
                 "mapa.shared::cluster.u32 there, %0, %2;\n"
                 "mapa.shared::cluster.u32 count, %1, %2;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], {%3, %4, %5, %6}, "
                 "[count];\n}" ::"r"(shared_address(to)),
                 "r"(shared_address(arrived)), "r"(block), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
#endif
}
static __device__ __forceinline__ void post(float2 v, const float2 *to, const uint64_t *arrived, int block)
{
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n.reg .u32 there, count;\n"
        "mapa.shared::cluster.u32 there, %0, %2;\n"
        "mapa.shared::cluster.u32 count, %1, %2;\n"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [there], {%3, %4}, [count];\n}" ::"r"(
            shared_address(to)),
        "r"(shared_address(arrived)), "r"(block), "f"(v.x), "f"(v.y)
        : "memory");
#endif
}

/* Until all bytes are there. */
static __device__ __forceinline__ void wait_for_post(const uint64_t *arrived)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n.reg .pred there;\nagain:\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 there, [%0], 0;\n"
                 "@!there bra again;\n}" ::"r"(shared_address(arrived))
                 : "memory");
#endif
}

/* Asks for bytes (a multiple of 16) to be in the L2 cache. */
static __device__ __forceinline__ void fetch_ahead(const void *from, int bytes)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}

/* ---- What a block does --------------------------------------------------------------------------------------- */

typedef struct {
    op_rope_attention_args op; /* k NULL: q is ready, and K and V are in the cache */
    float2 *partial_stats;     /* [block, head]: max, sum of weights */
    float *partial_sums;       /* [block, head, channel] */
    unsigned *counters;        /* [row, y] arrived blocks */
    int splits;
    int clustered;     /* the splits of a row and head are a cluster */
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
    bool writes; /* k and v into the cache: one group does */
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
    b.writes = offset == 0;
    return b;
}

/* A block's shared memory. C is at most L * VECTOR. */
template <class E, int G, int L> struct block_memory {
    alignas(16) float q[G][L * VECTOR]; /* ready, times scale * log2(e) */
    alignas(16) E fresh_k[L * VECTOR], fresh_v[L * VECTOR];
    alignas(16) float4 sum[WARPS][G][L * 2];
    float2 stats[WARPS][G]; /* max, sum of weights */
    bool last;
    /* From the blocks of the cluster, [block, share of the quads] and [block][head]. */
    alignas(16) float4 peer_sum[G * L * 2 + MOST_BLOCKS_OF_CLUSTER];
    float2 peer_stats[MOST_BLOCKS_OF_CLUSTER][G];
    uint64_t arrived; /* mbarrier: all of that is there */
};

/* ---- New heads ----------------------------------------------------------------------------------------------- */

/* A block's new heads are its n of q, then k and v when it has a fresh position; warp w does heads w, w + WARPS. */
template <int N> struct head_plan { /* N pairs a lane */
    int items;
    pair_layout pairs;
    const float *x;         /* the warp's first head, */
    head_pairs<N> w;        /* its norm weights */
    const float *cos, *sin; /* at the lane's first pair */
    size_t fresh_at;        /* where k and v go in the pools */
};

static __device__ __forceinline__ const float *item_source(const attend_args &d, const job &j,
                                                           const block_heads &b, int item)
{
    size_t at = (size_t)j.token * d.op.attention.q_stride, C = d.op.attention.kv.C;
    if (item < b.n) return d.op.attention.q + at + (b.first + item) * C;
    return (item == b.n ? d.op.k : d.op.v) + at + b.kv * C;
}

static __device__ __forceinline__ const float *item_weights(const attend_args &d, const block_heads &b,
                                                            int item)
{
    return item < b.n ? d.op.q_norm : item == b.n ? d.op.k_norm : NULL;
}

/* All that is known before q, k and v are. */
template <int N>
static __device__ __forceinline__ head_plan<N> plan_heads(const attend_args &d, const job &j,
                                                          const block_heads &b)
{
    head_plan<N> plan = {};
    int C = d.op.attention.kv.C, item = threadIdx.x / 32;
    plan.items = b.n + (j.fresh == INT_MAX ? 0 : 2);
    plan.pairs = lay_out_pairs(C, d.op.pairing);
    if (item >= plan.items) return plan;
    size_t angle = (size_t)j.token * plan.pairs.half + threadIdx.x % 32;
    const float *w = item_weights(d, b, item);
    plan.x = item_source(d, j, b, item) + plan.pairs.first;
    plan.cos = d.op.cos + angle;
    plan.sin = d.op.sin + angle;
    if (w) plan.w = load_head<N>(w + plan.pairs.first, plan.pairs);
    if (j.fresh != INT_MAX) plan.fresh_at = pool_index(d.op.attention.kv, d.op.slot[j.token], b.kv);
    return plan;
}

/* A head to shared memory, the rest of its row zero. */
template <class E, int N>
static __device__ __forceinline__ void leave_head(E *to, const head_pairs<N> &h, const pair_layout &at,
                                                  float factor)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        if (has_pair(at, i)) {
            to[at.first + i * at.step] = narrow<E>(h.x[i].x * factor);
            to[at.first + i * at.step + at.other] = narrow<E>(h.x[i].y * factor);
        }
    for (int c = 2 * at.half + (int)threadIdx.x % 32; c < N * 64; c += 32) to[c] = narrow<E>(0);
}

template <class E, int N>
static __device__ __forceinline__ void cache_head(E *to, const head_pairs<N> &h, const pair_layout &at)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        if (has_pair(at, i)) {
            to[at.first + i * at.step] = narrow<E>(h.x[i].x);
            to[at.first + i * at.step + at.other] = narrow<E>(h.x[i].y);
        }
}

/* q's heads into shared memory, and k and v of a fresh position there and into the cache. */
template <class E, int G, int L, int N>
static __device__ __forceinline__ void prepare_heads(block_memory<E, G, L> &shared, const attend_args &d,
                                                     const job &j, const block_heads &b, head_plan<N> &plan)
{
    const kv_layer &kv = d.op.attention.kv;
    const pair_layout &at = plan.pairs;
    int warp = threadIdx.x / 32;
    head_pairs<N> turn = {};
    if (warp >= plan.items) return;
    if (d.op.k && warp <= b.n) turn = load_turn<N>(plan.cos, plan.sin, at);
    constexpr bool one_each = G + 2 <= WARPS;
    for (int item = warp; item < plan.items; item += WARPS) {
        const float *w = item_weights(d, b, item);
        if (!one_each && item != warp) {
            plan.x = item_source(d, j, b, item) + at.first;
            if (w) plan.w = load_head<N>(w + at.first, at);
        }
        head_pairs<N> h = load_head<N>(plan.x, at);
        if (w) norm_head(h, plan.w, kv.C, d.op.eps);
        if (d.op.k && item <= b.n) turn_head(h, turn);
        bool is_k = item == b.n;
        if (item < b.n)
            leave_head(shared.q[item], h, at, d.op.attention.scale * 1.44269504089f);
        else
            leave_head(is_k ? shared.fresh_k : shared.fresh_v, h, at, 1);
        if (item >= b.n && b.writes) cache_head((E *)(is_k ? kv.k_pool : kv.v_pool) + plan.fresh_at, h, at);
        if (one_each) break;
    }
}

/* ---- Reading the cache --------------------------------------------------------------------------------------- */

/* A lane's view of the tiles: it holds channels c .. c+7 of the positions tile + row + u * PER_LOAD, u < UNROLL. */
template <class E, int L, bool PAGED> struct tile_reader {
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
        return PAGED && tile < end ? pages[tile >> page_shift] : 0;
    }

    __device__ __forceinline__ void load(pack<E> (&out)[UNROLL], const void *pool, int tile, int page) const
    {
        if (!PAGED) {
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

    /* The tiles after `tile` into the L2 cache: a thread per tile and pool. */
    __device__ __forceinline__ void fetch_tiles_ahead(const kv_layer &kv, int tile) const
    {
        int i = threadIdx.x / 2;
        tile += (i + 1) * TILE;
        if (i >= TILES_AHEAD || tile >= end || !PAGED) return;
        size_t first = (((size_t)pages[tile >> page_shift] * K + kv_head) << page_shift) + (tile & (S - 1));
        const E *pool = (const E *)(threadIdx.x % 2 ? kv.v_pool : kv.k_pool);
        fetch_ahead(pool + first * C, min(TILE, end - tile) * C * (int)sizeof(E));
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
        float old = exp2_fast(now.most[g] - most), total = now.total[g] * old;
        now.most[g] = most;
#pragma unroll
        for (int u = 0; u < U; u++) {
            s[u][g] = exp2_fast(s[u][g] - most);
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
        float factor = exp2_fast(now.most[g] - most), total = now.total[g] * factor;
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
        if (lane == 0) shared.stats[warp][g] = make_float2(most, total);
    }
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* Max and sum of weights of all warps for head g. */
template <class E, int G, int L>
static __device__ __forceinline__ float2 merge_stats(const block_memory<E, G, L> &shared, int g)
{
    float2 all = {LOWEST, 0};
#pragma unroll
    for (int w = 0; w < WARPS; w++) all.x = fmaxf(all.x, shared.stats[w][g].x);
#pragma unroll
    for (int w = 0; w < WARPS; w++) all.y += exp2_fast(shared.stats[w][g].x - all.x) * shared.stats[w][g].y;
    return all;
}

/* The warps' weighted sums of four channels, relative to the max `most` of all warps. */
template <class E, int G, int L>
static __device__ __forceinline__ float4 merge_sums(const block_memory<E, G, L> &shared, int g, int quad,
                                                    float most)
{
    float4 all = {0, 0, 0, 0};
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        float factor = exp2_fast(shared.stats[w][g].x - most);
        float4 x = shared.sum[w][g][quad];
        all.x += factor * x.x, all.y += factor * x.y;
        all.z += factor * x.z, all.w += factor * x.w;
    }
    return all;
}

/* One channel of all splits, MERGE_STEP of them in flight; stats and sums are the first split's, the others follow at
 * these steps. */
static __device__ __forceinline__ float merge_splits(const float2 *stats, int stats_step, const float *sums,
                                                     int sums_step, int splits)
{
    float most = LOWEST, total = 0, sum = 0;
    for (int first = 0; first < splits; first += MERGE_STEP) {
        float2 stat[MERGE_STEP];
        float value[MERGE_STEP], before = most;
#pragma unroll
        for (int i = 0; i < MERGE_STEP; i++) {
            bool there = first + i < splits;
            stat[i] = there ? stats[(first + i) * stats_step] : make_float2(LOWEST, 0);
            value[i] = there ? sums[(first + i) * sums_step] : 0;
        }
#pragma unroll
        for (int i = 0; i < MERGE_STEP; i++) most = fmaxf(most, stat[i].x);
        float old = exp2_fast(before - most);
        total *= old, sum *= old;
#pragma unroll
        for (int i = 0; i < MERGE_STEP; i++) {
            float factor = exp2_fast(stat[i].x - most);
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
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(counter), "r"((unsigned)blocks - 1)
                 : "memory");
    return before == (unsigned)blocks - 1;
}

/* Through scratch: the last block to arrive merges. */
template <class E, int G, int L>
static __device__ __forceinline__ void merge_in_scratch(block_memory<E, G, L> &shared, const attend_args &d,
                                                        const job &j, const block_heads &b, float *out)
{
    constexpr int padded = L * VECTOR, quads = padded / 4;
    int column = (int)(blockIdx.z * gridDim.y + blockIdx.y), first_block = column * d.splits;
    float2 *stats = d.partial_stats + (size_t)first_block * G;
    float *sums = d.partial_sums + (size_t)first_block * G * padded;
    int g = threadIdx.x / quads, quad = threadIdx.x % quads, C = d.op.attention.kv.C;
    if (g < b.n) {
        float2 stat = merge_stats(shared, g);
        size_t at = (size_t)blockIdx.x * G + g;
        ((float4 *)(sums + at * padded))[quad] = merge_sums(shared, g, quad, stat.x);
        if (quad == 0) stats[at] = stat;
    }
    __syncthreads();
    if (threadIdx.x == 0) shared.last = arrive_last(d.counters + column, j.splits);
    __syncthreads();
    if (!shared.last) return;
    for (int i = threadIdx.x; i < b.n * padded; i += THREADS) {
        int c = i % padded;
        if (c < C)
            out[i / padded * C + c] = merge_splits(stats + i / padded, G, sums + i, G * padded, j.splits);
    }
}

/* The quads of a block's heads, dealt out to the n blocks of its cluster: quad i is number i / n of block i % n. */
typedef struct {
    int n, me;
    int all, share, mine; /* quads: of a block, of a block's share at most, of this block's share */
    int to, number;       /* where this thread's quad, number threadIdx.x, goes */
} cluster_deal;

static __device__ __forceinline__ cluster_deal deal_quads(int n, int all)
{
    cluster_deal s;
    s.n = n;
    s.me = (int)blockIdx.x;
    s.all = all;
    s.share = (all + n - 1) / n;
    s.number = (int)threadIdx.x / n;
    s.to = (int)threadIdx.x - s.number * n;
    s.mine = (all - s.me + n - 1) / n;
    return s;
}

/* Every block gets a share of all blocks' sums and all their stats, see open_post, and writes that share. */
template <class E, int G, int L>
static __device__ __forceinline__ void merge_in_cluster(block_memory<E, G, L> &shared, const cluster_deal &s,
                                                        const block_heads &b, int C, float *out)
{
    constexpr int quads = L * VECTOR / 4;
    int g = threadIdx.x / quads, i = THREADS - 1 - (int)threadIdx.x;
    cluster_wait();
    if (g < b.n) {
        float most = merge_stats(shared, g).x;
        post(merge_sums(shared, g, threadIdx.x % quads, most), &shared.peer_sum[s.me * s.share + s.number],
             &shared.arrived, s.to);
    }
    if (i < MOST_BLOCKS_OF_CLUSTER * G && i / G < s.n && i % G < b.n)
        post(merge_stats(shared, i % G), &shared.peer_stats[s.me][i % G], &shared.arrived, i / G);
    if ((int)threadIdx.x >= s.mine * 4) return;
    wait_for_post(&shared.arrived);
    for (int at = threadIdx.x; at < s.mine * 4; at += THREADS) {
        int quad = at / 4 * s.n + s.me, c = quad % quads * 4 + at % 4;
        g = quad / quads;
        if (c < C)
            out[g * C + c] = merge_splits(&shared.peer_stats[0][g], G, (const float *)shared.peer_sum + at,
                                          s.share * 4, s.n);
    }
}

template <class E, int G, int L>
static __device__ __forceinline__ void write_out(const block_memory<E, G, L> &shared, const block_heads &b,
                                                 int C, float *out)
{
    constexpr int padded = L * VECTOR, quads = padded / 4;
    int g = threadIdx.x / quads, quad = threadIdx.x % quads;
    if (g >= b.n) return;
    float2 stat = merge_stats(shared, g);
    float4 sum = merge_sums(shared, g, quad, stat.x);
    float x[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (quad * 4 + i < C) out[g * C + quad * 4 + i] = x[i] / stat.y;
}

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

/* As many as the registers allow without spilling. More than the grid needs: kernels before and after this one find room
 * beside it. */
template <class E, int G, int L> static constexpr int blocks_per_sm()
{
    if (sizeof(E) != 2 || G > 2) return 1;
    return L < 32 ? 3 : 2;
}

/* E: the cache's element; G: query heads of a block; L: lanes that share a position; PAGED: see page_shift_of.
 * Grid: (splits or tokens, kv heads * groups, rows or 1). */
template <class E, int G, int L, bool PAGED>
static __global__ void __launch_bounds__(THREADS, blocks_per_sm<E, G, L>())
    attend(const __grid_constant__ attend_args d)
{
    using reader = tile_reader<E, L, PAGED>;
    constexpr int U = reader::UNROLL;
    static_assert(G * L * VECTOR / 4 <= THREADS && MOST_BLOCKS_OF_CLUSTER * G <= THREADS,
                  "a thread per quad, and per block and head");
    __shared__ block_memory<E, G, L> shared;
    kernel_begins();
    const kv_layer &kv = d.op.attention.kv;
    block_heads b = heads_of_block(d);
    bool early = d.op.k != NULL;
    if (!early) kernel_waits();
    job j;
    if (!find_job(j, d)) {
        /* Kernels after this one rely on it to end after the one before: one block that waits is enough. */
        if (early && blockIdx.x + blockIdx.y + blockIdx.z == 0) kernel_waits();
        return;
    }
    bool clustered = d.clustered && j.splits > 1;
    cluster_deal deal = deal_quads(j.splits, b.n * (L * VECTOR / 4));
    if (clustered)
        open_post(&shared.arrived, deal.n * (deal.mine * (int)sizeof(float4) + b.n * (int)sizeof(float2)));
    reader cache(d, j, b.kv);
    pack<E> k[U], v[U];
    int tile = j.origin, page = cache.page_of(tile), next_page = cache.page_of(tile + reader::TILE);
    cache.load(k, kv.k_pool, tile, page);
    cache.load(v, kv.v_pool, tile, page);
    cache.fetch_tiles_ahead(kv, tile);
    head_plan<L / 8> plan = plan_heads<L / 8>(d, j, b);
    if (early) kernel_waits();
    prepare_heads(shared, d, j, b, plan);
    __syncthreads();
    running<G> now;
    alignas(16) float q[G][VECTOR];
#pragma unroll
    for (int g = 0; g < G; g++) {
        now.most[g] = LOWEST;
        now.total[g] = 0;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) now.sum[g][i] = 0;
        *(float4 *)q[g] = *(const float4 *)(shared.q[g] + cache.c);
        *(float4 *)(q[g] + 4) = *(const float4 *)(shared.q[g] + cache.c + 4);
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
    float *out = d.op.attention.out + (size_t)j.token * d.op.attention.out_stride + (size_t)b.first * kv.C;
    if (clustered)
        merge_in_cluster(shared, deal, b, kv.C, out);
    else if (j.splits > 1)
        merge_in_scratch(shared, d, j, b, out);
    else
        write_out(shared, b, kv.C, out);
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

/* Elements that a block keeps per head. */
static int padded_width(int C)
{
    return C <= 64 ? 64 : C <= 128 ? 128 : 256;
}

/* Whether clusters of 16 run, all of them at once. */
template <class E, int G, int L, bool PAGED> static bool has_wide_clusters(int clusters)
{
    cudaLaunchAttribute dimension = {};
    cudaLaunchConfig_t config = {};
    int most = 0;
    dimension.id = cudaLaunchAttributeClusterDimension;
    dimension.val.clusterDim.x = MOST_BLOCKS_OF_CLUSTER;
    dimension.val.clusterDim.y = dimension.val.clusterDim.z = 1;
    config.gridDim = dim3(MOST_BLOCKS_OF_CLUSTER, (unsigned)clusters);
    config.blockDim = dim3(THREADS);
    config.attrs = &dimension;
    config.numAttrs = 1;
    if (cudaFuncSetAttribute(attend<E, G, L, PAGED>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) ==
            cudaSuccess &&
        cudaOccupancyMaxActiveClusters(&most, attend<E, G, L, PAGED>, &config) == cudaSuccess)
        return most >= clusters;
    cudaGetLastError(); /* a GPU without them is no fault */
    return false;
}

/* Splits that fit a cluster: a power of two, at most `most`, and 16 only where each then has two tiles. */
template <class E, int G, int L, bool PAGED> static int cluster_splits(int tiles, int most, int columns)
{
    int n = 1;
    while (n < PORTABLE_CLUSTER && n < tiles && 2 * n <= most) n *= 2;
    if (n == PORTABLE_CLUSTER && tiles > 2 * n && 2 * n <= most && has_wide_clusters<E, G, L, PAGED>(columns))
        n *= 2;
    return n;
}

/* Clusters get a block per SM, or two when a block's tiles are more than those that it fetches before the wait; when
 * that is more than a cluster holds, scratch is used. columns: of blocks that share a row and heads. */
template <class E, int G, int L, bool PAGED>
static void choose_splits(attend_args *d, int columns, const cuda_context *cuda)
{
    const op_attention_args *a = &d->op.attention;
    int64_t length = (int64_t)a->P * a->kv.S;
    if (a->max_len > 0 && a->max_len < length) length = a->max_len;
    if (a->window > 0 && a->window + SPLIT_STEP - 1 < length) length = a->window + SPLIT_STEP - 1;
    int tiles = (int)((length + SPLIT_STEP - 1) / SPLIT_STEP), blocks = cuda->multiprocessors;
    int few = blocks / columns;
    blocks *= blocks_per_sm<E, G, L>();
    if (blocks > MOST_BLOCKS) blocks = MOST_BLOCKS;
    int many = blocks / columns;
    d->splits = many < 1 ? 1 : many > MOST_SPLITS ? MOST_SPLITS : many;
    if (d->splits > tiles) d->splits = tiles;
    d->clustered = 0;
    if (cuda->major < 9 || d->splits < 2) return;
    int n = cluster_splits<E, G, L, PAGED>(tiles, few, columns);
    if (tiles > n * (1 + TILES_AHEAD)) {
        if (many > MOST_BLOCKS_OF_CLUSTER) return;
        n = cluster_splits<E, G, L, PAGED>(tiles, many, columns);
    }
    d->splits = n;
    d->clustered = n > 1;
}

template <class E, int G, int L, bool PAGED>
static void launch_attend(attend_args *d, const cuda_context *cuda)
{
    const op_attention_args *a = &d->op.attention;
    int columns = a->kv.K * d->groups, rows = d->by_token ? 1 : a->R;
    d->splits = 1;
    if (!d->by_token) choose_splits<E, G, L, PAGED>(d, columns * rows, cuda);
    d->partial_stats = (float2 *)cuda->scratch;
    d->partial_sums = (float *)(d->partial_stats + MOST_BLOCKS * MOST_HEADS);
    d->counters = cuda->counters;
    dim3 grid((unsigned)(d->by_token ? a->T : d->splits), (unsigned)columns, (unsigned)rows);
    launch_clusters(cuda, attend<E, G, L, PAGED>, grid, d->clustered ? grid.x : 1, THREADS, 0, *d);
}

/* float32 caches get fewer variants, 1 or 4 heads, and caches that are not PAGED one. */
template <class E, int L> static void launch_heads(attend_args *d, const cuda_context *cuda)
{
    constexpr bool is_small = sizeof(E) == 2;
    constexpr int widest = is_small && L < 32 ? MOST_HEADS : 4;
    int ratio = d->op.attention.H / d->op.attention.kv.K, most = d->page_shift < 0 ? 4 : widest;
    d->groups = (ratio + most - 1) / most;
    d->heads = (ratio + d->groups - 1) / d->groups;
    if (d->page_shift < 0)
        launch_attend<E, 4, L, false>(d, cuda);
    else if (d->heads == 1)
        launch_attend<E, 1, L, true>(d, cuda);
    else if (d->heads == 2)
        launch_attend<E, is_small ? 2 : 4, L, true>(d, cuda);
    else if (d->heads <= 4)
        launch_attend<E, 4, L, true>(d, cuda);
    else
        launch_attend<E, widest, L, true>(d, cuda);
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

extern "C" size_t op_attention_cuda_scratch(int32_t T, int32_t R, int32_t H, int32_t C, int32_t max_context)
{
    (void)T, (void)R, (void)H, (void)max_context; /* MOST_BLOCKS bounds it for all of them */
    return (size_t)MOST_BLOCKS * MOST_HEADS * (sizeof(float2) + (size_t)padded_width(C) * sizeof(float));
}
