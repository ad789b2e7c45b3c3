/* Q8_0 products of many tokens on tensor cores, alone and with the norm before them: inputs rounded to int8 as ggml does,
 * 34 bytes per 32 weights read once for all tokens of a tile.
 *
 * Two launches. round_to_q8 writes int8 inputs, normalized before, and their scales into scratch; then a block of threads
 * does BM tokens x BN weight rows, over k in stages of 4 blocks of 32 that arrive by cp.async in a ring. One mma.m16n8k32
 * is one block of 32 of 16 weight rows and 8 tokens, exact in int32; its sum times both scales is added in float32.
 *
 * Weights stay as they are stored: blocks of 34 bytes begin at a word, or two bytes behind one, so fragments are picked
 * from the raw rows word by word. A block at a word (an even number) has its scale and the first two weights in word 0, its
 * last two in word 8. These four make one word of the fragment, so its inputs are stored in that order too: elements
 * 2 .. 31, 0, 1. Rows of a stage are 36 words apart, which gives 8 rows x 4 words all banks.
 *
 * Turning sums to floats costs more than making them: int32 sums begin at the bits of the float MAGIC, so they end as the
 * floats MAGIC + sum. A weight's scale has 11 bits, hence MAGIC * scale is exact, and fma(sum, scale, -MAGIC * scale) is the
 * scaled sum, rounded once; a second fma applies the input's scale. That is 8 operations per mma and lane, where the tensor
 * cores of 9.0 are busy some 6 cycles (8.0: 16 and 8). With the loads 13.3 instructions are issued per mma of the largest
 * tile (counted in sm_90a's code), at best one per cycle: 570 T operations per second on 132 multiprocessors at 1.75 GHz.
 * That bounds prompts; below some 64 tokens reading the weights does, 34/32 * N*K bytes. */
#include "ops/linear_q8.cuh"

enum {
    STAGE_BLOCKS = 4,
    STAGE_K = STAGE_BLOCKS * Q8_0_BLOCK,
    ROW_WORDS = 36, /* of weights: STAGE_BLOCKS * 34 bytes, which begin at byte 0 or 8, in 16-byte chunks */
    ROW_BYTES = ROW_WORDS * 4,
    CHUNKS = STAGE_K / 16, /* of a row of inputs; a row of weights has one more */
    WARP_ROWS = 32,        /* weight rows of a warp */
    MAGIC = 0x4b400000     /* 1.5 * 2^23: next to it floats are 1 apart, for sums up to 2^22 either way */
};

typedef struct {
    row_list rows;
    int first_tile[LINEAR_MAX_PARTS]; /* of weight rows, by part */
    int8_t *x;                        /* [T, K] */
    float *scales;                    /* [K / 32, scale_stride] */
    int scale_stride;
} q8_args;

/* ---- Inputs -------------------------------------------------------------------------------------------------- */

enum { ROUND_THREADS = 256, ROUND_AHEAD = 4, ROUND_APART = ROUND_THREADS / Q8_LANES };

static __device__ __forceinline__ float4 normalized(const row_list &a, const float4 &x, float scale, int k)
{
    if (!a.norm) return x;
    float4 w = *(const float4 *)(a.norm + k);
    return make_float4(w.x * (x.x * scale), w.y * (x.y * scale), w.z * (x.z * scale), w.w * (x.w * scale));
}

