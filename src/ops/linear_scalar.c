/* Blocks of matrix products in plain C, for any processor; see linear_kernels.h for the rules.
 *
 * Written with the compilers' portable vectors of four floats, which the baseline of every 64-bit processor has.
 * As in linear_avx2.c, F32, F16 and bf16 share one tile: 8 weights per step become two vectors, the even and the
 * odd ones for the 16-bit formats (whose packed inputs are stored evens first, then odds, per step), the first and
 * the last four for F32. Ends of rows are copied into a step padded with zeros; so are packed inputs. */
#include "ops/linear_kernels.h"

#include "base/half.h"

#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    N = LINEAR_TILE_ROWS,
    TILE_TOKENS = 2, /* 8 accumulators of 16 registers */
    STEP = 8
};

typedef float float4 __attribute__((vector_size(16)));
typedef uint32_t word4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));

INLINE float sum_lanes(float4 a)
{
    return (a[0] + a[2]) + (a[1] + a[3]);
}

INLINE void store_sum(const linear_block *b, int32_t t, int32_t n, float sum)
{
    if (n >= b->rows) return;
    float *out = b->out + b->out_stride * t + n;
    if (b->bias) sum += b->bias[n];
    *out = b->accumulate ? *out + sum : sum;
}

/* What a tile works on. Rows past the block's last are the last one again; their sums are not stored. */
typedef struct {
    const uint8_t *w[N], *x[TILE_TOKENS];
    size_t ahead; /* bytes from a row to what is prefetched while it is read */
} tile;

INLINE void tile_pointers(tile *p, const linear_block *b, int32_t t, int32_t n, int tokens)
{
    for (int i = 0; i < N; i++)
        p->w[i] = b->w + b->w_stride * (size_t)(n + i < b->rows ? n + i : b->rows - 1);
    for (int j = 0; j < tokens; j++) p->x[j] = b->x + b->x_stride * (size_t)(t + j);
    p->ahead = t > 0 ? 0 : b->w_stride * N; /* an earlier pass brought the block into the L2 cache */
}

/* ---- F32, F16, bf16: the same tile, three ways to load weights ---- */

typedef float4 load_half(const uint8_t *w, int half); /* four of 8 weights */

INLINE float4 load_f32(const uint8_t *w, int half)
{
    float4 f;
    memcpy(&f, w + 16 * half, sizeof f);
    return f;
}

INLINE float4 load_bf16(const uint8_t *w, int half)
{
    word4 words;
    memcpy(&words, w, sizeof words);
    return (float4)(half ? words & 0xffff0000u : words << 16);
}

/* Exponent and mantissa moved into place are the value times 2^-112, also for subnormals; infinities and NaNs need
 * their exponent filled. */
INLINE float4 load_f16(const uint8_t *w, int half)
{
    word4 words;
    memcpy(&words, w, sizeof words);
    words = half ? words >> 16 : words;
    word4 sign = (words & 0x8000u) << 16, magnitude = (words & 0x7fffu) << 13;
    word4 special = (word4)((int4)magnitude >= 0x0f800000) & 0x7f800000u;
    word4 bits = (word4)((float4)magnitude * 0x1p112f);
    return (float4)(bits | special | sign);
}

/* Adds 8 products to each accumulator; w: N pointers to 8 weights, x: the packed inputs at k. */
INLINE void float_step(float4 acc[][N], const uint8_t *const w[N], const tile *p, int32_t k, int tokens,
                       load_half load)
{
    for (int i = 0; i < N; i++)
        for (int half = 0; half < 2; half++) {
            float4 v = load(w[i], half);
            for (int j = 0; j < tokens; j++)
                acc[j][i] += v * ((const float4 *)(p->x[j] + sizeof(float) * (size_t)k))[half];
        }
}

INLINE void float_tail(float4 acc[][N], const tile *p, int32_t k, size_t bytes, size_t size, int tokens,
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

INLINE void float_tile(const linear_block *b, int32_t t, int32_t n, int tokens, load_half load, size_t size)
{
    tile p;
    float4 acc[TILE_TOKENS][N];
    int32_t k = 0, cols = b->cols;
    tile_pointers(&p, b, t, n, tokens);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) acc[j][i] = (float4){0};
    for (; k + STEP <= cols; k += STEP) {
        const uint8_t *w[N];
        for (int i = 0; i < N; i++) {
            w[i] = p.w[i] + size * (size_t)k;
            __builtin_prefetch(w[i] + p.ahead);
        }
        float_step(acc, w, &p, k, tokens, load);
    }
    if (k < cols) float_tail(acc, &p, k, size * (size_t)(cols - k), size, tokens, load);
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) store_sum(b, t + j, n + i, sum_lanes(acc[j][i]));
}

INLINE void float_tiles(const linear_block *b, int32_t t, int tokens, load_half load, size_t size)
{
    for (int32_t n = 0; n < b->rows; n += N) float_tile(b, t, n, tokens, load, size);
}

