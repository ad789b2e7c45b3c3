/* Attention of prompts over the paged cache on tensor cores: one pass over K and V per block of queries, with a running
 * softmax in registers (FlashAttention-2, arXiv:2307.08691).
 *
 * A block of 4 warps does M = 64 or 128 rows: some consecutive tokens of one sequence times the query heads that share
 * a kv head, so that K and V are read once for the whole group. Tiles of N = 64 positions (32 for C > 128), aligned to
 * absolute positions, come by cp.async into one of two buffers while the other one is used; 16-byte chunks are
 * exchanged within a row (chunk ^ row % 8), which makes every ldmatrix free of bank conflicts. A warp owns 16 or 32
 * whole rows, hence softmax needs 4 lanes only; 32 rows (M = 128) halve the reads of shared memory per product, which
 * would otherwise be slower than the tensor cores, and are used when there are blocks enough to fill the GPU.
 * C is padded with zeros to 64, 128 or 256. Any page size; pages of a multiple of N slots are the fast ones.
 *
 * Bound by the tensor cores: 4*C operations per query head and visible position; mma.sync reaches some 60 % of the
 * rate of Hopper's own instructions. Memory: q and out once, K and V once per block and mostly from L2.
 * A token's result does not depend on the other rows of its tile or on M: products are per row, tiles are aligned, and
 * a tile in which a token sees nothing leaves its sums as they are. */
#include "ops/cuda.cuh"

#include <math_constants.h>

enum { WARPS = 4, THREADS = 32 * WARPS };

static const unsigned ALL = 0xffffffffu;

/* The sums are rescaled only when the maximum grew by more than 2^RISE: weights up to 256 are no less exact. */
static const float RISE = 8;

/* ---- What a block does --------------------------------------------------------------------------------------- */

/* Row m of the tile is token m / heads and query head m % heads, counted from the tile's first ones. */
typedef struct {
    int token, tokens;              /* first token in the step, and how many */
    int pos;                        /* of the first token */
    int low, high;                  /* positions that some token of the tile sees: [low, high) */
    const int32_t *pages;           /* of the sequence */
    int kv_head, query_head, heads; /* heads: rows per token; query_head + heads may pass the group's end */
    int group_end;                  /* query head after the group's last one */
} query_tile;

typedef struct {
    int per_tile;   /* tokens */
    int heads;      /* query heads of a block */
    int parts;      /* blocks that share the group of a kv head: 1 up to 64 query heads */
    int page_shift; /* log2 of the tiles of positions in a page; -1: that is no power of two */
} tiling;

/* Tile number `tile` of the step: false when there are fewer. The last tiles of up to 32 sequences come first, then
 * the ones before them, and so on: about the longest first. Sequences with one token have no tiles. */
static __device__ bool find_tile(const op_attention_args &a, int per_tile, int tile, int *row,
                                 int *tile_of_row)
{
    int lane = threadIdx.x % 32;
    for (int first = 0; first < a.R; first += 32) {
        int r = first + lane, tokens = r < a.R ? a.row_start[r + 1] - a.row_start[r] : 0;
        int tiles = tokens > 1 ? (tokens + per_tile - 1) / per_tile : 0,
            total = __reduce_add_sync(ALL, tiles);
        if (tile >= total) {
            tile -= total;
            continue;
        }
        /* the most whole rounds, one tile of every sequence that still has one, that end at or before `tile` */
        int rounds = 0, too_many = __reduce_max_sync(ALL, tiles);
        while (too_many - rounds > 1) {
            int middle = (rounds + too_many) / 2;
            bool fits = __reduce_add_sync(ALL, min(tiles, middle)) <= tile;
            rounds = fits ? middle : rounds;
            too_many = fits ? too_many : middle;
        }
        int rank = tile - __reduce_add_sync(ALL, min(tiles, rounds));
        unsigned left = __ballot_sync(ALL, tiles > rounds);
        bool mine = tiles > rounds && __popc(left & ((1u << lane) - 1)) == rank;
        int owner = __ffs(__ballot_sync(ALL, mine)) - 1;
        *row = first + owner;
        *tile_of_row = __shfl_sync(ALL, tiles, owner) - 1 - rounds;
        return true;
    }
    return false;
}

