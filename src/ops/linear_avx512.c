/* Blocks of matrix products with AVX-512 (F, BW, VL, VNNI, BF16); see linear_kernels.h for the rules.
 *
 * Every output has one 16-lane accumulator that walks along k: 32 products per step for bf16 (vdpbf16ps), 16 for
 * F32 and F16 (FMA), two blocks for Q8_0 (vpdpbusd, then one FMA with the product of the scales). Tiles of several
 * tokens x 4 rows keep the multipliers busy; a single token takes its 4 rows one after the other, because one long
 * stream is what the memory likes best. The four accumulators of a token are summed together, always by the same
 * tree. Ends of rows are read with masks; packed inputs are padded with zeros. */
#include "ops/linear_kernels.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define AVX512        __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")))
#define AVX512_INLINE AVX512 static inline __attribute__((always_inline))

enum {
    N = LINEAR_TILE_ROWS,
    TILE_TOKENS = 6,    /* 24 accumulators, 4 rows and an input in 32 registers */
    TILE_TOKENS_Q8 = 4, /* Q8_0 needs temporaries */
    PREFETCH = 8192,    /* bytes ahead in a single stream of weights */
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
    const uint8_t *w[N], *x[TILE_TOKENS];
    size_t ahead; /* bytes from a row to what is prefetched while it is read */
} tile;

AVX512_INLINE void tile_pointers(tile *p, const linear_block *b, int32_t t, int32_t n, int tokens)
{
    for (int i = 0; i < N; i++)
        p->w[i] = b->w + b->w_stride * (size_t)(n + i < b->rows ? n + i : b->rows - 1);
    for (int j = 0; j < tokens; j++) p->x[j] = b->x + b->x_stride * (size_t)(t + j);
    p->ahead = b->w_stride * N;
}

AVX512_INLINE void prefetch(const uint8_t *p)
{
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

/* ---- bf16 ---- */

AVX512_INLINE __m512bh load_bf16(const uint8_t *row, int32_t k, __mmask32 mask)
{
    return (__m512bh)_mm512_maskz_loadu_epi16(mask, row + 2 * (size_t)k);
}

AVX512_INLINE void bf16_step(__m512 acc[][N], const tile *p, int32_t k, __mmask32 mask, int tokens)
{
    __m512bh w[N];
    for (int i = 0; i < N; i++) {
        w[i] = load_bf16(p->w[i], k, mask);
        prefetch(p->w[i] + p->ahead + 2 * (size_t)k);
    }
    for (int j = 0; j < tokens; j++) {
        __m512bh x = (__m512bh)_mm512_load_si512(p->x[j] + 2 * (size_t)k);
        for (int i = 0; i < N; i++) acc[j][i] = _mm512_dpbf16_ps(acc[j][i], x, w[i]);
    }
}

AVX512_INLINE __m512 bf16_row(const uint8_t *w, const uint8_t *x, int32_t cols, __mmask32 tail)
{
    __m512 acc = _mm512_setzero_ps();
    int32_t k = 0;
    for (; k + STEP_BF16 <= cols; k += STEP_BF16) {
        prefetch(w + PREFETCH + 2 * (size_t)k);
        acc = _mm512_dpbf16_ps(acc, (__m512bh)_mm512_load_si512(x + 2 * (size_t)k),
                               (__m512bh)_mm512_loadu_si512(w + 2 * (size_t)k));
    }
    if (tail)
        acc = _mm512_dpbf16_ps(acc, (__m512bh)_mm512_load_si512(x + 2 * (size_t)k), load_bf16(w, k, tail));
    return acc;
}

AVX512_INLINE void bf16_tile(const linear_block *b, int32_t t, int32_t n, int tokens)
{
    tile p;
    __m512 acc[TILE_TOKENS][N];
    __mmask32 tail = (1u << b->cols % STEP_BF16) - 1;
    int32_t k = 0;
    tile_pointers(&p, b, t, n, tokens);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) acc[j][i] = _mm512_setzero_ps();
    if (tokens == 1) {
        for (int i = 0; i < N; i++) acc[0][i] = bf16_row(p.w[i], p.x[0], b->cols, tail);
    } else {
        for (; k + STEP_BF16 <= b->cols; k += STEP_BF16) bf16_step(acc, &p, k, 0xffffffffu, tokens);
        if (tail) bf16_step(acc, &p, k, tail, tokens);
    }
    for (int j = 0; j < tokens; j++) store_rows(b, t + j, n, sum_rows(acc[j]));
}

