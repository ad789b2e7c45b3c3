/* Between linear_cpu.c, which partitions a product, and the files that compute blocks of it, one per instruction
 * set: a table of kernels by weight format.
 *
 * A kernel first packs a token's inputs into the form it reads fastest, then computes blocks: all T tokens times a
 * few consecutive rows of one weight. Every output is one dot product, summed in an order that depends on the
 * instruction set, the format and cols only, never on where in a tile it is computed: this is what makes results
 * batch invariant. So within one instruction set, tiles differ in the number of accumulators, each of them doing
 * the same sequence of operations, and share one tree for the last horizontal sum. */
#ifndef NVLLM_OPS_LINEAR_KERNELS_H
#define NVLLM_OPS_LINEAR_KERNELS_H

#include "base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rows that a tile takes together; blocks start at multiples of it. */
#define LINEAR_TILE_ROWS 4

typedef struct {
    float *out; /* token t, row n of the block at out[t*out_stride + n] */
    int64_t out_stride;
    const float *bias; /* of the block's first row, or NULL */
    const uint8_t *w;  /* the block's first row, stored format, 2-byte aligned (F32: also 2) */
    size_t w_stride;   /* bytes between rows */
    const uint8_t *x;  /* packed inputs of token 0, 64-byte aligned */
    size_t x_stride;   /* bytes between tokens, a multiple of 64 */
    int32_t T, rows;   /* of the block */
    int32_t cols;      /* Q8_0: a multiple of 32 */
    bool accumulate;   /* add to out */
} linear_block;

typedef struct {
    size_t (*packed_bytes)(int32_t cols); /* of one token, a multiple of 64 */
    void (*pack)(uint8_t *packed, const float *in, int32_t cols);
    void (*block)(const linear_block *b);
} linear_kernel;

extern const linear_kernel linear_kernels_scalar[DTYPE_COUNT];
extern const linear_kernel linear_kernels_avx2[DTYPE_COUNT];
extern const linear_kernel linear_kernels_avx512[DTYPE_COUNT];

/* Activations as int8: per block of 32, scale = max|x|/127 and q = round-half-even(x / scale), so -127..127.
 * One definition for the reference and all instruction sets, hence the same integers everywhere. */
void linear_quantize(int8_t *q, float *scale, const float *in, int32_t cols);

static inline size_t linear_round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

#endif