static __device__ bool open_tile(query_tile *t, const op_attention_args &a, const tiling &by)
{
    int units = a.kv.K * by.parts, unit = blockIdx.x % units, ratio = a.H / a.kv.K, row, tile;
    if (!find_tile(a, by.per_tile, blockIdx.x / units, &row, &tile)) return false;
    int begin = a.row_start[row] + tile * by.per_tile, end = a.row_start[row + 1];
    t->token = begin;
    t->tokens = min(by.per_tile, end - begin);
    t->pos = a.kv_len[row] - (end - begin);
    t->high = t->pos + t->tokens;
    t->low = a.window > 0 ? max(t->pos - a.window + 1, 0) : 0;
    t->pages = a.pages + (size_t)row * a.P;
    t->kv_head = unit / by.parts;
    t->heads = by.heads;
    t->query_head = t->kv_head * ratio + unit % by.parts * by.heads;
    t->group_end = (t->kv_head + 1) * ratio;
    return true;
}

/* ---- Into shared memory -------------------------------------------------------------------------------------- */

/* Byte of a 16-byte chunk in a matrix with rows of CP 16-bit elements. */
template <int CP> static __device__ __forceinline__ unsigned swizzled(int row, int chunk)
{
    return (unsigned)(row * CP * 2 + ((chunk ^ (row & 7)) << 4));
}

/* M rows of q in the cache's format, channels past C zero. Rows past the last repeat it: they are computed and not
 * stored. A thread has all loads of a batch on the way at once, for the first tile waits for them. */
template <class E, int CP, int M>
static __device__ __forceinline__ void load_queries(unsigned char *shared, const op_attention_args &a,
                                                    const query_tile &t)
{
    enum { CHUNKS = CP / 8, ROWS = THREADS / CHUNKS, EACH = M / ROWS, BATCH = EACH < 8 ? EACH : 8 };
    int chunk = threadIdx.x % CHUNKS, row = threadIdx.x / CHUNKS;
#pragma unroll 1
    for (int i = 0; i < EACH; i += BATCH, row += BATCH * ROWS) {
        float4 x[BATCH][2] = {};
        if (chunk * 8 < a.kv.C)
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int m = row + k * ROWS, token = t.token + min(m / t.heads, t.tokens - 1);
                int head = min(t.query_head + m % t.heads, t.group_end - 1);
                const float *q = a.q + (size_t)token * a.q_stride + (size_t)head * a.kv.C + chunk * 8;
                x[k][0] = ((const float4 *)q)[0];
                x[k][1] = ((const float4 *)q)[1];
            }
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            uint4 packed;
            packed.x = narrow_pair(x[k][0].x, x[k][0].y, E());
            packed.y = narrow_pair(x[k][0].z, x[k][0].w, E());
            packed.z = narrow_pair(x[k][1].x, x[k][1].y, E());
            packed.w = narrow_pair(x[k][1].z, x[k][1].w, E());
            *(uint4 *)(shared + swizzled<CP>(row + k * ROWS, chunk)) = packed;
        }
    }
}

/* Starts the copies of N positions of K and V, which lie in one page. Those that no token sees are zero and not read. */
template <class E, int CP, int N>
static __device__ __forceinline__ void load_in_page(unsigned k_shared, unsigned v_shared,
                                                    const op_attention_args &a, const query_tile &t, int tile,
                                                    int page, int page_shift)
{
    enum { CHUNKS = CP / 8, ROWS = THREADS / CHUNKS }; /* ROWS at a time */
    int chunk = threadIdx.x % CHUNKS, row = threadIdx.x / CHUNKS, C = a.kv.C, bytes = chunk * 8 < C ? 16 : 0;
    int slot = (tile & ((1 << page_shift) - 1)) * N + row;
    size_t at = ((size_t)(page * a.kv.K + t.kv_head) * a.kv.S + slot) * C + chunk * 8;
    const E *k = (const E *)a.kv.k_pool + at, *v = (const E *)a.kv.v_pool + at;
    unsigned seen = t.high - t.low, first = tile * N + row - t.low;
#pragma unroll
    for (int i = 0; i < N / ROWS; i++) {
        unsigned to = swizzled<CP>(row + i * ROWS, chunk);
        int size = first + i * ROWS < seen ? bytes : 0; /* unsigned: below low is far beyond */
        async_copy(k_shared + to, k, size);
        async_copy(v_shared + to, v, size);
        k += ROWS * C;
        v += ROWS * C;
    }
}