INLINE void float_block(const linear_block *b, load_half load, size_t size)
{
    int32_t t = 0;
    for (; t + TILE_TOKENS <= b->T; t += TILE_TOKENS) float_tiles(b, t, TILE_TOKENS, load, size);
    if (t < b->T) float_tiles(b, t, 1, load, size);
}

static void f32_block(const linear_block *b)
{
    float_block(b, load_f32, 4);
}

static void f16_block(const linear_block *b)
{
    float_block(b, load_f16, 2);
}

static void bf16_block(const linear_block *b)
{
    float_block(b, load_bf16, 2);
}

static size_t float_packed_bytes(int32_t cols)
{
    return linear_round_up(sizeof(float) * (size_t)cols, 64);
}

static void f32_pack(uint8_t *packed, const float *in, int32_t cols)
{
    size_t bytes = sizeof(float) * (size_t)cols;
    memcpy(packed, in, bytes);
    memset(packed + bytes, 0, float_packed_bytes(cols) - bytes);
}

INLINE void even_odd_pack(uint8_t *packed, const float *in, int32_t cols, bool round)
{
    float *out = (float *)packed;
    for (int32_t k = 0; k < cols; k += STEP)
        for (int i = 0; i < STEP; i++) {
            float x = k + i < cols ? in[k + i] : 0.0f;
            out[k + i % 2 * (STEP / 2) + i / 2] = round ? bf16_to_float(bf16_from_float(x)) : x;
        }
}

static void f16_pack(uint8_t *packed, const float *in, int32_t cols)
{
    even_odd_pack(packed, in, cols, false);
}

static void bf16_pack(uint8_t *packed, const float *in, int32_t cols)
{
    even_odd_pack(packed, in, cols, true);
}

/* ---- Q8_0. Packed inputs, per block: 32 int16, the scale as a float, padding to 128 bytes. ---- */

enum { Q8_INPUT_BYTES = 128, Q8_SCALE_AT = 64 };

INLINE float q8_dot(const int16_t *w, float w_scale, const uint8_t *packed)
{
    const int16_t *x = (const int16_t *)packed;
    float x_scale;
    memcpy(&x_scale, packed + Q8_SCALE_AT, sizeof x_scale);
    int32_t dot = 0;
    for (int i = 0; i < Q8_0_BLOCK; i++) dot += w[i] * x[i];
    return (float)dot * (w_scale * x_scale);
}

static void q8_tile(const linear_block *b, int32_t t, int32_t n, int tokens)
{
    tile p;
    float acc[TILE_TOKENS][N] = {{0}};
    size_t blocks = (size_t)b->cols / Q8_0_BLOCK;
    tile_pointers(&p, b, t, n, tokens);
    for (size_t s = 0; s < blocks; s++)
        for (int i = 0; i < N; i++) {
            const uint8_t *block = p.w[i] + s * Q8_0_BLOCK_BYTES;
            uint16_t half;
            int16_t w[Q8_0_BLOCK];
            memcpy(&half, block, sizeof half);
            for (int k = 0; k < Q8_0_BLOCK; k++) w[k] = (int8_t)block[2 + k];
            __builtin_prefetch(block + p.ahead);
            for (int j = 0; j < tokens; j++)
                acc[j][i] += q8_dot(w, f16_to_float(half), p.x[j] + s * Q8_INPUT_BYTES);
        }
    for (int j = 0; j < tokens; j++)
        for (int i = 0; i < N; i++) store_sum(b, t + j, n + i, acc[j][i]);
}

static void q8_block(const linear_block *b)
{
    for (int32_t t = 0; t < b->T; t += TILE_TOKENS)
        for (int32_t n = 0; n < b->rows; n += N)
            q8_tile(b, t, n, b->T - t < TILE_TOKENS ? b->T - t : TILE_TOKENS);
}

static size_t q8_packed_bytes(int32_t cols)
{
    return linear_round_up((size_t)cols, Q8_0_BLOCK) / Q8_0_BLOCK * Q8_INPUT_BYTES;
}

static void q8_pack(uint8_t *packed, const float *in, int32_t cols)
{
    for (int32_t k = 0; k < cols; k += Q8_0_BLOCK, packed += Q8_INPUT_BYTES) {
        int8_t q[Q8_0_BLOCK];
        int16_t wide[Q8_0_BLOCK];
        float scale;
        linear_quantize(q, &scale, in + k, Q8_0_BLOCK);
        for (int i = 0; i < Q8_0_BLOCK; i++) wide[i] = q[i];
        memcpy(packed, wide, sizeof wide);
        memcpy(packed + Q8_SCALE_AT, &scale, sizeof scale);
    }
}

const linear_kernel linear_kernels_scalar[DTYPE_COUNT] = {
    [DTYPE_F32] = {float_packed_bytes, f32_pack, f32_block},
    [DTYPE_F16] = {float_packed_bytes, f16_pack, f16_block},
    [DTYPE_BF16] = {float_packed_bytes, bf16_pack, bf16_block},
    [DTYPE_Q8_0] = {q8_packed_bytes, q8_pack, q8_block},
};
