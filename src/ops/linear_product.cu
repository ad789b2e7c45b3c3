/* The matrix product of many tokens on tensor cores: out[t, n] = sum_k x[t, k] * w[n, k], bf16 or f16 to float32.
 *
 * bf16 weights meet inputs in bf16. f16 weights meet inputs that are the sums of two f16, each a plane of the tile, scaled
 * by a power of two per token: twice the operations, and 22 bits of the input.
 *
 * A block does BM tokens x BN weight rows, a warp WM x WN of them by mma.m16n8k16, over k in steps of BK that arrive by
 * cp.async in a ring of STAGES. All parts (q, k, v) are one grid. For gated products (silu(gate) * up) half of each
 * warp's weight rows are gate's and half are up's of the same numbers, so one thread holds both sums and the result is
 * written at once. With few tokens a block's warps share the k of a stage instead (SPLIT), which shortens the chain of
 * dependent steps; their sums meet in shared memory, in a fixed order; and where the blocks would not fill the GPU, a
 * cluster of blocks shares k (CLUSTER, compute capability 9.0 and later).
 * Up to some 64 tokens (f16: 32) this is bound by reading the weights, 2*N*K bytes; then by L2, then by the tensor cores
 * (2*T*N*K operations; f16: 4*T*N*K). */
#include "ops/linear_product.cuh"

typedef struct {
    const uint16_t *x;                   /* [PLANES, T, K] */
    const uint16_t *w[LINEAR_MAX_PARTS]; /* gated: gate, up */
    const float *bias[LINEAR_MAX_PARTS];
    int rows[LINEAR_MAX_PARTS], out_col[LINEAR_MAX_PARTS];
    int first_tile[LINEAR_MAX_PARTS]; /* gated: one part, whose tiles hold rows of both */
    int n_parts, T, K;
    float *out;
    int out_stride, accumulate, gated;
    int pairs;          /* out allows 8-byte access at even columns */
    const float *scale; /* [T] of the sums; only for f16 */
} product_args;

template <class E> struct input_planes {
    enum { COUNT = 1 };
};
template <> struct input_planes<__half> {
    enum { COUNT = 2 };
};

enum { MOST_SHARED = 99 * 1024 }; /* fits every supported GPU */

/* Shared memory: rows of BK elements in 16-byte chunks, chunk c of row r at c ^ (r % 8), which spreads 8 rows of one
 * chunk column over all banks for ldmatrix. */
template <class E, int BM_, int BN_, int WM_, int WN_, int SPLIT_, int CLUSTER_, int BK_, int STAGES_>
struct tile_shape {
    typedef E element;
    enum {
        PLANES = input_planes<E>::COUNT,
        BM = BM_,
        BN = BN_,
        WM = WM_,
        WN = WN_,
        SPLIT = SPLIT_,     /* warps that share a WM x WN part, each doing every SPLIT-th 16 of k */
        CLUSTER = CLUSTER_, /* blocks that share a tile, each doing a range of k */
        BK = BK_,
        WARPS = (BM / WM) * (BN / WN), /* of one split */
        THREADS = 32 * WARPS * SPLIT,
        ROW_BYTES = BK * 2,
        CHUNKS = BK / 8,
        PASS = THREADS / CHUNKS, /* rows that all threads load at once, 16 bytes each */
        X_ROWS = PLANES * BM,    /* of a stage, and then BN rows of weights */
        STAGE_BYTES = (X_ROWS + BN) * ROW_BYTES,
        STAGES = STAGES_ * STAGE_BYTES <= MOST_SHARED ? STAGES_ : MOST_SHARED / STAGE_BYTES,
        SHARED = STAGES * STAGE_BYTES
    };
    static_assert(PASS % 8 == 0 && BM % PASS == 0 && (WN / 2) % PASS == 0, "loads follow the tile's halves");
    static_assert(SPLIT == 1 || (WARPS == 1 && SPLIT >= WM / 8),
                  "sums of a split tile are stored by WM / 8 warps");
    static_assert(BK % (16 * SPLIT) == 0 && SPLIT * WM * WN * 4 <= SHARED,
                  "a whole step per warp; sums fit the ring");
    static_assert(CLUSTER == 1 || (SPLIT > 1 && CLUSTER == WM / 8),
                  "each block of a cluster stores 8 tokens");
    static_assert(STAGES >= 2, "a stage is loaded while another is used");
};

