/* Embedding lookup on the GPU. One block per token; memory bound and tiny. */
#include "ops/cuda.cuh"

static __global__ void embed(float *out, const void *table, dtype format, size_t row_bytes,
                             const int32_t *tokens, const int32_t *drawn, int D)
{
    kernel_begins();
    kernel_waits();
    int token = tokens[blockIdx.x];
    if (token < 0) token = drawn[-1 - token];
    const char *row = (const char *)table + row_bytes * (size_t)token;
    for (int i = threadIdx.x; i < D; i += blockDim.x)
        out[(size_t)blockIdx.x * D + i] = load_float(row, format, i);
}

extern "C" void op_embed_cuda(const op_embed_args *a, const cuda_context *cuda)
{
    const weight *w = a->table;
    launch(cuda, embed, a->T, 256, 0, a->out, w->data, w->format, weight_row_bytes(w), a->tokens, a->drawn,
           w->cols);
}