/* The same for pages of any size: each position is looked up. */
template <class E, int CP, int N>
static __device__ __forceinline__ void load_anywhere(unsigned k_shared, unsigned v_shared,
                                                     const op_attention_args &a, const query_tile &t, int j0)
{
    enum { CHUNKS = CP / 8, ROWS = THREADS / CHUNKS };
    int chunk = threadIdx.x % CHUNKS, S = a.kv.S, C = a.kv.C;
    for (int row = threadIdx.x / CHUNKS; row < N; row += ROWS) {
        int j = j0 + row;
        bool there = chunk * 8 < C && j >= t.low && j < t.high;
        size_t at = there ? (((size_t)t.pages[j / S] * a.kv.K + t.kv_head) * S + j % S) * C + chunk * 8 : 0;
        unsigned to = swizzled<CP>(row, chunk);
        async_copy(k_shared + to, (const E *)a.kv.k_pool + at, there ? 16 : 0);
        async_copy(v_shared + to, (const E *)a.kv.v_pool + at, there ? 16 : 0);
    }
}

/* ---- One tile of positions ----------------------------------------------------------------------------------- */

/* s[m, j] = q[m] . k[j]. A lane's addresses: chunks 2k and 2k + 1 of a row are those of k = 0, exclusive or k * 32. */
template <class E, int CP, int MT, int NT>
static __device__ __forceinline__ void multiply_qk(float (&s)[MT][NT][4], unsigned q_lane, unsigned k_lane)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
    for (int k = 0; k < CP / 16; k++) {
        unsigned q[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++) load_matrices(q[m], (q_lane ^ (k * 32)) + m * 16 * CP * 2);
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
            unsigned b[4];
            load_matrices(b, (k_lane ^ (k * 32)) + n * 16 * CP * 2);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_16x8x16(s[m][2 * n], q[m], b[0], b[1], E());
                mma_16x8x16(s[m][2 * n + 1], q[m], b[2], b[3], E());
            }
        }
    }
}

/* pos: positions of the warp's rows. */
template <int MT, int NT>
static __device__ __forceinline__ void mask(float (&s)[MT][NT][4], const int *pos, int j0, int window)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        int last = pos[i * 8 + lane / 4] - j0 - lane % 4 * 2, first = window > 0 ? last - window : -NT * 8;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (n * 8 + e > last || n * 8 + e <= first) s[i / 2][n][i % 2 * 2 + e] = -CUDART_INF_F;
    }
}

/* Scores become weights exp2(scale * s - top); `sum` gets this lane's part of them. */
template <int MT, int NT, int OT>
static __device__ __forceinline__ void softmax(float (&s)[MT][NT][4], float (&o)[MT][OT][4],
                                               float (&top)[2 * MT], float (&sum)[2 * MT], float scale)
{
    float shrink[2 * MT];
    bool rises = false;
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        float most = -CUDART_INF_F;
#pragma unroll
        for (int n = 0; n < NT; n++)
            most = fmaxf(most, fmaxf(s[i / 2][n][i % 2 * 2], s[i / 2][n][i % 2 * 2 + 1]));
        most = fmaxf(most, __shfl_xor_sync(ALL, most, 1));
        most = fmaxf(most, __shfl_xor_sync(ALL, most, 2)) * scale;
        bool rise = most > top[i] + RISE; /* also from -inf, but not to it */
        shrink[i] = rise ? exp2_approx(top[i] - most) : 1.0f;
        top[i] = rise ? most : top[i];
        rises = rises || rise;
        float base = top[i] == -CUDART_INF_F ? 0 : top[i], part = 0;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float weight = exp2_approx(fmaf(s[i / 2][n][i % 2 * 2 + e], scale, -base));
                s[i / 2][n][i % 2 * 2 + e] = weight;
                part += weight;
            }
        sum[i] = fmaf(sum[i], shrink[i], part);
    }
    if (!__any_sync(ALL, rises)) return;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < OT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) o[m][n][e] *= shrink[2 * m + e / 2];
}

/* o[m, c] += sum_j p[m, j] * v[j, c]. Sums of s have the layout of p's operand. */
template <class E, int CP, int MT, int NT>
static __device__ __forceinline__ void multiply_pv(float (&o)[MT][CP / 8][4], const float (&s)[MT][NT][4],
                                                   unsigned v_lane)
{
#pragma unroll
    for (int j = 0; j < NT / 2; j++) {
        unsigned p[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[m][i] =
                    narrow_pair(s[m][2 * j + i / 2][i % 2 * 2], s[m][2 * j + i / 2][i % 2 * 2 + 1], E());
#pragma unroll
        for (int n = 0; n < CP / 16; n++) {
            unsigned b[4];
            load_matrices_transposed(b, (v_lane ^ (n * 32)) + j * 16 * CP * 2);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_16x8x16(o[m][2 * n], p[m], b[0], b[1], E());
                mma_16x8x16(o[m][2 * n + 1], p[m], b[2], b[3], E());
            }
        }
    }
}

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

