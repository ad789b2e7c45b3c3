/* The products of persistent.cu: inputs from the words of other blocks, sums, results into words for them. */
#ifndef NVLLM_OPS_PERSISTENT_PRODUCTS_CUH
#define NVLLM_OPS_PERSISTENT_PRODUCTS_CUH

#include "ops/persistent_stream.cuh"

/* ---- Inputs -------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ int padded_columns(int cols)
{
    return (cols + COLS_PAD - 1) / COLS_PAD * COLS_PAD;
}

/* x[k] and x[k + 1] = bf16(v * w), zeros past cols; returns the sum of their squares. */
static __device__ __forceinline__ float put_normed(__nv_bfloat16 *x, int k, int cols, float2 v, float2 w)
{
    if (k >= padded_columns(cols)) return 0;
    if (k >= cols) v = w = make_float2(0, 0);
    *(uint32_t *)(x + k) = narrow_pair(v.x * w.x, v.y * w.y, __nv_bfloat16());
    return v.x * v.x + v.y * v.y;
}

static __device__ __forceinline__ float2 norm_weights(const float *norm, int k, int cols)
{
    return k < cols ? *(const float2 *)(norm + k) : make_float2(0, 0);
}

static __device__ __forceinline__ void leave_squares(float *squares, float sum)
{
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = sum;
}

/* The residual stream from its words, weighted by the norm; squares[warp]: sums of squares. Neighbouring lanes take
 * neighbouring pairs of words, which is half as long a wait as with two pairs for each (measured). */
static __device__ __forceinline__ void input_of_words(const block_state &b, const uint64_t *words,
                                                      uint32_t tag, const float *norm, int cols)
{
    enum { AT_ONCE = 4, SPAN = STREAM_THREADS * 2 };
    __nv_bfloat16 *x = (__nv_bfloat16 *)b.work;
    float sum = 0;
    for (int first = (int)threadIdx.x * 2; first < padded_columns(cols); first += AT_ONCE * SPAN) {
        float2 w[AT_ONCE];
        uint4 pair[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) w[i] = norm_weights(norm, first + i * SPAN, cols);
        read_pairs(pair, words, first, SPAN, cols, tag);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            sum += put_normed(x, first + i * SPAN, cols,
                              make_float2(__uint_as_float(pair[i].x), __uint_as_float(pair[i].z)), w[i]);
    }
    leave_squares(b.s->squares, sum);
}

/* Elements k and k + 1 of a stored row. */
static __device__ __forceinline__ float2 load_two(const void *row, dtype format, int k)
{
    return make_float2(load_float(row, format, k), load_float(row, format, k + 1));
}

/* The same from a row of the embedding, of which the block keeps its own part. */
static __device__ __forceinline__ void input_of_embedding(const persistent_args &a, const block_state &b,
                                                          int token)
{
    const persistent_model &m = a.m;
    const void *row = (const char *)m.embedding + m.embedding_row * (size_t)token;
    const product_share &own = b.s->share[PRODUCT_DOWN];
    __nv_bfloat16 *x = (__nv_bfloat16 *)b.work;
    float sum = 0;
    for (int k = threadIdx.x * 2; k < padded_columns(m.D); k += STREAM_THREADS * 2) {
        float2 v = k < m.D ? load_two(row, m.embedding_format, k) : make_float2(0, 0);
        sum += put_normed(x, k, m.D, v, norm_weights(b.layers[0].product[PRODUCT_QKV].norm, k, m.D));
    }
    for (int i = threadIdx.x; i < own.rows; i += STREAM_THREADS)
        b.own[i] = load_float(row, m.embedding_format, own.first + i);
    leave_squares(b.s->squares, sum);
}

