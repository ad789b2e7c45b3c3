/* What the CUDA kernels of all ops share: the launch context, vector loads, warp sums, widening of stored formats.
 *
 * One op is op_<name>_cuda(args, cuda): it launches on cuda->stream and returns; pointers in args are device memory
 * (the `weight` structs themselves are read on the host). Launch errors are collected by the backend after the step.
 * Kernels take one args struct by value and have no other state. */
#ifndef NVLLM_OPS_CUDA_CUH
#define NVLLM_OPS_CUDA_CUH

#include "ops/ptx.cuh"

extern "C" {
#include "ops/attention.h"
#include "ops/draw.h"
#include "ops/embed.h"
#include "ops/gather.h"
#include "ops/linear.h"
#include "ops/linear_many.h"
#include "ops/norm_linear.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"
#include "ops/rope_attention.h"
#include "ops/silu_mul.h"

#define CUDA_COUNTERS 65536

struct cublaslt; /* ops/cublaslt.cuh */

typedef struct cuda_context {
    cudaStream_t stream;
    void *scratch;      /* any op's within its call: the most of all op_*_cuda_scratch, 256-byte aligned */
    unsigned *counters; /* [CUDA_COUNTERS] zero when an op begins, and zero again when it ends */
    int multiprocessors;
    int major;        /* compute capability of the card, or of the code where that is for an older one */
    int shared_bytes; /* most dynamic shared memory of a block that asks for it (227 KB on 9.0, 99 KB on 8.6) */
    int programmatic;          /* card and code have programmatic dependent launch (9.0 and later) */
    struct cublaslt *cublaslt; /* NULL: not there; the op's own kernels do all products */
    linear_many *products;     /* how products of many tokens are done, and how many the library did */
} cuda_context;

void op_embed_cuda(const op_embed_args *a, const cuda_context *cuda);
void op_rope_table_cuda(const op_rope_table_args *a, const cuda_context *cuda);
void op_rmsnorm_cuda(const op_rmsnorm_args *a, const cuda_context *cuda);
void op_linear_cuda(const op_linear_args *a, const cuda_context *cuda);
void op_rope_cuda(const op_rope_args *a, const cuda_context *cuda);
void op_kv_write_cuda(const op_kv_write_args *a, const cuda_context *cuda);
void op_attention_cuda(const op_attention_args *a, const cuda_context *cuda);
void op_silu_mul_cuda(const op_silu_mul_args *a, const cuda_context *cuda);
void op_gather_cuda(const op_gather_args *a, const cuda_context *cuda);
/* Attention of rows with more than one token in this step (rows of one token are left alone), on tensor cores. false:
 * nothing was done, because the cache's format or C is not supported. */
bool op_attention_prompt_cuda(const op_attention_args *a, const cuda_context *cuda);
/* Products for many tokens, on tensor cores. false: nothing was done, because a weight's format or shape is not
 * supported. */
bool op_linear_many_cuda(const op_linear_args *a, const cuda_context *cuda);
bool op_norm_linear_many_cuda(const op_norm_linear_args *a, const cuda_context *cuda);
void op_draw_cuda(const op_draw_args *a, const cuda_context *cuda);
void op_norm_linear_cuda(const op_norm_linear_args *a, const cuda_context *cuda);
void op_rope_attention_cuda(const op_rope_attention_args *a, const cuda_context *cuda);

/* Bytes of cuda_context.scratch that each op needs for steps up to these sizes. */
size_t op_attention_cuda_scratch(int32_t C);
size_t op_linear_cuda_scratch(int32_t T, int32_t widest_input, int32_t F); /* norm_linear too */
size_t op_draw_cuda_scratch(int32_t N, int32_t V);
}

/* Programmatic dependent launch: a kernel may start while the one before it still runs. Every kernel therefore begins
 * with kernel_begins(), may then read what no kernel writes (weights), and calls kernel_waits() before anything else:
 * only the wait orders memory. */
static __device__ __forceinline__ void kernel_begins(void)
{
#if __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
#endif
}

static __device__ __forceinline__ void kernel_waits(void)
{
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
}

/* `cluster` blocks of the grid run together and see each other's shared memory; one block: no cluster. Clusters need
 * compute capability 9.0. */
template <class... P, class... A>
static void launch_clusters(const cuda_context *cuda, void (*kernel)(P...), dim3 grid, dim3 cluster,
                            unsigned threads, size_t shared, A... args)
{
    cudaLaunchAttribute attribute[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = cuda->stream;
    config.attrs = attribute;
    if (cuda->programmatic) {
        attribute[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster.x * cluster.y * cluster.z > 1) {
        attribute[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attribute[config.numAttrs].val.clusterDim.x = cluster.x;
        attribute[config.numAttrs].val.clusterDim.y = cluster.y;
        attribute[config.numAttrs++].val.clusterDim.z = cluster.z;
    }
    cudaLaunchKernelEx(&config, kernel,
                       P(args)...); /* an error stays, and the backend reports it after the step */
}

/* All blocks run at once, or the launch fails: they may wait for each other. Not programmatic. */
template <class... P, class... A>
static void launch_cooperative(const cuda_context *cuda, void (*kernel)(P...), unsigned blocks,
                               unsigned threads, size_t shared, A... args)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = cuda->stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cudaLaunchKernelEx(&config, kernel, P(args)...);
}

template <class... P, class... A>
static void launch(const cuda_context *cuda, void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared,
                   A... args)
{
    launch_clusters(cuda, kernel, grid, dim3(1), threads, shared, args...);
}

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

/* Two floats rounded, `low` in the lower half. */
static __device__ __forceinline__ uint32_t narrow_pair(float low, float high, __nv_bfloat16)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&v;
}
static __device__ __forceinline__ uint32_t narrow_pair(float low, float high, __half)
{
    __half2 v = __floats2half2_rn(low, high);
    return *(uint32_t *)&v;
}

/* And back. */
static __device__ __forceinline__ void widen_pair(float *out, uint32_t pair, __nv_bfloat16)
{
    out[0] = __uint_as_float(pair << 16);
    out[1] = __uint_as_float(pair & 0xffff0000u);
}
static __device__ __forceinline__ void widen_pair(float *out, uint32_t pair, __half)
{
    __half2_raw raw;
    raw.x = (unsigned short)(pair & 0xffffu);
    raw.y = (unsigned short)(pair >> 16);
    float2 both = __half22float2(__half2(raw));
    out[0] = both.x;
    out[1] = both.y;
}

static __device__ __forceinline__ float silu_times(float gate, float up)
{
    return gate / (1.0f + expf(-gate)) * up;
}

/* Element i of a row in a stored format, as float32. */
static __device__ __forceinline__ float load_float(const void *row, dtype format, int64_t i)
{
    switch (format) {
    case DTYPE_F32: return ((const float *)row)[i];
    case DTYPE_F16: return __half2float(((const __half *)row)[i]);
    case DTYPE_BF16: return __bfloat162float(((const __nv_bfloat16 *)row)[i]);
    default: break;
    }
    const uint8_t *block = (const uint8_t *)row + i / Q8_0_BLOCK * Q8_0_BLOCK_BYTES;
    __half scale = *(const __half *)block; /* blocks are 34 bytes: 2-byte aligned */
    return __half2float(scale) * (float)(int8_t)block[2 + i % Q8_0_BLOCK];
}

#endif