/* For few tokens, with few rows: many blocks; for few tokens, with many rows: x is read less often. */
template <class E> using tile_small = tile_shape<E, 32, 32, 32, 32, 8, 1, 128, 6>;
template <class E> using tile_wide = tile_shape<E, 32, 128, 32, 32, 1, 1, 64, 4>;
template <class E> using tile_middle = tile_shape<E, 64, 64, 32, 32, 1, 1, 64, 4>;
template <class E> using tile_large = tile_shape<E, 128, 128, 64, 64, 1, 1, 64, 3>;
typedef tile_shape<__nv_bfloat16, 32, 32, 32, 32, 8, 4, 128, 6> tile_cluster; /* fewer rows still */

/* What a thread loads: its chunk of every PASS-th row. */
typedef struct {
    const uint16_t *x;    /* its chunk of its first row at k = 0 */
    const uint16_t *w[2]; /* the same of the weights; gated: gate and up */
    int x_rows, w_rows;   /* rows that are there, counted from its first */
    int k, K, gated;
    uint32_t to; /* its place in stage 0 */
} thread_loads;

template <class S>
static __device__ __forceinline__ thread_loads loads_of_thread(const product_args &a, int part, int m0,
                                                               int n0, uint32_t shared)
{
    int row = threadIdx.x / S::CHUNKS, chunk = threadIdx.x % S::CHUNKS;
    thread_loads l;
    l.k = chunk * 8;
    l.K = a.K;
    l.gated = a.gated;
    l.x = a.x + (size_t)(m0 + row) * a.K + l.k;
    l.w[0] = a.w[part] + (size_t)(n0 + row) * a.K + l.k;
    l.w[1] = a.gated ? a.w[1] + (size_t)(n0 + row) * a.K + l.k : l.w[0];
    l.x_rows = a.T - m0 - row;
    l.w_rows = a.rows[part] - n0 - row;
    l.to = shared + row * S::ROW_BYTES + ((chunk ^ (row & 7)) << 4);
    return l;
}

template <class S>
static __device__ __forceinline__ void load_inputs(const thread_loads &l, int T, int step, int slot)
{
    int k = step * S::BK;
    bool there = l.k + k < l.K;
    uint32_t to = l.to + slot * S::STAGE_BYTES;
#pragma unroll
    for (int plane = 0; plane < S::PLANES; plane++)
#pragma unroll
        for (int r = 0; r < S::BM; r += S::PASS)
            async_copy_l2_128(to + (plane * S::BM + r) * S::ROW_BYTES,
                              l.x + ((size_t)plane * T + r) * l.K + k, there && r < l.x_rows ? 16 : 0);
}

/* Row r of the tile is weight row r, or, when gated, in every WN rows the first half gate's and the second half up's
 * rows of the same numbers. */
template <class S>
static __device__ __forceinline__ void load_weights(const thread_loads &l, int step, int slot)
{
    int k = step * S::BK;
    bool there = l.k + k < l.K;
    uint32_t to = l.to + slot * S::STAGE_BYTES + S::X_ROWS * S::ROW_BYTES;
#pragma unroll
    for (int r = 0; r < S::BN; r += S::PASS) {
        const int half = r % S::WN / (S::WN / 2), number = r / S::WN * (S::WN / 2) + r % (S::WN / 2);
        int row = l.gated ? number : r;
        async_copy_l2_128(to + r * S::ROW_BYTES, l.w[half] + (size_t)row * l.K + k,
                          there && row < l.w_rows ? 16 : 0);
    }
}