template <int MT, int OT>
static __device__ __forceinline__ void store(const op_attention_args &a, const query_tile &t,
                                             float (&o)[MT][OT][4], const float (&sum)[2 * MT])
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        float total = sum[i] + __shfl_xor_sync(ALL, sum[i], 1);
        total += __shfl_xor_sync(ALL, total, 2);
        int m = warp * 16 * MT + i * 8 + lane / 4, token = m / t.heads, head = t.query_head + m % t.heads;
        if (token >= t.tokens || head >= t.group_end) continue;
        float *out = a.out + (size_t)(t.token + token) * a.out_stride + (size_t)head * a.kv.C,
              part = 1 / total;
#pragma unroll
        for (int n = 0; n < OT; n++) {
            int c = n * 8 + lane % 4 * 2;
            if (c < a.kv.C)
                *(float2 *)(out + c) =
                    make_float2(o[i / 2][n][i % 2 * 2] * part, o[i / 2][n][i % 2 * 2 + 1] * part);
        }
    }
}

template <int CP> struct positions_of_tile {
    enum { value = CP > 128 ? 32 : 64 };
};

/* Shared memory: q [M, CP], then K and V [N, CP] of the first buffer, K and V of the second, pos [M]; the tile, for the
 * end: its fields would cost registers in between. */
template <int CP, int M> struct shared_layout {
    enum {
        N = positions_of_tile<CP>::value,
        Q = M * CP * 2,
        KV = N * CP * 2,
        POS = Q + 4 * KV,
        TILE = POS + M * 4,
        BYTES = TILE + sizeof(query_tile)
    };
};

/* E: the cache's element; CP: padded C; MT: times 16 rows of a warp. */
template <class E, int CP, int MT>
static __global__ void __launch_bounds__(THREADS, 2) attend_prompt(op_attention_args a, tiling by)
{
    enum { M = WARPS * 16 * MT, N = positions_of_tile<CP>::value, NT = N / 8, OT = CP / 8 };
    typedef shared_layout<CP, M> layout;
    unsigned char *shared = dynamic_shared<1024>();
    kernel_begins();
    kernel_waits();
    query_tile t;
    if (!open_tile(&t, a, by)) return; /* the whole block */

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int tile = t.low / N, last = (t.high - 1) / N, next_page = 0;
    bool in_page = by.page_shift >= 0; /* every tile is */
    unsigned base = shared_address(shared), buffer = base + layout::Q;
    if (in_page) {
        int page = t.pages[tile >> by.page_shift];
        load_in_page<E, CP, N>(buffer, buffer + layout::KV, a, t, tile, page, by.page_shift);
        next_page = t.pages[min(tile + 1, last) >> by.page_shift];
    } else {
        load_anywhere<E, CP, N>(buffer, buffer + layout::KV, a, t, tile * N);
    }
    int *pos = (int *)(shared + layout::POS);
    if (threadIdx.x < M) pos[threadIdx.x] = t.pos + threadIdx.x / t.heads;
    if (threadIdx.x == 0) *(query_tile *)(shared + layout::TILE) = t;
    load_queries<E, CP, M>(shared, a, t);

    /* what this warp's rows see, all of them and any of them */
    int first_token = warp * 16 * MT / t.heads, last_token = ((warp + 1) * 16 * MT - 1) / t.heads;
    int first_pos = t.pos + first_token, last_pos = t.pos + min(last_token, t.tokens - 1);
    if (first_token >= t.tokens) last_pos = -1;
    int low = a.window > 0 ? first_pos - a.window + 1 : 0;

    /* see multiply_qk: row and chunk of the matrices that a lane gives the address of */
    unsigned q_lane = base + swizzled<CP>(warp * 16 * MT + lane % 16, lane / 16);
    unsigned k_lane = swizzled<CP>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    unsigned v_lane = layout::KV + swizzled<CP>(lane % 16, lane / 16);
    float o[MT][OT][4] = {}, top[2 * MT], sum[2 * MT] = {}, scale = a.scale * CUDART_L2E_F;
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) top[i] = -CUDART_INF_F;

    for (; tile <= last; tile++) {
        int j0 = tile * N;
        async_copy_wait_all();
        __syncthreads(); /* this tile is there for all, and nobody reads the other buffer any more */
        unsigned other = 2 * (base + layout::Q + layout::KV) - buffer; /* the buffers are 2 * KV apart */
        if (tile < last && in_page) {
            load_in_page<E, CP, N>(other, other + layout::KV, a, t, tile + 1, next_page, by.page_shift);
            next_page = t.pages[min(tile + 2, last) >> by.page_shift];
        } else if (tile < last) {
            load_anywhere<E, CP, N>(other, other + layout::KV, a, t, j0 + N);
        }
        if (j0 <= last_pos && j0 + N > low) {
            float s[MT][NT][4];
            multiply_qk<E, CP>(s, q_lane, buffer + k_lane);
            if (j0 + N - 1 > first_pos || (a.window > 0 && j0 <= last_pos - a.window))
                mask(s, pos + warp * 16 * MT, j0, a.window);
            softmax(s, o, top, sum, scale);
            multiply_pv<E, CP>(o, s, buffer + v_lane);
        }
        buffer = other;
    }
    store(a, *(const query_tile *)(shared + layout::TILE), o, sum);
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

