/* Instructions and memories that CUDA C has no words for: asynchronous copies, matrix fragments, clusters, shared memory.
 *
 * All that is not C++ in the kernels is here, and nothing else: one function per instruction, no logic. The other .cu
 * and .cuh files have no inline assembly and no __shared__, so a header with the same functions written in plain C++
 * lets a host compiler build them.
 * Shared memory has 32-bit addresses of its own (shared_address), which the functions below take. Every function says
 * from which compute capability it works; calling one below it is the caller's mistake.
 *
 * Fragments, by lane l of a warp, two 16-bit elements in a word, the lower number in the lower half:
 *   8 x 8 matrix    row l / 4, columns 2 * (l % 4) and the next
 * int8 elements are four in a word: of an 8 x 16 matrix row l / 4, columns 4 * (l % 4) and the next three. */
#ifndef NVLLM_OPS_PTX_CUH
#define NVLLM_OPS_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

/* ---- Shared memory ------------------------------------------------------------------------------------------- */

/* The address, for the functions below, of memory that block_shared() or dynamic_shared() gave. */
static __device__ __forceinline__ uint32_t shared_address(const void *memory)
{
    return (uint32_t)__cvta_generic_to_shared(memory);
}

/* The same memory, at an address that is worked out once: the compiler would do that anew wherever it is used, by a
 * register that is slow to read on 9.0. */
static __device__ __forceinline__ unsigned char *kept_shared(const void *memory)
{
    uint32_t kept;
    asm volatile("mov.u32 %0, %1;" : "=r"(kept) : "r"(shared_address(memory)));
    return (unsigned char *)__cvta_shared_to_generic(kept);
}

/* The block's variable of type T, not initialised. There is one per type: two uses of one T in a kernel are the same
 * memory, so each use has a struct of its own. */
template <class T> static __device__ __forceinline__ T &block_shared(void)
{
    __shared__ T memory;
    return memory;
}

/* The memory whose size the launch gives, aligned to ALIGN bytes. There is one per block, and one ALIGN per file. */
template <int ALIGN> static __device__ __forceinline__ unsigned char *dynamic_shared(void)
{
    extern __shared__ __align__(ALIGN) unsigned char dynamic_shared_memory[];
    return dynamic_shared_memory;
}

/* ---- Asynchronous copies (8.0) ------------------------------------------------------------------------------- */

/* 16 bytes of global into shared memory, past L1: the first `bytes` of them, 0 or 16, are read, the others are zero.
 * Both addresses are multiples of 16. What has arrived is seen by this thread after a wait, by others after a barrier
 * behind it. */
static __device__ __forceinline__ void async_copy(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

/* The same, and L2 fetches all of the 128 bytes around them. */
static __device__ __forceinline__ void async_copy_l2_128(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

/* This thread's copies since the last one are a group, which may be empty. */
static __device__ __forceinline__ void async_copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All groups of this thread but the last PENDING have arrived. */
template <int PENDING> static __device__ __forceinline__ void async_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* All copies of this thread have arrived, whether in a group or not. */
static __device__ __forceinline__ void async_copy_wait_all(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* ---- Matrices (8.0): all 32 lanes of a warp together ----------------------------------------------------------- */

/* Four 8 x 8 matrices of 16-bit elements, matrix i into r[i]. Lane l gives the address of row l % 8 of matrix l / 8: 16
 * bytes, at a multiple of 16. */
static __device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

/* The same, transposed on the way: lane l gets rows 2 * (l % 4) and the next of column l / 4. */
static __device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

/* d[16, 8] += a[16, 16] * b[16, 8], in float32. The last argument only says what the elements of a and b are.
 *   d: row l / 4, columns 2 * (l % 4) and the next, in d[0] and d[1]; row l / 4 + 8 in d[2] and d[3]
 *   a: its 8 x 8 matrices: rows 0-7 of columns 0-7, rows 8-15 of them, rows 0-7 of columns 8-15, rows 8-15 of them
 *   b: rows 2 * (l % 4) and the next of column l / 4 in b0; 8 rows further in b1 */
static __device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1, __nv_bfloat16)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1, __half)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* d[16, 8] += a[16, 8] * b[8, 8]: a is its first two matrices, b the first. */
static __device__ __forceinline__ void mma_16x8x8(float (&d)[4], const uint32_t (&a)[2], uint32_t b,
                                                  __nv_bfloat16)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

/* d[16, 8] = a[16, 32] * b[32, 8] + start, int8 products summed in int32.
 *   d: as above
 *   a: its 8 x 16 matrices: rows 0-7 of columns 0-15, rows 8-15 of them, rows 0-7 of columns 16-31, rows 8-15 of them
 *   b: rows 4 * (l % 4) and the next three of column l / 4 in b0; 16 rows further in b1 */
static __device__ __forceinline__ void mma_16x8x32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1, int start)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %10, %10, %10};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(start));
}

