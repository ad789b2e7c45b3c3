/* Attention's inner loops for AVX-512 (F, BW, VL).
 *
 * The product works on tiles of 12 rows by 2 panels: 24 accumulators, 2 panel vectors and a broadcast per step, so
 * 24 multiply-adds for 14 loads; few rows (decode) take 4 panels, to have enough independent chains. K is transposed 16 x 16 in registers; 16-bit formats as pairs of channels,
 * which halves the shuffles. */
#include "ops/attention_kernels.h"
#include "ops/exp_simd.h"
#include "base/half.h"

#define ISA        __attribute__((target("avx512f,avx512bw,avx512vl")))
#define LANES      ATTENTION_PANEL
#define CACHE_LINE 64

typedef __m512 vec;

/* Inlined with constant rows and panels, so that `sum` lives in registers. */
ISA static inline __attribute__((always_inline)) void tile(const panel_product *p, int32_t row, int32_t panel,
                                                           const int rows, const int panels)
{
    const float *a = p->a + (int64_t)row * p->a_stride;
    const float *b = p->b + (int64_t)panel * p->b_stride;
    float *out = p->out + (int64_t)row * p->out_stride + panel * LANES;
    vec sum[12][4];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < panels; j++)
            sum[r][j] = _mm512_loadu_ps(out + (int64_t)r * p->out_stride + j * LANES);
    for (int32_t i = p->first; i < p->last; i++) {
        vec x[4];
#pragma GCC unroll 4
        for (int j = 0; j < panels; j++) x[j] = _mm512_loadu_ps(b + (int64_t)j * p->b_stride + i * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            vec y = _mm512_set1_ps(a[(int64_t)r * p->a_stride + i]);
#pragma GCC unroll 4
            for (int j = 0; j < panels; j++) sum[r][j] = _mm512_fmadd_ps(y, x[j], sum[r][j]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < panels; j++)
            _mm512_storeu_ps(out + (int64_t)r * p->out_stride + j * LANES, sum[r][j]);
}

ISA static void rows_12(const panel_product *p, int32_t row)
{
    int32_t panel = 0;
    for (; panel + 2 <= p->panels; panel += 2) tile(p, row, panel, 12, 2);
    if (panel < p->panels) tile(p, row, panel, 12, 1);
}

ISA static void rows_4(const panel_product *p, int32_t row)
{
    int32_t panel = 0;
    for (; panel + 4 <= p->panels; panel += 4) tile(p, row, panel, 4, 4);
    for (; panel < p->panels; panel++) tile(p, row, panel, 4, 1);
}

ISA static void rows_2(const panel_product *p, int32_t row)
{
    int32_t panel = 0;
    for (; panel + 4 <= p->panels; panel += 4) tile(p, row, panel, 2, 4);
    for (; panel < p->panels; panel++) tile(p, row, panel, 2, 1);
}

ISA static void rows_1(const panel_product *p, int32_t row)
{
    int32_t panel = 0;
    for (; panel + 4 <= p->panels; panel += 4) tile(p, row, panel, 1, 4);
    for (; panel < p->panels; panel++) tile(p, row, panel, 1, 1);
}

ISA static void multiply_add(const panel_product *p)
{
    int32_t row = 0;
    for (; row + 12 <= p->rows; row += 12) rows_12(p, row);
    for (; row + 4 <= p->rows; row += 4) rows_4(p, row);
    for (; row + 2 <= p->rows; row += 2) rows_2(p, row);
    if (row < p->rows) rows_1(p, row);
}

static __mmask16 first_lanes(int32_t n)
{
    return n >= LANES ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* Up to 16 channels from channel c on, widened. */
ISA static inline vec load(const void *row, int32_t c, __mmask16 mask, dtype format)
{
    if (format == DTYPE_F32) return _mm512_maskz_loadu_ps(mask, (const float *)row + c);
    __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + c);
    if (format == DTYPE_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* x[i] lane j <-> x[j] lane i: 64 shuffles in four rounds. */
ISA static inline __attribute__((always_inline)) void transpose(__m512i x[16])
{
    __m512i y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 16; i += 8)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            y[i + j] = _mm512_shuffle_i32x4(x[i + j], x[i + j + 4], 0x88);
            y[i + j + 4] = _mm512_shuffle_i32x4(x[i + j], x[i + j + 4], 0xdd);
        }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        x[j] = _mm512_shuffle_i32x4(y[j], y[j + 8], 0x88);
        x[j + 8] = _mm512_shuffle_i32x4(y[j], y[j + 8], 0xdd);
    }
}

