/* Attention's inner loops for AVX2, FMA and F16C.
 *
 * The product works on tiles of 6 rows by one panel (two vectors): 12 accumulators of the 16 registers; one or two
 * rows (decode) take two panels, to have enough independent chains. */
#include "ops/attention_kernels.h"
#include "ops/exp_simd.h"
#include "base/half.h"

#define ISA        __attribute__((target("avx2,fma,f16c")))
#define LANES      8
#define CACHE_LINE 64

typedef __m256 vec;

/* One panel is two vectors. Inlined with constant rows and vectors, so that `sum` lives in registers. */
ISA static inline __attribute__((always_inline)) void tile(const panel_product *p, int32_t row, int32_t panel,
                                                           const int rows, const int panels)
{
    const float *a = p->a + (int64_t)row * p->a_stride;
    const float *b = p->b + (int64_t)panel * p->b_stride;
    float *out = p->out + (int64_t)row * p->out_stride + panel * ATTENTION_PANEL;
    vec sum[6][4];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * panels; j++)
            sum[r][j] = _mm256_loadu_ps(out + (int64_t)r * p->out_stride + j * LANES);
    for (int32_t i = p->first; i < p->last; i++) {
        vec x[4];
#pragma GCC unroll 4
        for (int j = 0; j < 2 * panels; j++)
            x[j] = _mm256_loadu_ps(b + (int64_t)(j / 2) * p->b_stride + i * ATTENTION_PANEL + j % 2 * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            vec y = _mm256_set1_ps(a[(int64_t)r * p->a_stride + i]);
#pragma GCC unroll 4
            for (int j = 0; j < 2 * panels; j++) sum[r][j] = _mm256_fmadd_ps(y, x[j], sum[r][j]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < 2 * panels; j++)
            _mm256_storeu_ps(out + (int64_t)r * p->out_stride + j * LANES, sum[r][j]);
}

ISA static void rows_6(const panel_product *p, int32_t row)
{
    for (int32_t panel = 0; panel < p->panels; panel++) tile(p, row, panel, 6, 1);
}

ISA static void rows_2(const panel_product *p, int32_t row)
{
    int32_t panel = 0;
    for (; panel + 2 <= p->panels; panel += 2) tile(p, row, panel, 2, 2);
    if (panel < p->panels) tile(p, row, panel, 2, 1);
}

ISA static void rows_1(const panel_product *p, int32_t row)
{
    int32_t panel = 0;
    for (; panel + 2 <= p->panels; panel += 2) tile(p, row, panel, 1, 2);
    if (panel < p->panels) tile(p, row, panel, 1, 1);
}

ISA static void multiply_add(const panel_product *p)
{
    int32_t row = 0;
    for (; row + 6 <= p->rows; row += 6) rows_6(p, row);
    for (; row + 2 <= p->rows; row += 2) rows_2(p, row);
    if (row < p->rows) rows_1(p, row);
}

/* Eight channels from channel c on, widened. */
ISA static inline vec load(const void *row, int32_t c, dtype format)
{
    if (format == DTYPE_F32) return _mm256_loadu_ps((const float *)row + c);
    __m128i half = _mm_loadu_si128((const __m128i *)((const uint16_t *)row + c));
    if (format == DTYPE_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

static inline float widen(const void *row, int32_t c, dtype format)
{
    if (format == DTYPE_F32) return ((const float *)row)[c];
    uint16_t half = ((const uint16_t *)row)[c];
    return format == DTYPE_BF16 ? bf16_to_float(half) : f16_to_float(half);
}

/* x[i] lane j <-> x[j] lane i: 24 shuffles in three rounds. */
ISA static inline __attribute__((always_inline)) void transpose(vec x[8])
{
    vec y[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm256_shuffle_ps(y[i], y[i + 2], 0x44);
        x[i + 1] = _mm256_shuffle_ps(y[i], y[i + 2], 0xee);
        x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
        x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        y[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
        y[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) x[i] = y[i];
}

ISA static void pack_k(float *kt, const void *const *row, const void *const *next, int32_t n, int32_t C,
                       dtype format)
{
    for (int32_t i = 0; i < n; i += LANES) {
        float *panel = kt + (int64_t)(i / ATTENTION_PANEL) * C * ATTENTION_PANEL + i % ATTENTION_PANEL;
        int32_t c = 0;
        for (; c + LANES <= C; c += LANES) {
            vec x[LANES];
            int32_t at = c * (format == DTYPE_F32 ? 4 : 2);
#pragma GCC unroll 8
            for (int j = 0; j < LANES; j++) {
                x[j] = load(row[i + j], c, format);
                if (at % CACHE_LINE == 0) __builtin_prefetch((const char *)next[i + j] + at);
            }
            transpose(x);
#pragma GCC unroll 8
            for (int j = 0; j < LANES; j++) _mm256_storeu_ps(panel + (c + j) * ATTENTION_PANEL, x[j]);
        }
        for (; c < C; c++)
            for (int j = 0; j < LANES; j++) panel[c * ATTENTION_PANEL + j] = widen(row[i + j], c, format);
    }
}

/* Inlined with a constant format. */
ISA static inline __attribute__((always_inline)) void widen_panels(float *v, const void *const *row,
                                                                   const void *const *next, int32_t n,
                                                                   int32_t C, const dtype format)
{
    for (int32_t c = 0; c < C; c += ATTENTION_PANEL, v += ATTENTION_BLOCK * ATTENTION_PANEL)
        for (int32_t i = 0; i < n; i++) {
            float *lane = v + i * ATTENTION_PANEL;
            int32_t j = 0, at = c * (format == DTYPE_F32 ? 4 : 2);
            if (at % CACHE_LINE == 0) __builtin_prefetch((const char *)next[i] + at);
            for (; j < ATTENTION_PANEL && c + j + LANES <= C; j += LANES)
                _mm256_storeu_ps(lane + j, load(row[i], c + j, format));
            for (; j < ATTENTION_PANEL; j++) lane[j] = c + j < C ? widen(row[i], c + j, format) : 0;
        }
}

ISA static void pack_v(float *v, const void *const *row, const void *const *next, int32_t n, int32_t C,
                       dtype format)
{
    if (format == DTYPE_BF16)
        widen_panels(v, row, next, n, C, DTYPE_BF16);
    else if (format == DTYPE_F16)
        widen_panels(v, row, next, n, C, DTYPE_F16);
    else
        widen_panels(v, row, next, n, C, DTYPE_F32);
}

ISA static float softmax(float *s, int32_t n, float scale, float *max)
{
    float lane[ATTENTION_PANEL];
    vec scales = _mm256_set1_ps(scale), top = _mm256_set1_ps(-__builtin_inff());
    for (int32_t i = 0; i < n; i += LANES) {
        vec x = _mm256_mul_ps(_mm256_loadu_ps(s + i), scales);
        _mm256_storeu_ps(s + i, x);
        top = _mm256_max_ps(top, x);
    }
    _mm256_storeu_ps(lane, top);
    *max = lane[0];
    for (int j = 1; j < LANES; j++) *max = lane[j] > *max ? lane[j] : *max;
    top = _mm256_set1_ps(*max);
    vec sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int32_t i = 0; i < n; i += ATTENTION_PANEL)
        for (int j = 0; j < 2; j++) {
            vec p = exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(s + i + j * LANES), top));
            _mm256_storeu_ps(s + i + j * LANES, p);
            sum[j] = _mm256_add_ps(sum[j], p);
        }
    _mm256_storeu_ps(lane, _mm256_add_ps(sum[0], sum[1]));
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

ISA static void narrow(uint16_t *out, const float *x, int32_t n, dtype format)
{
    int32_t i = 0;
    if (format == DTYPE_F16)
        for (; i + LANES <= n; i += LANES)
            _mm_storeu_si128((__m128i *)(out + i),
                             _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) out[i] = format == DTYPE_BF16 ? bf16_from_float(x[i]) : f16_from_float(x[i]);
}

const attention_kernels attention_kernels_avx2 = {multiply_add, pack_k, pack_v, softmax, narrow};