/* A warp's operands of 16 k: rows of x as 16x16 blocks, rows of w as 16x16 blocks (two of mma's n = 8 each). */
template <class S> struct fragments {
    uint32_t x[S::PLANES][S::WM / 16][4], w[S::WN / 16][4];
};

template <class S>
static __device__ __forceinline__ void load_fragments(fragments<S> &f, uint32_t x_rows, uint32_t w_rows,
                                                      int kk, int lane)
{
    uint32_t x_at = x_rows + (((kk * 2 + lane / 16) ^ (lane & 7)) << 4);
    uint32_t w_at = w_rows + (((kk * 2 + (lane / 8 & 1)) ^ (lane & 7)) << 4);
#pragma unroll
    for (int plane = 0; plane < S::PLANES; plane++)
#pragma unroll
        for (int i = 0; i < S::WM / 16; i++)
            load_matrices(f.x[plane][i], x_at + (plane * S::BM + i * 16) * S::ROW_BYTES);
#pragma unroll
    for (int j = 0; j < S::WN / 16; j++) load_matrices(f.w[j], w_at + j * 16 * S::ROW_BYTES);
}

template <class S> struct sums {
    float of[S::WM / 16][S::WN / 8][4];
};

/* One stage: BK / 16 steps, or this split's share of them, operands loaded one step ahead. x_rows, w_rows: this lane's
 * row of the stage's blocks. */
template <class S>
static __device__ __forceinline__ void multiply_stage(sums<S> &sum, uint32_t x_rows, uint32_t w_rows,
                                                      int split, int lane)
{
    const int steps = S::BK / 16 / S::SPLIT;
    fragments<S> f[2];
    load_fragments<S>(f[0], x_rows, w_rows, split, lane);
#pragma unroll
    for (int kk = 0; kk < steps; kk++) {
        if (kk + 1 < steps)
            load_fragments<S>(f[(kk + 1) % 2], x_rows, w_rows, (kk + 1) * S::SPLIT + split, lane);
        const fragments<S> &now = f[kk % 2];
#pragma unroll
        for (int plane = 0; plane < S::PLANES; plane++)
#pragma unroll
            for (int i = 0; i < S::WM / 16; i++)
#pragma unroll
                for (int j = 0; j < S::WN / 8; j++)
                    mma_16x8x16(sum.of[i][j], now.x[plane][i], now.w[j / 2][j % 2 * 2],
                                now.w[j / 2][j % 2 * 2 + 1], typename S::element());
    }
}

static __device__ __forceinline__ float bias_at(const float *bias, int n, int rows)
{
    return bias && n < rows ? bias[n] : 0;
}

/* Columns n and n + 1 of one token; n is even. */
static __device__ __forceinline__ void store_2(const product_args &a, float *out, int n, int rows, float v0,
                                               float v1)
{
    if (a.pairs && n + 1 < rows) {
        float2 v = make_float2(v0, v1);
        if (a.accumulate) {
            float2 old = *(const float2 *)(out + n);
            v.x += old.x, v.y += old.y;
        }
        *(float2 *)(out + n) = v;
        return;
    }
    if (n < rows) out[n] = a.accumulate ? out[n] + v0 : v0;
    if (n + 1 < rows) out[n + 1] = a.accumulate ? out[n + 1] + v1 : v1;
}

/* One token's sums of a thread: columns n + 8*j and the next. */
template <class S>
static __device__ __forceinline__ void store_token(const product_args &a, int part, int t, int n,
                                                   const float (&sum)[S::WN / 8][2])
{
    const float *bias = a.bias[part];
    float *out = a.out + (size_t)t * a.out_stride + a.out_col[part];
    int rows = a.rows[part];
    if (t >= a.T) return;
    float scale = S::PLANES > 1 ? a.scale[t] : 1.0f;
    if (!a.gated) {
#pragma unroll
        for (int j = 0; j < S::WN / 8; j++, n += 8)
            store_2(a, out, n, rows, sum[j][0] * scale + bias_at(bias, n, rows),
                    sum[j][1] * scale + bias_at(bias, n + 1, rows));
        return;
    }
#pragma unroll
    for (int j = 0; j < S::WN / 16; j++, n += 8) {
        const float *up = sum[j + S::WN / 16], *up_bias = a.bias[1];
        store_2(
            a, out, n, rows,
            silu_times(sum[j][0] * scale + bias_at(bias, n, rows), up[0] * scale + bias_at(up_bias, n, rows)),
            silu_times(sum[j][1] * scale + bias_at(bias, n + 1, rows),
                       up[1] * scale + bias_at(up_bias, n + 1, rows)));
    }
}