/* Grid: tokens, parts of ROUND_AHEAD * ROUND_APART blocks of 32. With a norm each of them adds up the row's squares. */
static __global__ void __launch_bounds__(ROUND_THREADS) round_to_q8(const __grid_constant__ q8_args a)
{
    kernel_begins();
    kernel_waits();
    const int t = blockIdx.x, part = threadIdx.x % Q8_LANES, blocks = a.rows.cols / Q8_0_BLOCK;
    const int first = blockIdx.y * ROUND_AHEAD * ROUND_APART + threadIdx.x / Q8_LANES;
    const float *in[1] = {inputs_of(a.rows, t)};
    float4 x[ROUND_AHEAD];
    float scale[1];
#pragma unroll
    for (int i = 0; i < ROUND_AHEAD; i++) {
        int b = first + i * ROUND_APART;
        x[i] = b < blocks ? *(const float4 *)(in[0] + b * Q8_0_BLOCK + part * 4) : make_float4(0, 0, 0, 0);
    }
    scale_tokens<ROUND_THREADS / 32, 1>(scale, a.rows, in);
#pragma unroll
    for (int i = 0; i < ROUND_AHEAD; i++) {
        int b = first + i * ROUND_APART,
            turn = b % 2 ? 0 : 1; /* pairs by which the block's order begins later */
        if (b < blocks) x[i] = normalized(a.rows, x[i], scale[0], b * Q8_0_BLOCK + part * 4);
        q8_four r = round_four(x[i]);
        if (b >= blocks) continue;
        uint16_t *to = (uint16_t *)(a.x + (size_t)t * a.rows.cols + b * Q8_0_BLOCK);
        to[(2 * part - turn) & 15] = (uint16_t)r.four;
        to[2 * part + 1 - turn] = (uint16_t)(r.four >> 16);
        if (part == 0) a.scales[(size_t)b * a.scale_stride + t] = r.scale;
    }
}

/* ---- Tiles --------------------------------------------------------------------------------------------------- */

template <int BM_, int BN_, int WM_, int SPLIT_, int STAGES_> struct q8_tile {
    enum {
        BM = BM_,       /* tokens */
        BN = BN_,       /* weight rows */
        WM = WM_,       /* tokens of a warp */
        SPLIT = SPLIT_, /* warps that share a part, each doing every SPLIT-th block of 32 */
        STAGES = STAGES_,
        WARPS = (BM / WM) * (BN / WARP_ROWS), /* of one split */
        THREADS = 32 * WARPS * SPLIT,
        PASS = THREADS / CHUNKS, /* rows that all threads load at once, 16 bytes each */
        X_AT = BN * ROW_BYTES,   /* in a stage: weights, inputs, scales [STAGE_BLOCKS, BM] */
        SCALES_AT = X_AT + BM * STAGE_K,
        STAGE_BYTES = SCALES_AT + STAGE_BLOCKS * BM * 4,
        SHARED = STAGES * STAGE_BYTES
    };
    static_assert(PASS % 8 == 0 && BM % PASS == 0 && BN % PASS == 0 && BM % 4 == 0, "loads fill the tile");
    static_assert(BN <= THREADS && BM <= THREADS, "a thread loads one last chunk, and one of the scales");
    static_assert(STAGE_BLOCKS % SPLIT == 0 && (SPLIT == 1 || (WARPS == 1 && SPLIT == WM / 8)),
                  "each warp of a split stores 8 tokens");
    static_assert(SPLIT * WM * WARP_ROWS * 4 <= SHARED, "sums fit the ring");
    static_assert(SHARED <= 99 * 1024, "fits every supported GPU");
};

typedef q8_tile<32, 32, 32, 4, 8> tile_small; /* few tokens or few rows: many blocks */
typedef q8_tile<32, 128, 32, 1, 4> tile_wide; /* few tokens, many rows: inputs are read less often */
typedef q8_tile<64, 128, 64, 1, 3> tile_middle;
typedef q8_tile<128, 128, 64, 1, 2> tile_large;

/* What a thread loads: of the weights its chunk of every PASS-th row, and the last chunk of one row. */
typedef struct {
    const char *w, *last; /* at k = 0 */
    const int8_t *x;
    const float *scales;
    int w_rows, x_rows; /* rows that are there, counted from its first */
    bool has_last, has_scales;
    uint32_t w_to, last_to, x_to, scales_to; /* in stage 0 */
} thread_loads;

