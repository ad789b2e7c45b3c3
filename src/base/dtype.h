/* Element formats of stored tensors, in one table: name, bytes, block length.
 *
 * A format stores rows; a row of n elements takes dtype_row_bytes(format, n) bytes. Q8_0 is ggml's: blocks of
 * 32 elements, each an f16 scale followed by 32 int8, 34 bytes. */
#ifndef NVLLM_BASE_DTYPE_H
#define NVLLM_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

typedef enum { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_COUNT } dtype;

#define Q8_0_BLOCK       32 /* elements per block */
#define Q8_0_BLOCK_BYTES 34 /* f16 scale, then 32 int8 */

const char *dtype_name(dtype type);                   /* "F32", "F16", "BF16", "Q8_0" */
int64_t dtype_block(dtype type);                      /* elements per block: 1, or 32 for Q8_0 */
size_t dtype_block_bytes(dtype type);                 /* bytes per block */
size_t dtype_row_bytes(dtype type, int64_t elements); /* elements must be a multiple of dtype_block */

/* Widens `count` elements (a multiple of the block) at `src` to float32. */
void dtype_to_float(float *out, const void *src, dtype type, int64_t count);

#endif