/* mma leaves rows lane/4 and lane/4 + 8, columns 2*(lane%4) and the next with a thread. t, n: of the warp's part. */
template <class S>
static __device__ __forceinline__ void store_sums(const product_args &a, int part, int t, int n, int lane,
                                                  const sums<S> &sum)
{
#pragma unroll
    for (int i = 0; i < S::WM / 8; i++) {
        float two[S::WN / 8][2];
#pragma unroll
        for (int j = 0; j < S::WN / 8; j++) {
            two[j][0] = sum.of[i / 2][j][i % 2 * 2];
            two[j][1] = sum.of[i / 2][j][i % 2 * 2 + 1];
        }
        store_token<S>(a, part, t + i * 8 + lane / 4, n + lane % 4 * 2, two);
    }
}

/* Sums of a split tile: all warps' go to the ring, as [SPLIT, WM / 8, WN / 8, 32 lanes] pairs, and each of the first
 * WM / 8 warps adds up those of 8 tokens. */
template <class S>
static __device__ __forceinline__ void add_splits(float (&two)[S::WN / 8][2], const sums<S> &sum,
                                                  float2 *ring, int warp, int lane)
{
    const int per_warp = S::WM / 8 * (S::WN / 8) * 32;
    __syncthreads(); /* the last stage has been read */
#pragma unroll
    for (int i = 0; i < S::WM / 8; i++)
#pragma unroll
        for (int j = 0; j < S::WN / 8; j++)
            ring[warp * per_warp + (i * (S::WN / 8) + j) * 32 + lane] =
                make_float2(sum.of[i / 2][j][i % 2 * 2], sum.of[i / 2][j][i % 2 * 2 + 1]);
    __syncthreads();
    if (warp >= S::WM / 8) return;
#pragma unroll
    for (int s = 0; s < S::SPLIT; s++)
#pragma unroll
        for (int j = 0; j < S::WN / 8; j++) {
            float2 v = ring[s * per_warp + (warp * (S::WN / 8) + j) * 32 + lane];
            two[j][0] += v.x, two[j][1] += v.y;
        }
}

/* Block b of the cluster adds up all blocks' sums of tokens 8b .. 8b + 7. `shared`: the ring's address. */
template <class S>
static __device__ __forceinline__ void add_blocks(float (&two)[S::WN / 8][2], float2 *ring, uint32_t shared,
                                                  int warp, int lane)
{
    const int own = S::SPLIT * S::WM * S::WN / 2; /* pairs; behind what add_splits may still read */
    if (warp < S::WM / 8)
#pragma unroll
        for (int j = 0; j < S::WN / 8; j++)
            ring[own + (warp * (S::WN / 8) + j) * 32 + lane] = make_float2(two[j][0], two[j][1]);
    cluster_barrier();
    if (warp == 0)
#pragma unroll
        for (int j = 0; j < S::WN / 8; j++) {
            uint32_t from =
                shared + (own + (blockIdx.z * (S::WN / 8) + j) * 32 + lane) * (uint32_t)sizeof(float2);
            two[j][0] = two[j][1] = 0;
#pragma unroll
            for (int b = 0; b < S::CLUSTER; b++) {
                float2 v = cluster_load(from, b);
                two[j][0] += v.x, two[j][1] += v.y;
            }
        }
    cluster_barrier(); /* a block's shared memory stays until the others have read it */
}