/* m0: the tile's first token; n0: its first row of the part. */
template <class S>
static __device__ __forceinline__ thread_loads loads_of_thread(const q8_args &a, int part, int m0, int n0,
                                                               uint32_t shared)
{
    const int thread = threadIdx.x, row = thread / CHUNKS, chunk = thread % CHUNKS;
    const int block = thread / (S::BM / 4), token = thread % (S::BM / 4) * 4; /* of its scales */
    const char *w = (const char *)a.rows.data[part] + a.rows.row_bytes * (size_t)n0;
    int rows = a.rows.first[part + 1] - a.rows.first[part] - n0;
    thread_loads l;
    l.w = w + a.rows.row_bytes * (size_t)row + chunk * 16;
    l.last = w + a.rows.row_bytes * (size_t)thread + CHUNKS * 16;
    l.x = a.x + (size_t)(m0 + row) * a.rows.cols + chunk * 16;
    l.scales = a.scales + (size_t)block * a.scale_stride + m0 + token;
    l.w_rows = rows - row;
    l.x_rows = a.rows.T - m0 - row;
    l.has_last = thread < rows;
    l.has_scales = m0 + token < a.rows.T;
    l.w_to = shared + row * ROW_BYTES + chunk * 16;
    l.last_to = shared + thread * ROW_BYTES + CHUNKS * 16;
    l.x_to = shared + S::X_AT + row * STAGE_K + ((chunk ^ (row & 7)) << 4);
    l.scales_to = shared + S::SCALES_AT + thread * 16;
    return l;
}

/* A stage's 136 bytes of a row begin at a multiple of 16 or 8 behind one: then from that multiple on. Of the last stage
 * what there is: rows end at a multiple of 16, and what follows, like what lies behind a row's last block, is zero, and so
 * are the sums of blocks that are not there. */
template <class S>
static __device__ __forceinline__ void load_weights(const q8_args &a, const thread_loads &l, int step,
                                                    int slot)
{
    const int offset = step * STAGE_BLOCKS * Q8_0_BLOCK_BYTES - step % 2 * 8;
    const int left = (int)a.rows.row_bytes - offset,
              rows = (int)threadIdx.x % CHUNKS * 16 < left ? l.w_rows : 0;
#pragma unroll
    for (int r = 0; r < S::BN; r += S::PASS)
        async_copy_l2_128(l.w_to + slot * S::STAGE_BYTES + r * ROW_BYTES, l.w + a.rows.row_bytes * r + offset,
                          r < rows ? 16 : 0);
    if (threadIdx.x < S::BN)
        async_copy_l2_128(l.last_to + slot * S::STAGE_BYTES, l.last + offset,
                          l.has_last && CHUNKS * 16 < left ? 16 : 0);
}

template <class S>
static __device__ __forceinline__ void load_inputs(const q8_args &a, const thread_loads &l, int step,
                                                   int slot)
{
    const int left = a.rows.cols - step * STAGE_K,
              rows = (int)threadIdx.x % CHUNKS * 16 < left ? l.x_rows : 0;
#pragma unroll
    for (int r = 0; r < S::BM; r += S::PASS)
        async_copy_l2_128(l.x_to + slot * S::STAGE_BYTES + r * STAGE_K,
                          l.x + (size_t)r * a.rows.cols + step * STAGE_K, r < rows ? 16 : 0);
    if (threadIdx.x < S::BM)
        async_copy_l2_128(l.scales_to + slot * S::STAGE_BYTES,
                          l.scales + (size_t)step * STAGE_BLOCKS * a.scale_stride,
                          l.has_scales && (int)threadIdx.x / (S::BM / 4) * Q8_0_BLOCK < left ? 16 : 0);
}

/* ---- One stage ----------------------------------------------------------------------------------------------- */

/* A block of 32 of 16 weight rows, as mma takes it, and what turns its sums of rows lane / 4 and lane / 4 + 8 to floats. */
typedef struct {
    uint32_t of[4];
    float scale[2], less[2];
} weight_fragment;

/* `row`: word 0 of the block in row lane / 4. */
static __device__ __forceinline__ weight_fragment load_fragment(const uint32_t *row, bool at_word, int lane)
{
    weight_fragment f;
    const uint32_t from_first = at_word && lane % 4 == 3 ? 0xffff0000u : 0;
#pragma unroll
    for (int half = 0; half < 2; half++, row += 8 * ROW_WORDS) {
        uint32_t first = row[0], low = row[1 + lane % 4], high = row[5 + lane % 4];
        __half_raw scale;
        scale.x = (unsigned short)(at_word ? first : first >> 16);
        f.of[half] = low;
        f.of[half + 2] = (first & from_first) | (high & ~from_first);
        f.scale[half] = __half2float(__half(scale));
        f.less[half] = f.scale[half] * -__uint_as_float(MAGIC);
    }
    return f;
}