/* 16 positions by up to 16 channels of float32. */
ISA static void pack_k_words(float *kt, const void *const *row, const void *const *next, int32_t c, int32_t C)
{
    __m512i x[16];
    __mmask16 mask = first_lanes(C - c);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        x[i] = _mm512_maskz_loadu_epi32(mask, (const float *)row[i] + c);
        __builtin_prefetch((const float *)next[i] + c);
    }
    transpose(x);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        if (c + i < C) _mm512_storeu_si512(kt + (c + i) * LANES, x[i]);
}

/* 16 positions by up to 32 channels of 16 bits: transposed as 16 pairs, widened on the way out. */
ISA static void pack_k_pairs(float *kt, const void *const *row, const void *const *next, int32_t c, int32_t C,
                             dtype format)
{
    __m512i x[16], high = _mm512_set1_epi32((int)0xffff0000u);
    __mmask16 mask = first_lanes((C - c) / 2);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        x[i] = _mm512_maskz_loadu_epi32(mask, (const uint16_t *)row[i] + c);
        __builtin_prefetch((const uint16_t *)next[i] + c);
    }
    transpose(x);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        if (c + 2 * i >= C) break;
        vec even, odd;
        if (format == DTYPE_BF16) {
            even = _mm512_castsi512_ps(_mm512_slli_epi32(x[i], 16));
            odd = _mm512_castsi512_ps(_mm512_and_si512(x[i], high));
        } else {
            even = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x[i]));
            odd = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(x[i], 16)));
        }
        _mm512_storeu_ps(kt + (c + 2 * i) * LANES, even);
        _mm512_storeu_ps(kt + (c + 2 * i + 1) * LANES, odd);
    }
}

ISA static void pack_k(float *kt, const void *const *row, const void *const *next, int32_t n, int32_t C,
                       dtype format)
{
    for (int32_t i = 0; i < n; i += LANES, kt += C * LANES) {
        if (format == DTYPE_F32)
            for (int32_t c = 0; c < C; c += 16) pack_k_words(kt, row + i, next + i, c, C);
        else
            for (int32_t c = 0; c < C; c += 32) pack_k_pairs(kt, row + i, next + i, c, C, format);
    }
}

/* Inlined with a constant format. */
ISA static inline __attribute__((always_inline)) void widen_panels(float *v, const void *const *row,
                                                                   const void *const *next, int32_t n,
                                                                   int32_t C, const dtype format)
{
    for (int32_t c = 0; c < C; c += LANES, v += ATTENTION_BLOCK * LANES) {
        __mmask16 mask = first_lanes(C - c);
        int32_t at = c * (format == DTYPE_F32 ? 4 : 2);
        for (int32_t i = 0; i < n; i++) {
            _mm512_storeu_ps(v + i * LANES, load(row[i], c, mask, format));
            if (at % CACHE_LINE == 0) __builtin_prefetch((const char *)next[i] + at);
        }
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
    vec scales = _mm512_set1_ps(scale), top = _mm512_set1_ps(-__builtin_inff()), sum = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += LANES) {
        vec x = _mm512_mul_ps(_mm512_loadu_ps(s + i), scales);
        _mm512_storeu_ps(s + i, x);
        top = _mm512_max_ps(top, x);
    }
    *max = _mm512_reduce_max_ps(top);
    top = _mm512_set1_ps(*max);
    for (int32_t i = 0; i < n; i += LANES) {
        vec p = exp_avx512(_mm512_sub_ps(_mm512_loadu_ps(s + i), top));
        _mm512_storeu_ps(s + i, p);
        sum = _mm512_add_ps(sum, p);
    }
    return _mm512_reduce_add_ps(sum);
}

ISA static void narrow(uint16_t *out, const float *x, int32_t n, dtype format)
{
    if (format == DTYPE_BF16) {
        for (int32_t i = 0; i < n; i++) out[i] = bf16_from_float(x[i]);
        return;
    }
    for (int32_t i = 0; i < n; i += LANES) {
        __mmask16 mask = first_lanes(n - i);
        vec y = _mm512_maskz_loadu_ps(mask, x + i);
        _mm256_mask_storeu_epi16(out + i, mask, _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT));
    }
}

const attention_kernels attention_kernels_avx512 = {multiply_add, pack_k, pack_v, softmax, narrow};
