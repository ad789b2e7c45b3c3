/* RMSNorm on the GPU, statistics in float32. One warp per group of at most 256 elements (q/k norm), else one block per
 * token. Reads and writes 4*width bytes per group. */
#include "ops/cuda.cuh"

typedef struct {
    float of[32];
} warp_sums;

/* blockDim.x threads share one group; blockDim.x is 32 or a multiple of it up to 1024. */
static __global__ void rmsnorm(op_rmsnorm_args a)
{
    kernel_begins();
    kernel_waits();
    float(&partial)[32] = block_shared<warp_sums>().of;
    int t = blockIdx.x / a.groups, g = blockIdx.x % a.groups;
    const float *in = a.in + (size_t)t * a.in_stride + (size_t)g * a.width;
    float *out = a.out + (size_t)t * a.out_stride + (size_t)g * a.width;
    float sum = 0;
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) sum += in[i] * in[i];
    sum = warp_sum(sum);
    if (blockDim.x > 32) {
        if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
        __syncthreads();
        sum = threadIdx.x % 32 < blockDim.x / 32 ? partial[threadIdx.x % 32] : 0;
        sum = warp_sum(sum);
    }
    float scale = 1.0f / sqrtf(sum / (float)a.width + a.eps);
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) out[i] = a.w[i] * (in[i] * scale);
}

extern "C" void op_rmsnorm_cuda(const op_rmsnorm_args *a, const cuda_context *cuda)
{
    int threads = a->width <= 256 ? 32 : 256;
    launch(cuda, rmsnorm, a->T * a->groups, threads, 0, *a);
}
