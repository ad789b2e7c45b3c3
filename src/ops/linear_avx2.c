/* Blocks of matrix products with AVX2, FMA and F16C; see linear_kernels.h for the rules.
 *
 * F32, F16 and bf16 share one tile: 16 weights per step become two registers of eight floats, each multiplied into
 * the output's one 8-lane accumulator. A 32-bit word holds two bf16 weights: shifted left it is the even one as a
 * float, masked the odd one, so packed bf16 inputs are stored evens first, then odds, per step. Q8_0 works on
 * blocks of 32: |w| times x with w's sign, as pairs of bytes, then one FMA with the product of the scales.
 * Ends of rows are copied into a step padded with zeros; so are packed inputs. */
#include "ops/linear_kernels.h"

#include "base/half.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define AVX2        __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE AVX2 static inline __attribute__((always_inline))

enum {
    N = LINEAR_TILE_ROWS,
    TILE_TOKENS = 3, /* 12 accumulators of 16 registers */
    STEP = 16
};

/* Four accumulators, one per row, to their four sums. */
AVX2_INLINE __m128 sum_rows(const __m256 acc[N])
{
    __m256 ab = _mm256_hadd_ps(acc[0], acc[1]), cd = _mm256_hadd_ps(acc[2], acc[3]);
    __m256 s = _mm256_hadd_ps(ab, cd);
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

AVX2_INLINE void store_rows(const linear_block *b, int32_t t, int32_t n, __m128 sums)
{
    int32_t left = b->rows - n;
    __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32(left), _mm_setr_epi32(0, 1, 2, 3));
    float *out = b->out + b->out_stride * t + n;
    if (b->bias) sums = _mm_add_ps(sums, _mm_maskload_ps(b->bias + n, mask));
    if (b->accumulate) sums = _mm_add_ps(sums, _mm_maskload_ps(out, mask));
    _mm_maskstore_ps(out, mask, sums);
}

/* What a tile works on. Rows past the block's last are the last one again; their sums are not stored. */
typedef struct {
    const uint8_t *w[N], *x[TILE_TOKENS];
    size_t ahead; /* bytes from a row to what is prefetched while it is read */
} tile;

AVX2_INLINE void tile_pointers(tile *p, const linear_block *b, int32_t t, int32_t n, int tokens)
{
    for (int i = 0; i < N; i++)
        p->w[i] = b->w + b->w_stride * (size_t)(n + i < b->rows ? n + i : b->rows - 1);
    for (int j = 0; j < tokens; j++) p->x[j] = b->x + b->x_stride * (size_t)(t + j);
    p->ahead = t > 0 ? 0 : b->w_stride * N; /* an earlier pass brought the block into the L2 cache */
}

AVX2_INLINE void prefetch(const uint8_t *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

/* ---- F32, F16, bf16: the same tile, three ways to load weights ---- */

typedef __m256 load_half(const uint8_t *w, int half); /* eight of 16 weights */

AVX2_INLINE __m256 load_f32(const uint8_t *w, int half)
{
    return _mm256_loadu_ps((const float *)(w + 32 * half));
}

AVX2_INLINE __m256 load_f16(const uint8_t *w, int half)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(w + 16 * half)));
}

AVX2_INLINE __m256 load_bf16(const uint8_t *w, int half)
{
    __m256i words = _mm256_loadu_si256((const __m256i *)w);
    if (half) words = _mm256_srli_epi32(words, 16); /* a mask would need a register */
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}

/* Adds 16 products to each accumulator; w: N pointers to 16 weights, x: the packed inputs at k. */
AVX2_INLINE void float_step(__m256 acc[][N], const uint8_t *const w[N], const tile *p, int32_t k, int tokens,
                            load_half load)
{
    for (int half = 0; half < 2; half++) {
        __m256 x[TILE_TOKENS];
        for (int j = 0; j < tokens; j++) x[j] = _mm256_load_ps((const float *)p->x[j] + k + 8 * half);
        for (int i = 0; i < N; i++) {
            __m256 v = load(w[i], half);
            for (int j = 0; j < tokens; j++) acc[j][i] = _mm256_fmadd_ps(x[j], v, acc[j][i]);
        }
    }
}

AVX2_INLINE void float_tail(__m256 acc[][N], const tile *p, int32_t k, size_t bytes, size_t size, int tokens,
                            load_half load)
{
    uint8_t padded[N][STEP * sizeof(float)] = {{0}};
    const uint8_t *w[N];
    for (int i = 0; i < N; i++) {
        memcpy(padded[i], p->w[i] + size * (size_t)k, bytes);
        w[i] = padded[i];
    }
    float_step(acc, w, p, k, tokens, load);
}

AVX2_INLINE void float_tile(const linear_block *b, int32_t t, int32_t n, int tokens, load_half load,
                            size_t size)
{
    tile p;
    __m256 acc[TILE_TOKENS][N];
    int32_t k = 0, cols = b->cols;
    tile_pointers(&p, b, t, n, tokens);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) acc[j][i] = _mm256_setzero_ps();
    for (; k + STEP <= cols; k += STEP) {
        const uint8_t *w[N];
        for (int i = 0; i < N; i++) {
            w[i] = p.w[i] + size * (size_t)k;
            prefetch(w[i] + p.ahead);
        }
        float_step(acc, w, &p, k, tokens, load);
    }
    if (k < cols) float_tail(acc, &p, k, size * (size_t)(cols - k), size, tokens, load);
    for (int j = 0; j < tokens; j++) store_rows(b, t + j, n, sum_rows(acc[j]));
}