/* Inputs that were rounded where they were made: two columns in a word. */
static __device__ __forceinline__ void input_of_pairs(const block_state &b, const uint64_t *words, int cols)
{
    enum { AT_ONCE = 4, SPAN = STREAM_THREADS * 4 };
    __nv_bfloat16 *x = (__nv_bfloat16 *)b.work;
    for (int first = (int)threadIdx.x * 4; first < padded_columns(cols); first += AT_ONCE * SPAN) {
        uint4 pair[AT_ONCE];
        read_pairs(pair, words, first / 2, SPAN / 2, cols / 2, b.tag);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (first + i * SPAN < padded_columns(cols))
                *(uint2 *)(x + first + i * SPAN) = make_uint2(pair[i].x, pair[i].z);
    }
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* The row that this thread finishes in a group, known before its sums are. */
typedef struct {
    bool there;
    int in_share, row;
    float bias[2]; /* gate and up */
} result;

static __device__ __forceinline__ result place_result(const persistent_args &a, const persistent_product &w,
                                                      const product_share &p, int kind, int first_tile)
{
    const bool gated = kind == PRODUCT_GATE_UP;
    result r = {};
    int in_group = GROUP_SUMS / (gated ? 2 : 1);
    r.in_share = (gated ? first_tile / 2 : first_tile) * TILE_ROWS + (int)threadIdx.x;
    r.there = (int)threadIdx.x < in_group && r.in_share < p.rows;
    if (!r.there) r.in_share = 0;
    r.row = p.first + r.in_share;
    int row = r.row, part = kind == PRODUCT_QKV ? part_of_row(a.m, &row) : 0;
    if (r.there && w.bias[part]) r.bias[0] = w.bias[part][row];
    if (gated && r.there && w.bias[1]) r.bias[1] = w.bias[1][row];
    return r;
}

static __device__ __forceinline__ float total_of(const float *sums, int i)
{
    float x[STREAM_WARPS];
#pragma unroll
    for (int w = 0; w < STREAM_WARPS; w++) x[w] = sums[w * GROUP_SUMS + i];
    return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

/* 1/rms of the residual stream; 1 for other inputs. */
static __device__ __forceinline__ float scale_of(const block_state &b, const product_share &p, float eps)
{
    if (!p.normed) return 1;
    float4 low = *(const float4 *)b.s->squares, high = *(const float4 *)(b.s->squares + 4);
    float sum = (low.x + low.y) + (low.z + low.w) + ((high.x + high.y) + (high.z + high.w));
    return rsqrtf(__fdividef(sum, (float)p.cols) + eps); /* both to 2 units in the last place */
}

/* Two neighbours are a word. */
static __device__ __forceinline__ void finish_gated(const persistent_args &a, const block_state &b,
                                                    const product_share &p, const result &r,
                                                    const float *sums, float scale)
{
    int at = (int)threadIdx.x / TILE_ROWS * 2 * TILE_ROWS + (int)threadIdx.x % TILE_ROWS;
    float v = 0;
    if ((int)threadIdx.x >= GROUP_SUMS / 2) return;
    if (r.there) {
        float gate = total_of(sums, at) * scale + r.bias[0],
              up = total_of(sums, at + TILE_ROWS) * scale + r.bias[1];
        v = gate * __fdividef(1.0f, 1.0f + __expf(-gate)) * up; /* e^-gate = inf gives 0 */
    }
    float next = __shfl_xor_sync(0xffffffffu, v, 1);
    if (r.there && threadIdx.x % 2 == 0)
        post_word(a.m.words + p.out + r.row / 2, narrow_pair(v, next, __nv_bfloat16()), b.tag);
}

static __device__ __forceinline__ void finish(const persistent_args &a, const block_state &b,
                                              const product_share &p, int kind, const result &r,
                                              const float *sums)
{
    float scale = scale_of(b, p, a.m.eps);
    if (kind == PRODUCT_GATE_UP) {
        finish_gated(a, b, p, r, sums, scale);
        return;
    }
    if (!r.there) return;
    float v = total_of(sums, (int)threadIdx.x) * scale + r.bias[0];
    if (kind == PRODUCT_HEAD) {
        a.s.logits[r.row] = v;
        return;
    }
    if (p.residual) {
        v += b.own[r.in_share];
        b.own[r.in_share] = v;
    }
    post_float(a.m.words + p.out + r.row, v, b.tag);
}

/* ---- One product --------------------------------------------------------------------------------------------- */

/* One token's input against a stage, by tensor cores: of a[16, 16] * b[16, 8], rows 0-7 of a are the first and third pair
 * of each 8 columns of the tile's rows, rows 8-15 the second and fourth; b's first column is those pairs of the input, its
 * second column these. Of the result the first 8 rows count in the first column, the others in the second. */
typedef struct {
    uint32_t x, y;
} input_pairs;

static __device__ __forceinline__ void load_pairs_of_input(input_pairs (&in)[LOADS], const __nv_bfloat16 *x,
                                                           bool there)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (there && lane < 8) v = *(const uint4 *)(x + i * 32);
        in[i] = lane < 4 ? input_pairs{v.x, v.z} : input_pairs{v.y, v.w};
    }
}

/* The lane's part of a stage. columns: those that the row has from its first one on; what lies behind its end is no number
 * of ours. */