AVX512_INLINE void bf16_tiles(const linear_block *b, int32_t t, int tokens)
{
    for (int32_t n = 0; n < b->rows; n += N) bf16_tile(b, t, n, tokens);
}

AVX512 static void bf16_block(const linear_block *b)
{
    int32_t t = 0;
    for (; t + TILE_TOKENS <= b->T; t += TILE_TOKENS) bf16_tiles(b, t, TILE_TOKENS);
    switch (b->T - t) {
    case 5: bf16_tiles(b, t, 5); break;
    case 4: bf16_tiles(b, t, 4); break;
    case 3: bf16_tiles(b, t, 3); break;
    case 2: bf16_tiles(b, t, 2); break;
    case 1: bf16_tiles(b, t, 1); break;
    default: break;
    }
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

/* ---- F32 and F16: the same tile, two ways to load 16 weights ---- */

typedef __m512 load_floats(const uint8_t *row, int32_t k, __mmask16 mask);

AVX512_INLINE __m512 load_f32(const uint8_t *row, int32_t k, __mmask16 mask)
{
    return _mm512_maskz_loadu_ps(mask, row + 4 * (size_t)k);
}

AVX512_INLINE __m512 load_f16(const uint8_t *row, int32_t k, __mmask16 mask)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, row + 2 * (size_t)k));
}

AVX512_INLINE void float_step(__m512 acc[][N], const tile *p, int32_t k, __mmask16 mask, int tokens,
                              load_floats load, size_t size)
{
    __m512 w[N];
    for (int i = 0; i < N; i++) {
        w[i] = load(p->w[i], k, mask);
        prefetch(p->w[i] + p->ahead + size * (size_t)k);
    }
    for (int j = 0; j < tokens; j++) {
        __m512 x = _mm512_load_ps(p->x[j] + 4 * (size_t)k);
        for (int i = 0; i < N; i++) acc[j][i] = _mm512_fmadd_ps(x, w[i], acc[j][i]);
    }
}

AVX512_INLINE __m512 float_row(const uint8_t *w, const uint8_t *x, int32_t cols, __mmask16 tail,
                               load_floats load, size_t size)
{
    __m512 acc = _mm512_setzero_ps();
    int32_t k = 0;
    for (; k + STEP_FLOAT <= cols; k += STEP_FLOAT) {
        prefetch(w + PREFETCH + size * (size_t)k);
        acc = _mm512_fmadd_ps(_mm512_load_ps(x + 4 * (size_t)k), load(w, k, 0xffff), acc);
    }
    if (tail) acc = _mm512_fmadd_ps(_mm512_load_ps(x + 4 * (size_t)k), load(w, k, tail), acc);
    return acc;
}

AVX512_INLINE void float_tile(const linear_block *b, int32_t t, int32_t n, int tokens, load_floats load,
                              size_t size)
{
    tile p;
    __m512 acc[TILE_TOKENS][N];
    __mmask16 tail = (__mmask16)((1u << b->cols % STEP_FLOAT) - 1);
    int32_t k = 0;
    tile_pointers(&p, b, t, n, tokens);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) acc[j][i] = _mm512_setzero_ps();
    if (tokens == 1) {
        for (int i = 0; i < N; i++) acc[0][i] = float_row(p.w[i], p.x[0], b->cols, tail, load, size);
    } else {
        for (; k + STEP_FLOAT <= b->cols; k += STEP_FLOAT) float_step(acc, &p, k, 0xffff, tokens, load, size);
        if (tail) float_step(acc, &p, k, tail, tokens, load, size);
    }
    for (int j = 0; j < tokens; j++) store_rows(b, t + j, n, sum_rows(acc[j]));
}