AVX2_INLINE void float_tiles(const linear_block *b, int32_t t, int tokens, load_half load, size_t size)
{
    for (int32_t n = 0; n < b->rows; n += N) float_tile(b, t, n, tokens, load, size);
}

AVX2_INLINE void float_block(const linear_block *b, load_half load, size_t size)
{
    int32_t t = 0;
    for (; t + TILE_TOKENS <= b->T; t += TILE_TOKENS) float_tiles(b, t, TILE_TOKENS, load, size);
    if (b->T - t == 2) float_tiles(b, t, 2, load, size);
    if (b->T - t == 1) float_tiles(b, t, 1, load, size);
}

AVX2 static void f32_block(const linear_block *b)
{
    float_block(b, load_f32, 4);
}

AVX2 static void f16_block(const linear_block *b)
{
    float_block(b, load_f16, 2);
}

AVX2 static void bf16_block(const linear_block *b)
{
    float_block(b, load_bf16, 2);
}

static size_t float_packed_bytes(int32_t cols)
{
    return sizeof(float) * linear_round_up((size_t)cols, STEP);
}

static void float_pack(uint8_t *packed, const float *in, int32_t cols)
{
    size_t bytes = sizeof(float) * (size_t)cols;
    memcpy(packed, in, bytes);
    memset(packed + bytes, 0, float_packed_bytes(cols) - bytes);
}

AVX2 static void bf16_pack(uint8_t *packed, const float *in, int32_t cols)
{
    float *out = (float *)packed;
    for (int32_t k = 0; k < cols; k += STEP)
        for (int i = 0; i < STEP; i++) {
            float x = k + i < cols ? in[k + i] : 0.0f;
            out[k + i % 2 * (STEP / 2) + i / 2] = bf16_to_float(bf16_from_float(x));
        }
}

/* ---- Q8_0. Packed inputs, per block: 32 int8, the scale as a float, padding to 64 bytes. ---- */

enum { Q8_INPUT_BYTES = 64 };

/* w = -128 is fine: |w| is taken as an unsigned byte, and 2 * 128 * 127 fits in 16 bits. */
AVX2_INLINE __m256 q8_dot(__m256 acc, __m256i w, __m256 w_scale, const uint8_t *x)
{
    __m256i signed_x = _mm256_sign_epi8(_mm256_load_si256((const __m256i *)x), w);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), signed_x);
    __m256i dot = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    __m256 scale = _mm256_mul_ps(w_scale, _mm256_broadcast_ss((const float *)(x + Q8_0_BLOCK)));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc);
}

AVX2_INLINE void q8_tile(const linear_block *b, int32_t t, int32_t n, int tokens)
{
    tile p;
    __m256 acc[TILE_TOKENS][N];
    size_t blocks = (size_t)b->cols / Q8_0_BLOCK;
    tile_pointers(&p, b, t, n, tokens);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) acc[j][i] = _mm256_setzero_ps();
    for (size_t s = 0; s < blocks; s++)
        for (int i = 0; i < N; i++) {
            const uint8_t *block = p.w[i] + s * Q8_0_BLOCK_BYTES;
            uint16_t half;
            memcpy(&half, block, sizeof half);
            __m256 scale = _mm256_cvtph_ps(_mm_set1_epi16((short)half));
            __m256i w = _mm256_loadu_si256((const __m256i *)(block + 2));
            prefetch(block + p.ahead);
            for (int j = 0; j < tokens; j++)
                acc[j][i] = q8_dot(acc[j][i], w, scale, p.x[j] + s * Q8_INPUT_BYTES);
        }
    for (int j = 0; j < tokens; j++) store_rows(b, t + j, n, sum_rows(acc[j]));
}

AVX2_INLINE void q8_tiles(const linear_block *b, int32_t t, int tokens)
{
    for (int32_t n = 0; n < b->rows; n += N) q8_tile(b, t, n, tokens);
}

AVX2 static void q8_block(const linear_block *b)
{
    int32_t t = 0;
    for (; t + TILE_TOKENS <= b->T; t += TILE_TOKENS) q8_tiles(b, t, TILE_TOKENS);
    if (b->T - t == 2) q8_tiles(b, t, 2);
    if (b->T - t == 1) q8_tiles(b, t, 1);
}

static size_t q8_packed_bytes(int32_t cols)
{
    return linear_round_up((size_t)cols, Q8_0_BLOCK) / Q8_0_BLOCK * Q8_INPUT_BYTES;
}

AVX2 static void q8_pack(uint8_t *packed, const float *in, int32_t cols)
{
    for (int32_t k = 0; k < cols; k += Q8_0_BLOCK, packed += Q8_INPUT_BYTES) {
        float scale;
        linear_quantize((int8_t *)packed, &scale, in + k, Q8_0_BLOCK);
        memcpy(packed + Q8_0_BLOCK, &scale, sizeof scale);
    }
}

const linear_kernel linear_kernels_avx2[DTYPE_COUNT] = {
    [DTYPE_F32] = {float_packed_bytes, float_pack, f32_block},
    [DTYPE_F16] = {float_packed_bytes, float_pack, f16_block},
    [DTYPE_BF16] = {float_packed_bytes, bf16_pack, bf16_block},
    [DTYPE_Q8_0] = {q8_packed_bytes, q8_pack, q8_block},
};
