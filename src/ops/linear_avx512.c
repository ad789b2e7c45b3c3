/* Blocks of matrix products with AVX-512 (F, BW, VL, VNNI, BF16); see linear_kernels.h for the rules.
 *
 * Every output has one 16-lane accumulator that walks along k: 32 products per step for bf16 (vdpbf16ps), 16 for
 * F32 and F16 (FMA), two blocks for Q8_0 (vpdpbusd, then one FMA with the product of the scales). Tiles of several
 * tokens x 4 rows keep the multipliers busy; a single token takes its 4 rows one after the other, because one long
 * stream is what the memory likes best. The four accumulators of a token are summed together, always by the same
 * tree. Ends of rows are read with masks; packed inputs are padded with zeros.
 *
 * Measured on a Zen 5 core, tiles of 6 x 4 bf16 in the L2 cache reach 92-96 % of the multipliers' peak for cols up to
 * 3072. Tried and dropped: panels of k with the accumulators parked in memory (slower except at cols 4096);
 * prefetching the next tile in every pass (evicts the inputs from L1 where rows are long). */
#include "ops/linear_kernels.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define AVX512        __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")))
#define AVX512_INLINE AVX512 static inline __attribute__((always_inline))

enum {
    N = LINEAR_TILE_ROWS,
    MAX_TOKENS = 6,    /* of a tile: 24 accumulators, 4 rows and an input in 32 registers */
    MAX_TOKENS_Q8 = 4, /* Q8_0 needs temporaries */
    PREFETCH = 8192,   /* bytes ahead in a single stream of weights */
    STEP_BF16 = 32,
    STEP_FLOAT = 16,
    STEP_Q8 = 64
};

/* Four accumulators, one per row, to their four sums. */
AVX512_INLINE __m128 sum_rows(const __m512 acc[N])
{
    __m512 ab =
        _mm512_add_ps(_mm512_shuffle_f32x4(acc[0], acc[1], 0x44), _mm512_shuffle_f32x4(acc[0], acc[1], 0xee));
    __m512 cd =
        _mm512_add_ps(_mm512_shuffle_f32x4(acc[2], acc[3], 0x44), _mm512_shuffle_f32x4(acc[2], acc[3], 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e)); /* each 128-bit lane is one row now */
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
    __m512i first_of_lanes = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(first_of_lanes, s));
}

AVX512_INLINE void store_rows(const linear_block *b, int32_t t, int32_t n, __m128 sums)
{
    int32_t left = b->rows - n;
    __mmask8 mask = left >= N ? 0xf : (__mmask8)((1 << left) - 1);
    float *out = b->out + b->out_stride * t + n;
    if (b->bias) sums = _mm_add_ps(sums, _mm_maskz_loadu_ps(mask, b->bias + n));
    if (b->accumulate) sums = _mm_add_ps(sums, _mm_maskz_loadu_ps(mask, out));
    _mm_mask_storeu_ps(out, mask, sums);
}

/* What a tile works on. Rows past the block's last are the last one again; their sums are not stored. */
typedef struct {
    const uint8_t *w[N], *x[MAX_TOKENS];
    size_t ahead; /* bytes from a row to what is prefetched while it is read */
} tile;

/* Adds step s, of which `left` elements exist, to the accumulators of rows [row, rows) and all tokens. */
typedef void step_function(__m512 acc[][N], const tile *p, size_t s, int32_t left, int tokens, int row,
                           int rows);

/* A format, known when the code below is compiled. */
typedef struct {
    step_function *step;
    int32_t step_cols;
    int max_tokens;
} format_steps;

AVX512_INLINE void prefetch(const uint8_t *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

AVX512_INLINE void tile_pointers(tile *p, const linear_block *b, int32_t t, int32_t n, int tokens)
{
    for (int i = 0; i < N; i++)
        p->w[i] = b->w + b->w_stride * (size_t)(n + i < b->rows ? n + i : b->rows - 1);
    for (int j = 0; j < tokens; j++) p->x[j] = b->x + b->x_stride * (size_t)(t + j);
    p->ahead = b->w_stride * N;
    if (tokens == 1) p->ahead = PREFETCH;
    if (t > 0) p->ahead = 0; /* an earlier pass brought the block into the L2 cache */
}

/* One token and N rows from n, row by row. */
AVX512_INLINE void single_tile(const linear_block *b, int32_t t, int32_t n, format_steps f)
{
    tile p;
    __m512 acc[1][N];
    const size_t steps = (size_t)(b->cols / f.step_cols);
    const int32_t left = b->cols % f.step_cols;
    tile_pointers(&p, b, t, n, 1);
    for (int i = 0; i < N; i++) {
        acc[0][i] = _mm512_setzero_ps();
        for (size_t s = 0; s < steps; s++) f.step(acc, &p, s, f.step_cols, 1, i, i + 1);
        if (left) f.step(acc, &p, steps, left, 1, i, i + 1);
    }
    store_rows(b, t, n, sum_rows(acc[0]));
}

/* Tokens [t, t+tokens) and N rows from n. */
AVX512_INLINE void full_tile(const linear_block *b, int32_t t, int32_t n, int tokens, format_steps f)
{
    tile p;
    __m512 acc[MAX_TOKENS][N];
    const size_t steps = (size_t)(b->cols / f.step_cols);
    const int32_t left = b->cols % f.step_cols;
    tile_pointers(&p, b, t, n, tokens);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) acc[j][i] = _mm512_setzero_ps();
    for (size_t s = 0; s < steps; s++) f.step(acc, &p, s, f.step_cols, tokens, 0, N);
    if (left) f.step(acc, &p, steps, left, tokens, 0, N);
    for (int j = 0; j < tokens; j++) store_rows(b, t + j, n, sum_rows(acc[j]));
}