static tiling tiling_of(const op_attention_args *a, int M, int N)
{
    int ratio = a->H / a->kv.K, S = a->kv.S;
    tiling by;
    by.page_shift = S % N == 0 ? 0 : -1;
    for (int tiles = S / N; by.page_shift >= 0 && tiles > 1; tiles /= 2)
        by.page_shift = tiles % 2 == 0 ? by.page_shift + 1 : -1;
    by.parts = (ratio + 63) / 64;
    by.heads = (ratio + by.parts - 1) / by.parts;
    by.per_tile = M / by.heads;
    return by;
}

/* The host does not know the rows: a tile more for each that may have several tokens; blocks without a tile leave. */
template <class E, int CP, int MT>
static void launch_tiles(const op_attention_args *a, const cuda_context *cuda)
{
    enum { M = WARPS * 16 * MT, SHARED = shared_layout<CP, M>::BYTES };
    tiling by = tiling_of(a, M, positions_of_tile<CP>::value);
    int rows = a->R < a->T / 2 ? a->R : a->T / 2, tiles = a->T / by.per_tile + rows;
    cudaFuncSetAttribute(attend_prompt<E, CP, MT>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    launch(cuda, attend_prompt<E, CP, MT>, (unsigned)(tiles * a->kv.K * by.parts), THREADS, SHARED, *a, by);
}

template <class E> static void launch_format(const op_attention_args *a, const cuda_context *cuda)
{
    tiling by = tiling_of(a, 128, 64);
    int blocks = a->T / by.per_tile * a->kv.K * by.parts;
    bool many = blocks >= cuda->multiprocessors + cuda->multiprocessors / 2;
    if (a->kv.C > 128)
        launch_tiles<E, 256, 1>(a, cuda);
    else if (a->kv.C > 64 && many)
        launch_tiles<E, 128, 2>(a, cuda);
    else if (a->kv.C > 64)
        launch_tiles<E, 128, 1>(a, cuda);
    else if (many)
        launch_tiles<E, 64, 2>(a, cuda);
    else
        launch_tiles<E, 64, 1>(a, cuda);
}

extern "C" bool op_attention_prompt_cuda(const op_attention_args *a, const cuda_context *cuda)
{
    enum { MOST_SHARED = 99 * 1024 };
    static_assert((int)shared_layout<128, 128>::BYTES <= MOST_SHARED, "must fit on 8.6");
    static_assert((int)shared_layout<256, 64>::BYTES <= MOST_SHARED, "must fit on 8.6");
    bool format = a->kv.format == DTYPE_BF16 || a->kv.format == DTYPE_F16;
    bool aligned = (uintptr_t)a->q % 16 == 0 && a->q_stride % 4 == 0 && (uintptr_t)a->out % 8 == 0 &&
                   a->out_stride % 2 == 0 && (uintptr_t)a->kv.k_pool % 16 == 0 &&
                   (uintptr_t)a->kv.v_pool % 16 == 0;
    if (!format || !aligned || a->kv.C % 8 != 0 || a->kv.C > 256 || !(a->scale > 0)) return false;
    if (cuda->shared_bytes < MOST_SHARED) return false;
    if (a->T < 2) return true;
    if (a->kv.format == DTYPE_BF16)
        launch_format<__nv_bfloat16>(a, cuda);
    else
        launch_format<__half>(a, cuda);
    return true;
}