/* [16 rows each][8 tokens each]: rows lane / 4 and, from [2] on, lane / 4 + 8; tokens 2 * (lane % 4) and the next. */
template <class S> struct sums {
    float of[WARP_ROWS / 16][S::WM / 8][4];
};

static __device__ __forceinline__ void multiply_add(float (&sum)[4], const weight_fragment &w, uint32_t x0,
                                                    uint32_t x1, const float2 &x_scale)
{
    int d[4];
    mma_16x8x32(d, w.of, x0, x1, MAGIC);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float dot = fmaf(__uint_as_float((uint32_t)d[i]), w.scale[i / 2], w.less[i / 2]);
        sum[i] = fmaf(dot, i % 2 ? x_scale.y : x_scale.x, sum[i]);
    }
}

/* words: word 0 of the block in this lane's row of the warp's first 8; x_rows: this lane's row of the warp's inputs;
 * scales: of this lane's first token. */
template <class S>
static __device__ __forceinline__ void multiply_block(sums<S> &sum, const uint32_t *words, uint32_t x_rows,
                                                      const float *scales, int block, int lane)
{
    weight_fragment w[WARP_ROWS / 16];
    uint32_t x_at = x_rows + (((block * 2 + (lane / 8 & 1)) ^ (lane & 7)) << 4);
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 16; i++)
        w[i] = load_fragment(words + i * 16 * ROW_WORDS, block % 2 == 0, lane);
#pragma unroll
    for (int j = 0; j < S::WM / 16; j++) {
        uint32_t x[4]; /* two halves of k of 8 tokens, then of 8 more */
        load_matrices(x, x_at + j * 16 * STAGE_K);
#pragma unroll
        for (int eight = 0; eight < 2; eight++) {
            float2 x_scale = *(const float2 *)(scales + j * 16 + eight * 8);
#pragma unroll
            for (int i = 0; i < WARP_ROWS / 16; i++)
                multiply_add(sum.of[i][j * 2 + eight], w[i], x[eight * 2], x[eight * 2 + 1], x_scale);
        }
    }
}

/* odd: the stage's number is, so its blocks begin 8 bytes later. */
template <class S>
static __device__ __forceinline__ void multiply_stage(sums<S> &sum, const unsigned char *stage,
                                                      uint32_t stage_address, int odd, int row, int token,
                                                      int split, int lane)
{
    const uint32_t *words = (const uint32_t *)(stage + (row + lane / 4) * ROW_BYTES + odd * 8);
    const float *scales = (const float *)(stage + S::SCALES_AT) + token + lane % 4 * 2;
    uint32_t x_rows = stage_address + S::X_AT + (token + lane / 16 * 8 + lane % 8) * STAGE_K;
#pragma unroll
    for (int i = 0; i < STAGE_BLOCKS / S::SPLIT; i++) {
        int block = i * S::SPLIT + split;
        multiply_block<S>(sum, words + block * Q8_0_BLOCK_BYTES / 4, x_rows, scales + block * S::BM, block,
                          lane);
    }
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* J times 8 tokens from t on, rows of the part from n on. */
template <int J>
static __device__ __forceinline__ void store_sums(const q8_args &a, int part, int n, int t, int lane,
                                                  const float (&sum)[WARP_ROWS / 16][J][4])
{
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 8; i++) {
        int row = n + i * 8 + lane / 4;
        if (row >= a.rows.first[part + 1] - a.rows.first[part]) return;
        float bias = a.rows.bias[part] ? a.rows.bias[part][row] : 0;
        float *out = a.rows.out + a.rows.out_col[part] + row;
#pragma unroll
        for (int j = 0; j < J * 2; j++) {
            int token = t + j / 2 * 8 + lane % 4 * 2 + j % 2;
            if (token >= a.rows.T) continue;
            float *to = out + (size_t)token * a.rows.out_stride,
                  v = sum[i / 2][j / 2][i % 2 * 2 + j % 2] + bias;
            *to = a.rows.accumulate ? *to + v : v;
        }
    }
}

