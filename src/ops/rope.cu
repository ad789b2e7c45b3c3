/* RoPE on the GPU: the table once per step, then every head of q and k in place. One block per token. */
#include "ops/rope.cuh"

static __global__ void rope_table(op_rope_table_args a)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x, half = a.C / 2;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float2 turn = rope_turn(a.pos[t], a.inv_freq[i], a.scale);
        a.cos[(size_t)t * half + i] = turn.x;
        a.sin[(size_t)t * half + i] = turn.y;
    }
}

static __global__ void rope(op_rope_args a)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x, half = a.C / 2;
    for (int i = threadIdx.x; i < a.heads * half; i += blockDim.x) {
        int h = i / half, j = i % half;
        float *x = a.x + (size_t)t * a.stride + (size_t)h * a.C;
        int first = a.pairing == ROPE_PAIRS ? 2 * j : j,
            second = a.pairing == ROPE_PAIRS ? 2 * j + 1 : j + half;
        float c = a.cos[(size_t)t * half + j], s = a.sin[(size_t)t * half + j], u = x[first], v = x[second];
        x[first] = u * c - v * s;
        x[second] = v * c + u * s;
    }
}

extern "C" void op_rope_table_cuda(const op_rope_table_args *a, const cuda_context *cuda)
{
    launch(cuda, rope_table, a->T, 64, 0, *a);
}

extern "C" void op_rope_cuda(const op_rope_args *a, const cuda_context *cuda)
{
    launch(cuda, rope, a->T, 256, 0, *a);
}
