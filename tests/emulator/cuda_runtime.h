/* CUDA C's words for the C++ compiler, as far as our kernels use them, and the runtime's functions (runtime.cpp). */
#ifndef NVLLM_EMULATOR_CUDA_RUNTIME_H
#define NVLLM_EMULATOR_CUDA_RUNTIME_H

#include "thread.h"

#include <math.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <type_traits>

#define __CUDA_ARCH__ 900
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __expf       expf /* the C library has one, too */

/* ---- Types --------------------------------------------------------------------------------------------------- */

struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct float3 {
    float x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

static inline int2 make_int2(int x, int y)
{
    return {x, y};
}
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

/* ---- A thread's view ----------------------------------------------------------------------------------------- */

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

static inline void __syncthreads()
{
    emulator::meet_block();
}
static inline void __syncwarp()
{
    emulator::meet_warp(NULL, NULL);
}
static inline void __threadfence()
{
    emulator::fence_memory();
}
static inline void __threadfence_system()
{
    emulator::fence_memory();
}
static inline void __nanosleep(unsigned) {}
static inline void cudaTriggerProgrammaticLaunchCompletion()
{
    emulator::trigger_next();
}
static inline void cudaGridDependencySynchronize()
{
    emulator::wait_for_grids();
}

/* One lane's value of an instruction in which every lane gets some lane's value, or a sum of all. */
template <class T> struct lane_value {
    T in, out;
    int other;
};

template <class T> static inline void take_other(void *const *lanes)
{
    for (int l = 0; l < 32; l++) {
        lane_value<T> *mine = (lane_value<T> *)lanes[l];
        mine->out = ((lane_value<T> *)lanes[mine->other])->in;
    }
}

static inline void need_whole_warp(unsigned mask)
{
    if (mask != 0xffffffffu) abort(); /* our kernels use whole warps only */
}

static inline int lane_number()
{
    return (int)(threadIdx.x % 32);
}

template <class T> static inline T value_of_lane(unsigned mask, T v, int other)
{
    lane_value<T> mine = {v, v, other};
    need_whole_warp(mask);
    emulator::meet_warp(&mine, take_other<T>);
    return mine.out;
}

template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane)
{
    return value_of_lane(mask, v, lane & 31);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int lanes)
{
    return value_of_lane(mask, v, lane_number() ^ lanes);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned lanes)
{
    int from = lane_number() - (int)lanes;
    return value_of_lane(mask, v, from < 0 ? lane_number() : from);
}

/* All lanes get combine(.. combine(lane 0, lane 1) .., lane 31). */
template <class T, T combine(T, T)> static inline void take_all(void *const *lanes)
{
    T all = ((lane_value<T> *)lanes[0])->in;
    for (int l = 1; l < 32; l++) all = combine(all, ((lane_value<T> *)lanes[l])->in);
    for (int l = 0; l < 32; l++) ((lane_value<T> *)lanes[l])->out = all;
}

template <class T, T combine(T, T)> static inline T value_of_all(unsigned mask, T v)
{
    lane_value<T> mine = {v, v, 0};
    need_whole_warp(mask);
    emulator::meet_warp(&mine, take_all<T, combine>);
    return mine.out;
}

template <class T> static inline T larger_of(T a, T b)
{
    return a > b ? a : b;
}
template <class T> static inline T smaller_of(T a, T b)
{
    return a < b ? a : b;
}
template <class T> static inline T sum_of(T a, T b)
{
    return a + b;
}
template <class T> static inline T bits_of(T a, T b)
{
    return a | b;
}

template <class T> static inline T __reduce_max_sync(unsigned mask, T v)
{
    return value_of_all<T, larger_of<T>>(mask, v);
}
template <class T> static inline T __reduce_min_sync(unsigned mask, T v)
{
    return value_of_all<T, smaller_of<T>>(mask, v);
}
template <class T> static inline T __reduce_add_sync(unsigned mask, T v)
{
    return value_of_all<T, sum_of<T>>(mask, v);
}
static inline unsigned __ballot_sync(unsigned mask, bool yes)
{
    return value_of_all<unsigned, bits_of<unsigned>>(mask, yes ? 1u << lane_number() : 0u);
}
static inline bool __any_sync(unsigned mask, bool yes)
{
    return __ballot_sync(mask, yes) != 0;
}

/* One emulated thread runs at a time, so this is one. */
template <class T, class U> static inline T atomicAdd(T *p, U v)
{
    emulator::begin_atomic(p, sizeof *p, true);
    T before = *p;
    *p = (T)(before + v);
    emulator::end_atomic();
    return before;
}