AVX512_INLINE void tiles(const linear_block *b, int32_t t, int tokens, format_steps f)
{
    for (int32_t n = 0; n < b->rows; n += N) {
        if (tokens == 1)
            single_tile(b, t, n, f);
        else
            full_tile(b, t, n, tokens, f);
    }
}

AVX512_INLINE void block(const linear_block *b, format_steps f)
{
    int32_t t = 0;
    for (; t + f.max_tokens <= b->T; t += f.max_tokens) tiles(b, t, f.max_tokens, f);
    switch (b->T - t) {
    case 5: tiles(b, t, 5, f); break;
    case 4: tiles(b, t, 4, f); break;
    case 3: tiles(b, t, 3, f); break;
    case 2: tiles(b, t, 2, f); break;
    case 1: tiles(b, t, 1, f); break;
    default: break;
    }
}

/* ---- bf16 ---- */

AVX512_INLINE void bf16_step(__m512 acc[][N], const tile *p, size_t s, int32_t left, int tokens, int row,
                             int rows)
{
    const size_t at = s * STEP_BF16 * sizeof(uint16_t);
    const __mmask32 mask = left < STEP_BF16 ? (1u << left) - 1 : 0xffffffffu;
    __m512bh w[N];
    for (int i = row; i < rows; i++) {
        w[i] = (__m512bh)_mm512_maskz_loadu_epi16(mask, p->w[i] + at);
        prefetch(p->w[i] + p->ahead + at);
    }
    for (int j = 0; j < tokens; j++) {
        __m512bh x = (__m512bh)_mm512_load_si512(p->x[j] + at);
        for (int i = row; i < rows; i++) acc[j][i] = _mm512_dpbf16_ps(acc[j][i], x, w[i]);
    }
}

AVX512 static void bf16_block(const linear_block *b)
{
    block(b, (format_steps){bf16_step, STEP_BF16, MAX_TOKENS});
}

static size_t bf16_packed_bytes(int32_t cols)
{
    return 2 * linear_round_up((size_t)cols, STEP_BF16);
}

AVX512 static void bf16_pack(uint8_t *packed, const float *in, int32_t cols)
{
    for (int32_t k = 0; k < cols; k += STEP_FLOAT) {
        int32_t left = cols - k;
        __m512 x = _mm512_maskz_loadu_ps(left >= STEP_FLOAT ? 0xffff : (__mmask16)((1 << left) - 1), in + k);
        _mm256_store_si256((__m256i *)(packed + 2 * (size_t)k), (__m256i)_mm512_cvtneps_pbh(x));
    }
    if ((cols + STEP_FLOAT - 1) / STEP_FLOAT % 2 != 0) /* the step's second half */
        _mm256_store_si256((__m256i *)(packed + 2 * linear_round_up((size_t)cols, STEP_FLOAT)),
                           _mm256_setzero_si256());
}

/* ---- F32 and F16: the same step, two ways to load 16 weights ---- */

AVX512_INLINE __mmask16 float_mask(int32_t left)
{
    return left < STEP_FLOAT ? (__mmask16)((1u << left) - 1) : 0xffff;
}

AVX512_INLINE void float_multiply(__m512 acc[][N], const __m512 w[N], const tile *p, size_t s, int tokens,
                                  int row, int rows)
{
    for (int j = 0; j < tokens; j++) {
        __m512 x = _mm512_load_ps(p->x[j] + s * STEP_FLOAT * sizeof(float));
        for (int i = row; i < rows; i++) acc[j][i] = _mm512_fmadd_ps(x, w[i], acc[j][i]);
    }
}

AVX512_INLINE void f32_step(__m512 acc[][N], const tile *p, size_t s, int32_t left, int tokens, int row,
                            int rows)
{
    const size_t at = s * STEP_FLOAT * sizeof(float);
    __m512 w[N];
    for (int i = row; i < rows; i++) {
        w[i] = _mm512_maskz_loadu_ps(float_mask(left), p->w[i] + at);
        prefetch(p->w[i] + p->ahead + at);
    }
    float_multiply(acc, w, p, s, tokens, row, rows);
}

