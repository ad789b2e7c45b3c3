/* Attention's inner loops for AVX2, FMA and F16C.
 *
 * The product works on tiles of up to 6 rows by one panel (two vectors): 12 accumulators of the 16 registers. */
#include "ops/attention_kernels.h"
#include "ops/exp_simd.h"
#include "base/half.h"

#define ISA   __attribute__((target("avx2,fma,f16c")))
#define LANES 8

typedef __m256 vec;

/* Inlined with a constant number of rows, so that `sum` lives in registers. */
ISA static inline __attribute__((always_inline)) void tile(const panel_product *p, int32_t row,
                                                           const int rows)
{
    for (int32_t panel = 0; panel < p->panels; panel++) {
        const float *a = p->a + (int64_t)row * p->a_stride;
        const float *b = p->b + (int64_t)panel * p->b_stride;
        float *out = p->out + (int64_t)row * p->out_stride + panel * ATTENTION_PANEL;
        vec sum[6][2];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            sum[r][0] = _mm256_loadu_ps(out + (int64_t)r * p->out_stride);
            sum[r][1] = _mm256_loadu_ps(out + (int64_t)r * p->out_stride + LANES);
        }
        for (int32_t i = p->first; i < p->last; i++) {
            vec x0 = _mm256_loadu_ps(b + i * ATTENTION_PANEL),
                x1 = _mm256_loadu_ps(b + i * ATTENTION_PANEL + LANES);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                vec y = _mm256_set1_ps(a[(int64_t)r * p->a_stride + i]);
                sum[r][0] = _mm256_fmadd_ps(y, x0, sum[r][0]);
                sum[r][1] = _mm256_fmadd_ps(y, x1, sum[r][1]);
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            _mm256_storeu_ps(out + (int64_t)r * p->out_stride, sum[r][0]);
            _mm256_storeu_ps(out + (int64_t)r * p->out_stride + LANES, sum[r][1]);
        }
    }
}

ISA static void multiply_add(const panel_product *p)
{
    int32_t row = 0;
    for (; row + 6 <= p->rows; row += 6) tile(p, row, 6);
    for (; row + 4 <= p->rows; row += 4) tile(p, row, 4);
    for (; row + 2 <= p->rows; row += 2) tile(p, row, 2);
    if (row < p->rows) tile(p, row, 1);
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

ISA static void pack_k(float *kt, const void *const *row, int32_t C, dtype format)
{
    for (int32_t i = 0; i < ATTENTION_BLOCK; i += LANES) {
        float *panel = kt + (int64_t)(i / ATTENTION_PANEL) * C * ATTENTION_PANEL + i % ATTENTION_PANEL;
        int32_t c = 0;
        for (; c + LANES <= C; c += LANES) {
            vec x[LANES];
#pragma GCC unroll 8
            for (int j = 0; j < LANES; j++) x[j] = load(row[i + j], c, format);
            transpose(x);
#pragma GCC unroll 8
            for (int j = 0; j < LANES; j++) _mm256_storeu_ps(panel + (c + j) * ATTENTION_PANEL, x[j]);
        }
        for (; c < C; c++)
            for (int j = 0; j < LANES; j++) panel[c * ATTENTION_PANEL + j] = widen(row[i + j], c, format);
    }
}

ISA static void pack_v(float *v, const void *const *row, int32_t n, int32_t C, dtype format)
{
    int32_t padded = (C + ATTENTION_PANEL - 1) / ATTENTION_PANEL * ATTENTION_PANEL;
    for (int32_t i = 0; i < n; i++) {
        int32_t c = 0;
        for (; c + LANES <= C; c += LANES)
            _mm256_storeu_ps(v + (c / ATTENTION_PANEL * ATTENTION_BLOCK + i) * ATTENTION_PANEL +
                                 c % ATTENTION_PANEL,
                             load(row[i], c, format));
        for (; c < padded; c++)
            v[(c / ATTENTION_PANEL * ATTENTION_BLOCK + i) * ATTENTION_PANEL + c % ATTENTION_PANEL] =
                c < C ? widen(row[i], c, format) : 0;
    }
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