AVX512_INLINE void float_tiles(const linear_block *b, int32_t t, int tokens, load_floats load, size_t size)
{
    for (int32_t n = 0; n < b->rows; n += N) float_tile(b, t, n, tokens, load, size);
}

AVX512_INLINE void float_block(const linear_block *b, load_floats load, size_t size)
{
    int32_t t = 0;
    for (; t + TILE_TOKENS <= b->T; t += TILE_TOKENS) float_tiles(b, t, TILE_TOKENS, load, size);
    switch (b->T - t) {
    case 5: float_tiles(b, t, 5, load, size); break;
    case 4: float_tiles(b, t, 4, load, size); break;
    case 3: float_tiles(b, t, 3, load, size); break;
    case 2: float_tiles(b, t, 2, load, size); break;
    case 1: float_tiles(b, t, 1, load, size); break;
    default: break;
    }
}

AVX512 static void f32_block(const linear_block *b)
{
    float_block(b, load_f32, 4);
}

AVX512 static void f16_block(const linear_block *b)
{
    float_block(b, load_f16, 2);
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

/* Step s of a tile; `both` is false where the row ends in a single block. */
AVX512_INLINE void q8_step(__m512 acc[][N], const tile *p, size_t s, bool both, int tokens)
{
    const size_t w_at = s * 2 * Q8_0_BLOCK_BYTES;
    for (int i = 0; i < N; i++) {
        __m512i w = q8_load(p->w[i] + w_at, both);
        __m512 scale = q8_scales(p->w[i] + w_at, both);
        prefetch(p->w[i] + p->ahead + w_at);
        for (int j = 0; j < tokens; j++) acc[j][i] = q8_dot(acc[j][i], w, scale, p->x[j] + s * Q8_STEP_BYTES);
    }
}

AVX512_INLINE __m512 q8_row(const uint8_t *w, const uint8_t *x, int32_t cols)
{
    __m512 acc = _mm512_setzero_ps();
    int32_t k = 0;
    for (; k + STEP_Q8 <= cols; k += STEP_Q8, w += 2 * Q8_0_BLOCK_BYTES, x += Q8_STEP_BYTES) {
        prefetch(w + PREFETCH);
        acc = q8_dot(acc, q8_load(w, true), q8_scales(w, true), x);
    }
    if (k < cols) acc = q8_dot(acc, q8_load(w, false), q8_scales(w, false), x);
    return acc;
}

AVX512_INLINE void q8_tile(const linear_block *b, int32_t t, int32_t n, int tokens)
{
    tile p;
    __m512 acc[TILE_TOKENS_Q8][N];
    size_t steps = (size_t)b->cols / STEP_Q8;
    tile_pointers(&p, b, t, n, tokens);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) acc[j][i] = _mm512_setzero_ps();
    if (tokens == 1) {
        for (int i = 0; i < N; i++) acc[0][i] = q8_row(p.w[i], p.x[0], b->cols);
    } else {
        for (size_t s = 0; s < steps; s++) q8_step(acc, &p, s, true, tokens);
        if (b->cols % STEP_Q8) q8_step(acc, &p, steps, false, tokens);
    }
    for (int j = 0; j < tokens; j++) store_rows(b, t + j, n, sum_rows(acc[j]));
}

AVX512_INLINE void q8_tiles(const linear_block *b, int32_t t, int tokens)
{
    for (int32_t n = 0; n < b->rows; n += N) q8_tile(b, t, n, tokens);
}

AVX512 static void q8_block(const linear_block *b)
{
    int32_t t = 0;
    for (; t + TILE_TOKENS_Q8 <= b->T; t += TILE_TOKENS_Q8) q8_tiles(b, t, TILE_TOKENS_Q8);
    switch (b->T - t) {
    case 3: q8_tiles(b, t, 3); break;
    case 2: q8_tiles(b, t, 2); break;
    case 1: q8_tiles(b, t, 1); break;
    default: break;
    }
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