/* All warps' sums go to the ring, [SPLIT, WARP_ROWS / 16, WM / 8, 32 lanes] of 4, and each adds up those of 8 tokens. */
template <class S>
static __device__ __forceinline__ void store_split_sums(const q8_args &a, int part, int n, int t, int split,
                                                        int lane, const sums<S> &sum, float4 *ring)
{
    const int each = WARP_ROWS / 16 * (S::WM / 8) * 32;
    float own[WARP_ROWS / 16][1][4] = {};
    __syncthreads(); /* the last stage has been read */
#pragma unroll
    for (int i = 0; i < WARP_ROWS / 16; i++)
#pragma unroll
        for (int j = 0; j < S::WM / 8; j++) {
            const float(&v)[4] = sum.of[i][j];
            ring[split * each + (i * (S::WM / 8) + j) * 32 + lane] = make_float4(v[0], v[1], v[2], v[3]);
        }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < S::SPLIT; s++)
#pragma unroll
        for (int i = 0; i < WARP_ROWS / 16; i++) {
            float4 v = ring[s * each + (i * (S::WM / 8) + split) * 32 + lane];
            own[i][0][0] += v.x, own[i][0][1] += v.y, own[i][0][2] += v.z, own[i][0][3] += v.w;
        }
    store_sums<1>(a, part, n, t + split * 8, lane, own);
}

/* Grid: tiles of tokens (fastest, so that blocks beside each other share weights in L2), tiles of weight rows. The ring's
 * weights are asked for before the wait: they depend on no kernel. */
template <class S>
static __global__ void __launch_bounds__(S::THREADS) product_q8(const __grid_constant__ q8_args a)
{
    unsigned char *ring = dynamic_shared<128>();
    kernel_begins();
    const int lane = threadIdx.x % 32, warp = S::SPLIT > 1 ? 0 : threadIdx.x / 32;
    const int split = S::SPLIT > 1 ? threadIdx.x / 32 : 0; /* then a part has one warp of each */
    const int row = warp / (S::BM / S::WM) * WARP_ROWS, token = warp % (S::BM / S::WM) * S::WM;
    const uint32_t shared = shared_address(ring);
    int part = 0;
    while (part + 1 < a.rows.n_parts && (int)blockIdx.y >= a.first_tile[part + 1]) part++;
    const int m0 = blockIdx.x * S::BM, n0 = (blockIdx.y - a.first_tile[part]) * S::BN;
    const int blocks = a.rows.cols / Q8_0_BLOCK, steps = (blocks + STAGE_BLOCKS - 1) / STAGE_BLOCKS;
    thread_loads l = loads_of_thread<S>(a, part, m0, n0, shared);
#pragma unroll
    for (int s = 0; s < S::STAGES - 1; s++)
        if (s < steps) load_weights<S>(a, l, s, s);
    kernel_waits();
#pragma unroll
    for (int s = 0; s < S::STAGES - 1; s++) {
        if (s < steps) load_inputs<S>(a, l, s, s);
        async_copy_commit();
    }
    sums<S> sum = {};
    int slot = 0, next_slot = S::STAGES - 1;
    for (int step = 0; step < steps; step++) {
        async_copy_wait<S::STAGES - 2>();
        __syncthreads(); /* everybody's copies of this stage are there, and the last stage has been read */
        if (step + S::STAGES - 1 < steps) {
            load_weights<S>(a, l, step + S::STAGES - 1, next_slot);
            load_inputs<S>(a, l, step + S::STAGES - 1, next_slot);
        }
        async_copy_commit(); /* empty groups keep the count */
        multiply_stage<S>(sum, ring + slot * S::STAGE_BYTES, shared + slot * S::STAGE_BYTES, step % 2, row,
                          token, split, lane);
        slot = slot + 1 == S::STAGES ? 0 : slot + 1;
        next_slot = next_slot + 1 == S::STAGES ? 0 : next_slot + 1;
    }
    if (S::SPLIT > 1)
        store_split_sums<S>(a, part, n0 + row, m0 + token, split, lane, sum, (float4 *)ring);
    else
        store_sums<S::WM / 8>(a, part, n0 + row, m0 + token, lane, sum.of);
}

/* ---- Which tile ---------------------------------------------------------------------------------------------- */