template <class S>
static __device__ __forceinline__ void store_split_sums(const product_args &a, int part, int t, int n,
                                                        int warp, int lane, const sums<S> &sum,
                                                        unsigned char *ring, uint32_t shared)
{
    float two[S::WN / 8][2] = {};
    add_splits<S>(two, sum, (float2 *)ring, warp, lane);
    if (S::CLUSTER > 1) add_blocks<S>(two, (float2 *)ring, shared, warp, lane);
    int eighth = S::CLUSTER > 1 ? blockIdx.z : warp;
    if (warp < (S::CLUSTER > 1 ? 1 : S::WM / 8))
        store_token<S>(a, part, t + eighth * 8 + lane / 4, n + lane % 4 * 2, two);
}

/* Grid: tiles of tokens (fastest, so that blocks beside each other share weights in L2), tiles of weight rows, ranges
 * of k. The ring's weights are asked for before the wait: they depend on no kernel. */
template <class S>
static __global__ void __launch_bounds__(S::THREADS, 2) product(const __grid_constant__ product_args a)
{
    unsigned char *ring = dynamic_shared<128>();
    kernel_begins();
    uint32_t shared = shared_address(ring);
    int warp = threadIdx.x / 32 % S::WARPS, split = threadIdx.x / 32 / S::WARPS, lane = threadIdx.x % 32;
    int tile = blockIdx.y, part = 0;
    int warp_m = warp / (S::BN / S::WN), warp_n = warp % (S::BN / S::WN);
    while (part + 1 < a.n_parts && tile >= a.first_tile[part + 1]) part++;
    int m0 = blockIdx.x * S::BM, n0 = (tile - a.first_tile[part]) * (a.gated ? S::BN / 2 : S::BN);
    int all_steps = (a.K + S::BK - 1) / S::BK, share = (all_steps + S::CLUSTER - 1) / S::CLUSTER;
    int begin = S::CLUSTER > 1 ? blockIdx.z * share : 0, end = min(begin + share, all_steps);
    thread_loads l = loads_of_thread<S>(a, part, m0, n0, shared);
#pragma unroll
    for (int s = 0; s < S::STAGES - 1; s++)
        if (begin + s < end) load_weights<S>(l, begin + s, s);
    kernel_waits();
#pragma unroll
    for (int s = 0; s < S::STAGES - 1; s++) {
        if (begin + s < end) load_inputs<S>(l, a.T, begin + s, s);
        async_copy_commit();
    }
    sums<S> sum = {};
    uint32_t x_rows = shared + (warp_m * S::WM + lane % 16) * S::ROW_BYTES;
    uint32_t w_rows = shared + (S::X_ROWS + warp_n * S::WN + lane % 8 + lane / 16 * 8) * S::ROW_BYTES;
    int slot = 0, next_slot = S::STAGES - 1;
    for (int step = begin; step < end; step++) {
        async_copy_wait<S::STAGES - 2>();
        __syncthreads(); /* everybody's copies of this stage are there, and the last stage has been read */
        if (step + S::STAGES - 1 < end) {
            load_weights<S>(l, step + S::STAGES - 1, next_slot);
            load_inputs<S>(l, a.T, step + S::STAGES - 1, next_slot);
        }
        async_copy_commit(); /* empty groups keep the count */
        multiply_stage<S>(sum, x_rows + slot * S::STAGE_BYTES, w_rows + slot * S::STAGE_BYTES, split, lane);
        slot = slot + 1 == S::STAGES ? 0 : slot + 1;
        next_slot = next_slot + 1 == S::STAGES ? 0 : next_slot + 1;
    }
    if (S::SPLIT > 1)
        store_split_sums<S>(a, part, m0, n0, split, lane, sum, ring, shared);
    else
        store_sums<S>(a, part, m0 + warp_m * S::WM, n0 + warp_n * (a.gated ? S::WN / 2 : S::WN), lane, sum);
}

template <class S> static int row_tiles(const product_args &a)
{
    int tiles = 0, rows_per_tile = a.gated ? S::BN / 2 : S::BN;
    for (int p = 0; p < a.n_parts; p++) tiles += (a.rows[p] + rows_per_tile - 1) / rows_per_tile;
    return tiles;
}

