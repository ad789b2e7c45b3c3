/* What a GPU can do at most: reads of its memory, and bf16 products; see cuda_limits.cuh. */
#include "backend/cuda_limits.cuh"

#include "ops/cublaslt.cuh"

static __global__ void read_all(const uint4 *data, size_t n, uint4 *sink)
{
    kernel_begins();
    kernel_waits();
    uint4 sum = {0, 0, 0, 0};
    size_t step = (size_t)gridDim.x * blockDim.x;
#pragma unroll 8
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        uint4 v = data[i];
        sum.x ^= v.x, sum.y ^= v.y, sum.z ^= v.z, sum.w ^= v.w;
    }
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u) *sink = sum; /* practically never: keeps the loads */
}

/* bf16 values in [-1, 1), from a hash of their place: a product of zeros would take less power, and run faster. */
static __global__ void fill_random(uint32_t *words, size_t n, int as_float)
{
    kernel_begins();
    kernel_waits();
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        uint32_t h = (uint32_t)i * 0x9e3779b9u;
        h = (h ^ (h >> 16)) * 0x85ebca6bu;
        h ^= h >> 13;
        float low = (float)(h & 0xffff) / 32768.0f - 1, high = (float)(h >> 16) / 32768.0f - 1;
        __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        words[i] = as_float ? __float_as_uint(low) : *(uint32_t *)&pair;
    }
}

/* Fastest of `runs`, in seconds. */
template <class F> static double fastest(const cuda_context *cuda, int runs, F run)
{
    cudaEvent_t from, to;
    float best = 0;
    cudaEventCreate(&from);
    cudaEventCreate(&to);
    for (int i = 0; i < runs; i++) {
        float ms = 0;
        cudaEventRecord(from, cuda->stream);
        run();
        cudaEventRecord(to, cuda->stream);
        cudaEventSynchronize(to);
        cudaEventElapsedTime(&ms, from, to);
        if (best == 0 || ms < best) best = ms;
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return (double)best * 1e-3;
}

/* block: [n] 16 bytes each. */
static double measure_reads(const cuda_context *cuda, uint4 *block, size_t n)
{
    double seconds = fastest(
        cuda, 10, [=] { launch(cuda, read_all, cuda->multiprocessors * 2, 1024, 0, block, n, block); });
    return seconds > 0 ? (double)n * 16 / seconds : 0;
}

/* The product that prompts use: side tokens of side inputs and 2*side outputs, activations as float32 at both ends
 * as in a model. block: 16 * side^2 bytes. 0: no product for many tokens, or no memory. */
static double measure_products(const cuda_context *on, char *block, int32_t side)
{
    size_t square = (size_t)side * side, most = op_linear_cuda_scratch(side, side, 0);
    cuda_context cuda = *on;
    weight w = {DTYPE_BF16, 2 * side, side, block + 4 * square, 0};
    op_linear_args a = {};
    bool able = true;
    if (cuda.cublaslt) cublaslt_wait(cuda.cublaslt);
    if (cudaMalloc(&cuda.scratch, most) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    launch(&cuda, fill_random, 4096, 256, 0, (uint32_t *)block, square, 1);
    launch(&cuda, fill_random, 4096, 256, 0, (uint32_t *)w.data, square, 0);
    a.in = (const float *)block;
    a.out = (float *)(block + 8 * square);
    a.in_stride = side;
    a.out_stride = 2 * side;
    a.T = side;
    a.n_parts = 1;
    a.part[0].w = &w;
    double seconds = fastest(&cuda, 10, [&] { able = able && op_linear_many_cuda(&a, &cuda); });
    cudaStreamSynchronize(cuda.stream);
    cudaFree(cuda.scratch);
    return able && seconds > 0 ? 4.0 * (double)square * side / seconds : 0;
}

backend_limits cuda_measure_limits(const cuda_context *cuda, char *block, size_t bytes)
{
    return (backend_limits){measure_reads(cuda, (uint4 *)block, bytes / 16),
                            measure_products(cuda, block, bytes >= (size_t)1 << 30 ? 8192 : 4096)};
}

cudaError_t cuda_kernel_attributes(cudaFuncAttributes *attributes)
{
    return cudaFuncGetAttributes(attributes, (const void *)read_all);
}