/* ---- One thread (all GPUs) ----------------------------------------------------------------------------------- */

/* 2^x, to 2 units in the last place; results too small for a normal number are zero. */
static __device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes of global memory that are read once and leave L1 alone, or zero. No branch, so many stay in flight. */
static __device__ __forceinline__ uint4 load_once(const void *from, bool there)
{
    uint4 v = {0, 0, 0, 0};
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.u32 p, %5, 0;\n"
                 "@p ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                 "}"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
                 : "l"(from), "r"((int)there)
                 : "memory");
    return v;
}

/* Adds one to a counter in global memory, or sets it to zero when it is `most`; what it was before. Releases this
 * thread's stores, and acquires those that were released before. */
static __device__ __forceinline__ unsigned increment_wrapping(unsigned *counter, unsigned most)
{
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(counter), "r"(most)
                 : "memory");
    return before;
}

/* Words of two halves, {value, tag}, that blocks of one kernel hand to each other: each is written and read whole, and
 * orders nothing else (posts.cuh). Words are at multiples of 8 bytes, pairs of them at multiples of 16. */
static __device__ __forceinline__ void post_word(uint64_t *to, uint32_t value, uint32_t tag)
{
    uint64_t word = (uint64_t)tag << 32 | value;
    asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}

/* {value, tag} of a word, and {value, tag, value, tag} of two. */
static __device__ __forceinline__ uint2 posted_word(const uint64_t *from)
{
    uint64_t word;
    asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(word) : "l"(from) : "memory");
    return make_uint2((uint32_t)word, (uint32_t)(word >> 32));
}
static __device__ __forceinline__ uint4 posted_pair(const uint64_t *from)
{
    uint64_t low, high;
    asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];"
                 : "=l"(low), "=l"(high)
                 : "l"(from)
                 : "memory");
    return make_uint4((uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32));
}

/* Called by all lanes of a warp before they look at words again that were not there yet. */
static __device__ __forceinline__ void before_next_look(void) {}

/* Nanoseconds, the same clock on the whole GPU; it may advance in steps of a microsecond. */
static __device__ __forceinline__ uint64_t global_timer(void)
{
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}

/* ---- Barriers in shared memory, and copies that arrive at them (9.0; nothing happens below) ------------------------ */

/* A barrier is 8 bytes, at a multiple of 8. A phase of it ends when `count` arrivals and all expected bytes have come; phases
 * have parity 0, 1, 0, .. */
static __device__ __forceinline__ void mbarrier_init(uint32_t barrier, int count)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
#endif
}

/* Barriers that this thread has made can be used by others behind the next __syncthreads, and by copies. */
static __device__ __forceinline__ void mbarriers_made(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

static __device__ __forceinline__ void mbarrier_arrive(uint32_t barrier)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
#endif
}

/* Arrives, and the phase ends not before so many bytes have been copied. */
static __device__ __forceinline__ void mbarrier_arrive_expecting(uint32_t barrier, int bytes)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
#endif
}

/* Has the current or the last phase of this parity ended? Parity 1 of a new barrier has. */
static __device__ __forceinline__ bool mbarrier_ended(uint32_t barrier, uint32_t parity)
{
    uint32_t ended = 1;
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(ended)
                 : "r"(barrier), "r"(parity)
                 : "memory");
#endif
    return ended;
}

/* Waits until it has. All lanes. The first look stands before the loop, at whose head the compiler lets other warps go
 * first, which takes longer than looking. */
static __device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    uint32_t ended = mbarrier_ended(barrier, parity);
#if __CUDA_ARCH__ >= 900
    if (__builtin_expect(ended, 1)) return;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(ended)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!ended);
#endif
}

/* Bytes of global into shared memory, all multiples of 16, which arrive at a barrier that expects them. */
static __device__ __forceinline__ void bulk_copy(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
#endif
}

/* __syncthreads for the first THREADS threads of a block, whole warps; the others do not come. */
template <int THREADS> static __device__ __forceinline__ void first_threads_meet(void)
{
    asm volatile("bar.sync 1, %0;" ::"n"(THREADS) : "memory");
}

/* ---- Clusters of blocks (9.0; nothing happens below) --------------------------------------------------------- */

/* All threads of all blocks of the cluster have arrived, and their writes to shared memory are seen. */
static __device__ __forceinline__ void cluster_barrier(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
#endif
}

/* Two floats at this address of the shared memory of the cluster's block number `block`. */
static __device__ __forceinline__ float2 cluster_load(uint32_t from, int block)
{
    float2 v = {};
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n.reg .u32 there;\nmapa.shared::cluster.u32 there, %2, %3;\n"
                 "ld.shared::cluster.v2.f32 {%0, %1}, [there];\n}"
                 : "=f"(v.x), "=f"(v.y)
                 : "r"(from), "r"(block)
                 : "memory");
#endif
    return v;
}

#endif