template <class S> static int blocks_of(const product_args &a)
{
    return row_tiles<S>(a) * ((a.T + S::BM - 1) / S::BM);
}

template <class S> static void launch_product(product_args a, const cuda_context *cuda)
{
    int rows_per_tile = a.gated ? S::BN / 2 : S::BN;
    for (int p = 0; p + 1 < a.n_parts; p++)
        a.first_tile[p + 1] = a.first_tile[p] + (a.rows[p] + rows_per_tile - 1) / rows_per_tile;
    cudaFuncSetAttribute(product<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
    dim3 grid((unsigned)((a.T + S::BM - 1) / S::BM), (unsigned)row_tiles<S>(a), S::CLUSTER);
    launch_clusters(cuda, product<S>, grid, dim3(1, 1, S::CLUSTER), S::THREADS, S::SHARED, a);
}

/* Sharing k pays while all blocks of all clusters run at once and each has two steps or more. */
static void launch_small(const product_args &a, const cuda_context *cuda, __nv_bfloat16)
{
    int blocks = blocks_of<tile_small<__nv_bfloat16>>(a) * tile_cluster::CLUSTER;
    if (cuda->major >= 9 && blocks <= 2 * cuda->multiprocessors &&
        a.K >= 2 * tile_cluster::CLUSTER * tile_cluster::BK)
        launch_product<tile_cluster>(a, cuda);
    else
        launch_product<tile_small<__nv_bfloat16>>(a, cuda);
}

static void launch_small(const product_args &a, const cuda_context *cuda, __half)
{
    launch_product<tile_small<__half>>(a, cuda);
}

/* The largest tile that still gives most multiprocessors a block: it reads least from L2. */
template <class E> static void launch_best(const product_args &a, const cuda_context *cuda)
{
    int enough = cuda->multiprocessors * 3 / 4;
    int enough_wide =
        2 * cuda->multiprocessors / tile_wide<E>::PLANES; /* more inputs pay sooner for few reads */
    if (a.T <= tile_wide<E>::BM && blocks_of<tile_wide<E>>(a) >= enough_wide)
        launch_product<tile_wide<E>>(a, cuda);
    else if (a.T > tile_middle<E>::BM && blocks_of<tile_large<E>>(a) >= enough)
        launch_product<tile_large<E>>(a, cuda);
    else if (a.T > tile_wide<E>::BM && blocks_of<tile_middle<E>>(a) >= enough)
        launch_product<tile_middle<E>>(a, cuda);
    else
        launch_small(a, cuda, E());
}

static product_args args_of(const op_linear_args *a, const void *x, bool gated)
{
    product_args p = {};
    p.x = (const uint16_t *)x;
    p.T = a->T;
    p.K = a->part[0].w->cols;
    p.n_parts = gated ? 1 : a->n_parts;
    p.gated = gated;
    p.out = a->out;
    p.out_stride = a->out_stride;
    p.accumulate = a->accumulate;
    p.pairs = (uintptr_t)a->out % 8 == 0 && a->out_stride % 2 == 0;
    for (int i = 0; i < a->n_parts; i++) {
        p.w[i] = (const uint16_t *)a->part[i].w->data;
        p.bias[i] = a->part[i].bias;
        p.rows[i] = a->part[i].w->rows;
        p.out_col[i] = a->part[i].out_col;
        p.pairs = p.pairs && a->part[i].out_col % 2 == 0;
    }
    return p;
}

void linear_product_cuda(const op_linear_args *a, const __nv_bfloat16 *x, bool gated,
                         const cuda_context *cuda)
{
    launch_best<__nv_bfloat16>(args_of(a, x, gated), cuda);
}

void linear_product_f16_cuda(const op_linear_args *a, const __half *x, const float *scale, bool gated,
                             const cuda_context *cuda)
{
    product_args p = args_of(a, x, gated);
    p.scale = scale;
    launch_best<__half>(p, cuda);
}