template <class T, class U> static inline T atomicExch(T *p, U v)
{
    emulator::begin_atomic(p, sizeof *p, true);
    T before = *p;
    *p = (T)v;
    emulator::end_atomic();
    return before;
}

template <class T> static inline T __ldcg(const T *p)
{
    return *p;
}

/* ---- Arithmetic ---------------------------------------------------------------------------------------------- */

template <class A, class B> static inline typename std::common_type<A, B>::type min(A a, B b)
{
    typedef typename std::common_type<A, B>::type T;
    return (T)a < (T)b ? (T)a : (T)b;
}
template <class A, class B> static inline typename std::common_type<A, B>::type max(A a, B b)
{
    typedef typename std::common_type<A, B>::type T;
    return (T)a < (T)b ? (T)b : (T)a;
}

static inline unsigned __float_as_uint(float f)
{
    unsigned u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static inline float __uint_as_float(unsigned u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fdividef(float a, float b)
{
    return a / b;
}
/* Off by up to the two units in the last place that CUDA allows, by the bits of the argument. */
static inline float rsqrtf(float x)
{
    unsigned units = __float_as_uint(1.0f / sqrtf(x));
    if (!(x > 0) || isinf(x)) return __uint_as_float(units);
    return __uint_as_float(units + __float_as_uint(x) * 2654435761u % 5 - 2);
}
static inline unsigned long long __float2ull_rn(float f)
{
    return (unsigned long long)llrintf(f);
}
static inline uint64_t __umul64hi(uint64_t a, uint64_t b)
{
    return (uint64_t)(((unsigned __int128)a * b) >> 64);
}
/* The sum of the products of four int8, and c. */
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8) c += (int8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}
static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}
static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}

/* ---- The runtime --------------------------------------------------------------------------------------------- */

/* CUDA's numbers. */
enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorCooperativeLaunchTooLarge = 720,
    cudaErrorSystemNotReady = 802,
    cudaErrorSystemDriverMismatch = 803,
    cudaErrorCompatNotSupportedOnDevice = 804
};
typedef enum cudaError cudaError_t;
typedef struct emulated_stream *cudaStream_t;
typedef struct emulated_event *cudaEvent_t;
typedef struct emulated_graph *cudaGraph_t, *cudaGraphExec_t;
typedef const struct emulated_node *cudaGraphNode_t;

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal = 0,
    cudaStreamCaptureModeThreadLocal = 1,
    cudaStreamCaptureModeRelaxed = 2
};
enum cudaGraphNodeType { cudaGraphNodeTypeKernel = 0, cudaGraphNodeTypeMemset = 2 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1 };
enum { cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum { cudaHostAllocPortable = 1, cudaHostAllocMapped = 2 };

struct cudaDeviceProp {
    char name[256];
    struct {
        char bytes[16];
    } uuid;
    int major, minor, multiProcessorCount;
    size_t sharedMemPerBlockOptin;
};

struct cudaFuncAttributes {
    int ptxVersion;
};

enum cudaLaunchAttributeID {
    cudaLaunchAttributeCooperative = 2,
    cudaLaunchAttributeClusterDimension = 4,
    cudaLaunchAttributeProgrammaticStreamSerialization = 6
};

struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    union {
        int programmaticStreamSerializationAllowed;
        int cooperative;
        struct {
            unsigned x, y, z;
        } clusterDim;
    } val;
};

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *card, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);

cudaError_t emulated_malloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemGetInfo(size_t *left, size_t *total);
cudaError_t cudaMemsetAsync(void *memory, int byte, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);

cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n);
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType *type);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel);
cudaError_t emulated_set_most_shared(const void *kernel, int bytes);
cudaError_t emulated_launch(const cudaLaunchConfig_t *config, const void *kernel, const char *name,
                            const std::function<void()> &work); /* work: of one thread */

/* Done when its turn comes; for what libraries do. */
void emulated_do(cudaStream_t stream, const std::function<void()> &work);

template <class T> static inline cudaError_t cudaMalloc(T **memory, size_t bytes)
{
    return emulated_malloc((void **)memory, bytes);
}

template <class... P>
static inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int bytes)
{
    return emulated_set_most_shared((const void *)kernel, bytes);
}

template <class... P, class... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...),
                                             A... args)
{
    return emulated_launch(config, (const void *)kernel, __PRETTY_FUNCTION__, [=] { kernel(P(args)...); });
}

#endif
