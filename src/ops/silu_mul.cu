/* out = silu(gate) * up on the GPU. Reads 8, writes 4 bytes per element. Tokens are the grid's x, the only side that may
 * be longer than 65,535 blocks. */
#include "ops/cuda.cuh"

static __global__ void silu_mul(op_silu_mul_args a)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x, f = blockIdx.y * blockDim.x + threadIdx.x;
    if (f >= a.F) return;
    size_t at = (size_t)t * a.in_stride + f;
    a.out[(size_t)t * a.out_stride + f] = silu_times(a.gate[at], a.up[at]);
}

extern "C" void op_silu_mul_cuda(const op_silu_mul_args *a, const cuda_context *cuda)
{
    launch(cuda, silu_mul, dim3((unsigned)a->T, (unsigned)(a->F + 255) / 256), 256, 0, *a);
}