template <class S> static int tiles_of(const q8_args &a, int part)
{
    return (a.rows.first[part + 1] - a.rows.first[part] + S::BN - 1) / S::BN;
}

template <class S> static bool fills(const q8_args &a, int blocks)
{
    int64_t tiles = 0;
    for (int p = 0; p < a.rows.n_parts; p++) tiles += tiles_of<S>(a, p);
    return (a.rows.T + S::BM - 1) / S::BM * tiles >= blocks;
}

template <class S> static void launch_product(q8_args a, const cuda_context *cuda)
{
    int tiles = 0;
    for (int p = 0; p < a.rows.n_parts; p++) {
        a.first_tile[p] = tiles;
        tiles += tiles_of<S>(a, p);
    }
    cudaFuncSetAttribute(product_q8<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SHARED);
    launch(cuda, product_q8<S>, dim3((unsigned)(a.rows.T + S::BM - 1) / S::BM, (unsigned)tiles), S::THREADS,
           S::SHARED, a);
}

/* The largest tile that still gives most multiprocessors a block: it reads least from L2. */
static void launch_best(const q8_args &a, const cuda_context *cuda)
{
    int enough = cuda->multiprocessors * 3 / 4;
    if (a.rows.T > tile_middle::BM && fills<tile_large>(a, enough))
        launch_product<tile_large>(a, cuda);
    else if (a.rows.T > tile_wide::BM && fills<tile_middle>(a, enough))
        launch_product<tile_middle>(a, cuda);
    else if (a.rows.T <= tile_wide::BM && fills<tile_wide>(a, enough))
        launch_product<tile_wide>(a, cuda);
    else
        launch_product<tile_small>(a, cuda);
}

static int scale_stride_of(int T)
{
    return (T + 3) / 4 * 4; /* 16 bytes */
}

/* Scratch: int8 inputs, their scales, gate and up. */
static size_t rounded_bytes(int32_t T, int32_t cols)
{
    return ((size_t)T * (size_t)cols + 255) / 256 * 256;
}

static size_t scale_bytes(int32_t T, int32_t cols)
{
    size_t bytes = (size_t)cols / Q8_0_BLOCK * (size_t)scale_stride_of(T) * sizeof(float);
    return (bytes + 255) / 256 * 256;
}

size_t linear_q8_many_scratch(int32_t T, int32_t cols, int32_t F)
{
    return rounded_bytes(T, cols) + scale_bytes(T, cols) + linear_gated_bytes(T, F);
}

static void multiply(const row_list &a, const cuda_context *cuda)
{
    q8_args p = {};
    p.rows = a;
    p.x = (int8_t *)cuda->scratch;
    p.scales = (float *)((char *)cuda->scratch + rounded_bytes(a.T, a.cols));
    p.scale_stride = scale_stride_of(a.T);
    int blocks = a.cols / Q8_0_BLOCK, each = ROUND_AHEAD * ROUND_APART;
    launch(cuda, round_to_q8, dim3((unsigned)a.T, (unsigned)(blocks + each - 1) / each), ROUND_THREADS, 0, p);
    launch_best(p, cuda);
}

/* Gate and up into scratch, then silu(gate) * up. */
static void multiply_gated(const row_list &a, const cuda_context *cuda)
{
    int F = a.first[1];
    row_list both = a;
    both.gated = false;
    both.out_stride = 2 * F;
    both.out_col[1] = F;
    both.out = (float *)((char *)cuda->scratch + rounded_bytes(a.T, a.cols) + scale_bytes(a.T, a.cols));
    multiply(both, cuda);
    linear_gate_cuda(a.out, a.out_stride, both.out, a.T, F, cuda);
}

bool linear_q8_many_cuda(const row_list &a, dtype format, const cuda_context *cuda)
{
    if (format != DTYPE_Q8_0 || !rows_are_aligned(a) || !inputs_are_aligned(a)) return false;
    if (!a.gated) multiply(a, cuda);
    for (int t = 0; a.gated && t < a.T; t += GATED_TOKENS)
        multiply_gated(tokens_from(a, t, min(a.T - t, (int)GATED_TOKENS)), cuda);
    return true;
}