static __device__ __forceinline__ void load_rows(uint4 (&w)[LOADS], const unsigned char *stage, int columns,
                                                 bool whole)
{
#pragma unroll
    for (int i = 0; i < LOADS; i++) w[i] = *(const uint4 *)(stage + i * 64);
    if (whole) return;
#pragma unroll
    for (int i = 0; i < LOADS; i++)
        if (i * 32 >= columns) w[i] = make_uint4(0, 0, 0, 0);
}

/* The warp's sum of the row of lanes l, l + 1 .. l + 3, in lane l = 0, 4, .. */
static __device__ __forceinline__ float multiply_rows(const uint4 (&w)[LOADS], const input_pairs (&in)[LOADS])
{
    float sum[LOADS][4] = {};
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        uint32_t rows[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
        mma_16x8x16(sum[i], rows, in[i].x, in[i].y, __nv_bfloat16());
    }
    return ((sum[0][0] + sum[0][3]) + (sum[1][0] + sum[1][3])) +
           ((sum[2][0] + sum[2][3]) + (sum[3][0] + sum[3][3]));
}

/* Tiles of a product, whose sums go into the warp's part of `sums`, row by row. One loop, with few branches, for short: a
 * stage that is there takes about as long as it takes shared memory to give it. */
static __device__ __forceinline__ void multiply_tiles(const persistent_args &a, block_state &b, float *sums,
                                                      const __nv_bfloat16 *x, input_pairs (&in)[LOADS],
                                                      int tiles, int cols)
{
    const int lane = threadIdx.x % 32, warp_cols = (int)threadIdx.x / 32 * WARP_COLS,
              in_stage = lane / 4 * ROW_PITCH + warp_cols * 2 + lane % 4 * 16,
              steps = (cols + STEP_COLS - 1) / STEP_COLS;
    float *to = sums + warp_cols / WARP_COLS * GROUP_SUMS + lane / 4, total = 0;
    int first = 0; /* column of the stage */
#pragma unroll 1
    for (int left = tiles * steps; left > 0; left--) {
        uint4 w[LOADS];
        int columns = cols - first - warp_cols;
        if (steps > 1) load_pairs_of_input(in, x + first, columns > 0);
        load_rows(w, receive_stage(b) + in_stage, columns - lane % 4 * 8, columns >= WARP_COLS);
        release_stage(a, b);
        total += multiply_rows(w, in);
        first += STEP_COLS;
        if (first < cols) continue;
        if (lane % 4 == 0) *to = total;
        to += TILE_ROWS;
        total = 0;
        first = 0;
    }
}

/* The input of a product into b.work; and of the residual stream what its scale comes from. */
static __device__ __forceinline__ void take_input(const persistent_args &a, const block_state &b,
                                                  const persistent_product &w, const product_share &p,
                                                  int kind)
{
    const uint64_t *words = a.m.words + p.in;
    if (!p.normed)
        input_of_pairs(b, words, p.cols);
    else
        input_of_words(b, words, kind == PRODUCT_QKV ? b.tag - 1 : b.tag, w.norm, p.cols);
}

/* ready: the input is in b.work. Afterwards the next one may be put there. One body for all kinds: less code runs faster. */
static __device__ __forceinline__ void product(const persistent_args &a, block_state &b,
                                               const persistent_product &w, int kind, bool ready)
{
    const product_share &p = b.s->share[kind];
    const int warp_cols = (int)threadIdx.x / 32 * WARP_COLS, cols = p.cols, tiles = p.tiles;
    const __nv_bfloat16 *x = (const __nv_bfloat16 *)b.work + warp_cols + threadIdx.x % 4 * 8;
    result r = place_result(a, w, p, kind, 0);
    meet(); /* the results before have been posted: words are looked for behind them, not in their way */
    if (!ready) take_input(a, b, w, p, kind);
    meet();
    input_pairs in[LOADS]; /* the same in every tile when rows have one step */
    load_pairs_of_input(in, x, warp_cols < cols);
    for (int first = 0; first < tiles; first += GROUP_TILES) {
        float *sums = b.sums + b.buffer * STREAM_WARPS * GROUP_SUMS;
        if (first > 0) r = place_result(a, w, p, kind, first);
        multiply_tiles(a, b, sums, x, in, min((int)GROUP_TILES, tiles - first), cols);
        meet();
        finish(a, b, p, kind, r, sums);
        b.buffer ^= 1;
    }
}

#endif
