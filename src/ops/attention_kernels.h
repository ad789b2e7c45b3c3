/* The inner loops of attention on the CPU, one table per instruction set; used by attention_cpu.c only.
 *
 * Both products are one kernel, because K is packed transposed: with 16-wide panels,
 *     scores[q, j] = sum_c Q[q, c] * Kt[panel of j][c][lane of j]
 *     acc[q, c]   += sum_j p[q, j] * V[panel of c][j][lane of c]
 * Every output element is one chain of (fused) multiply-adds in the order of i, whatever the tile it is computed in:
 * that is what makes results independent of how queries are grouped. */
#ifndef NVLLM_OPS_ATTENTION_KERNELS_H
#define NVLLM_OPS_ATTENTION_KERNELS_H

#include "base/dtype.h"

#include <stdint.h>

#define ATTENTION_PANEL 16  /* lanes of a panel: positions of Kt, channels of V */
#define ATTENTION_BLOCK 64  /* positions packed at a time: K or V of 128 channels in 32 KB, within L1 */
#define ATTENTION_CHUNK 256 /* positions of one softmax part; aligned to absolute positions */
#define ATTENTION_MAX_C 256

typedef struct {
    float *out;
    const float *a, *b; /* b: panels of `b_stride` elements */
    int32_t out_stride, a_stride, b_stride;
    int32_t rows, panels;
    int32_t first, last; /* i in [first, last): columns of a, rows of a panel */
} panel_product;

typedef struct {
    /* out[row, panel*16 + lane] += sum_i a[row, i] * b[panel][i][lane] */
    void (*multiply_add)(const panel_product *p);
    /* Packing is where memory is waited for, so it also prefetches, line by line between its stores, the rows that
     * will be packed next: one burst would fill the miss buffers and stall, and the hardware's prefetcher stops
     * at 4 KB and at the end of a page. */
    /* kt[panel][c][lane] = row[panel*16 + lane][c], for n rows in `format`, n a multiple of 16 */
    void (*pack_k)(float *kt, const void *const *row, const void *const *next, int32_t n, int32_t C,
                   dtype format);
    /* v[panel][i][lane] = row[i][panel*16 + lane], for i < n; lanes past C are 0 */
    void (*pack_v)(float *v, const void *const *row, const void *const *next, int32_t n, int32_t C,
                   dtype format);
    /* s[i] = exp(scale*s[i] - max), i in [0, n), n a multiple of 16; masked scores are -INFINITY on entry.
     * Returns the sum, *max the largest scaled score. */
    float (*softmax)(float *s, int32_t n, float scale, float *max);
    /* pool[first + i] = x[i] in `format`, F16 or BF16 */
    void (*narrow)(uint16_t *out, const float *x, int32_t n, dtype format);
} attention_kernels;

extern const attention_kernels attention_kernels_scalar, attention_kernels_avx2, attention_kernels_avx512;

#endif