AVX512_INLINE void f16_step(__m512 acc[][N], const tile *p, size_t s, int32_t left, int tokens, int row,
                            int rows)
{
    const size_t at = s * STEP_FLOAT * sizeof(uint16_t);
    __m512 w[N];
    for (int i = row; i < rows; i++) {
        w[i] = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(float_mask(left), p->w[i] + at));
        prefetch(p->w[i] + p->ahead + at);
    }
    float_multiply(acc, w, p, s, tokens, row, rows);
}

AVX512 static void f32_block(const linear_block *b)
{
    block(b, (format_steps){f32_step, STEP_FLOAT, MAX_TOKENS});
}

AVX512 static void f16_block(const linear_block *b)
{
    block(b, (format_steps){f16_step, STEP_FLOAT, MAX_TOKENS});
}

static size_t float_packed_bytes(int32_t cols)
{
    return sizeof(float) * linear_round_up((size_t)cols, STEP_FLOAT);
}

static void float_pack(uint8_t *packed, const float *in, int32_t cols)
{
    size_t bytes = sizeof(float) * (size_t)cols;
    memcpy(packed, in, bytes);
    memset(packed + bytes, 0, float_packed_bytes(cols) - bytes);
}

/* ---- Q8_0 ----
 * vpdpbusd multiplies unsigned by signed bytes, so weights are taken as w + 128 and the integer accumulator starts
 * at -128 * sum of the inputs. Packed inputs, per step of 64: 64 int8; 16 int32, each -128 * the sum of its four
 * inputs; 16 floats, the scale of the lane's block. */

enum { Q8_STEP_BYTES = 192 };

AVX512_INLINE __m512i q8_load(const uint8_t *blocks, bool both)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)(blocks + 2));
    __m256i high =
        both ? _mm256_loadu_si256((const __m256i *)(blocks + Q8_0_BLOCK_BYTES + 2)) : _mm256_setzero_si256();
    __m512i w = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    return _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80));
}

AVX512_INLINE __m512 q8_scales(const uint8_t *blocks, bool both)
{
    uint16_t low, high = 0;
    memcpy(&low, blocks, 2);
    if (both) memcpy(&high, blocks + Q8_0_BLOCK_BYTES, 2);
    return _mm512_cvtph_ps(_mm256_mask_set1_epi16(_mm256_set1_epi16((short)low), 0xff00, (short)high));
}

AVX512_INLINE __m512 q8_dot(__m512 acc, __m512i w, __m512 w_scale, const uint8_t *x)
{
    __m512i dot = _mm512_dpbusd_epi32(_mm512_load_si512(x + 64), w, _mm512_load_si512(x));
    __m512 scale = _mm512_mul_ps(w_scale, _mm512_load_ps(x + 128));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc);
}

/* `left` is Q8_0_BLOCK where the row ends in a single block. */
AVX512_INLINE void q8_step(__m512 acc[][N], const tile *p, size_t s, int32_t left, int tokens, int row,
                           int rows)
{
    const size_t at = s * 2 * Q8_0_BLOCK_BYTES;
    for (int i = row; i < rows; i++) {
        __m512i w = q8_load(p->w[i] + at, left == STEP_Q8);
        __m512 scale = q8_scales(p->w[i] + at, left == STEP_Q8);
        prefetch(p->w[i] + p->ahead + at);
        for (int j = 0; j < tokens; j++) acc[j][i] = q8_dot(acc[j][i], w, scale, p->x[j] + s * Q8_STEP_BYTES);
    }
}

AVX512 static void q8_block(const linear_block *b)
{
    block(b, (format_steps){q8_step, STEP_Q8, MAX_TOKENS_Q8});
}

static size_t q8_packed_bytes(int32_t cols)
{
    return linear_round_up((size_t)cols, STEP_Q8) / STEP_Q8 * Q8_STEP_BYTES;
}

AVX512 static void q8_pack(uint8_t *packed, const float *in, int32_t cols)
{
    for (int32_t k = 0; k < cols; k += STEP_Q8, packed += Q8_STEP_BYTES) {
        int8_t q[STEP_Q8] = {0};
        float scale[2] = {0};
        linear_quantize(q, scale, in + k, cols - k < STEP_Q8 ? Q8_0_BLOCK : STEP_Q8);
        __m512i x = _mm512_loadu_si512(q);
        __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8((char)0x80), x);
        __m512 scales = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(scale[0]), _mm512_set1_ps(scale[1]));
        _mm512_store_si512(packed, x);
        _mm512_store_si512(packed + 64, _mm512_sub_epi32(_mm512_setzero_si512(), sums));
        _mm512_store_ps(packed + 128, scales);
    }
}

const linear_kernel linear_kernels_avx512[DTYPE_COUNT] = {
    [DTYPE_F32] = {float_packed_bytes, float_pack, f32_block},
    [DTYPE_F16] = {float_packed_bytes, float_pack, f16_block},
    [DTYPE_BF16] = {bf16_packed_bytes, bf16_pack, bf16_block},
    [DTYPE_Q8_0] = {q8_packed_bytes, q8_pack, q8_block},
};
