/* The functions of src/ops/ptx.cuh, played; see there for what they do. */
#ifndef NVLLM_EMULATOR_PTX_CUH
#define NVLLM_EMULATOR_PTX_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <time.h>

static inline uint32_t shared_address(const void *memory)
{
    return emulator::address_of(memory);
}
static inline unsigned char *kept_shared(void *memory)
{
    return (unsigned char *)memory;
}

/* A tag of its own per type. */
template <class T> static inline T &block_shared(void)
{
    static const char tag = 0;
    return *(T *)emulator::static_memory(&tag, sizeof(T), alignof(T));
}

template <int ALIGN> static inline unsigned char *dynamic_shared(void)
{
    return (unsigned char *)emulator::dynamic_memory(ALIGN);
}

static inline void async_copy(uint32_t to, const void *from, int bytes)
{
    emulator::copy_later(to, from, bytes);
}
static inline void async_copy_l2_128(uint32_t to, const void *from, int bytes)
{
    emulator::copy_later(to, from, bytes);
}
static inline void async_copy_commit(void)
{
    emulator::copies_end_group();
}
template <int PENDING> static inline void async_copy_wait(void)
{
    emulator::copies_arrive(PENDING);
}
static inline void async_copy_wait_all(void)
{
    emulator::copies_arrive(-1);
}

/* ---- Matrices of a warp -------------------------------------------------------------------------------------- */

struct lane_matrices {
    const uint16_t *row; /* row l % 8 of matrix l / 8, 8 elements */
    uint32_t r[4];
};

/* Lane l gets, of each matrix, row l / 4 columns 2 * (l % 4) and the next; transposed: the same of the transpose. */
template <bool TRANSPOSED> static inline void spread_matrices(void *const *lanes)
{
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < 4; m++) {
            int i = l / 4, j = l % 4 * 2;
            auto at = [&](int row, int column) {
                return (uint32_t)((lane_matrices *)lanes[m * 8 + row])->row[column];
            };
            ((lane_matrices *)lanes[l])->r[m] =
                TRANSPOSED ? at(j, i) | at(j + 1, i) << 16 : at(i, j) | at(i, j + 1) << 16;
        }
}

template <bool TRANSPOSED> static inline void load_matrices_as(uint32_t (&r)[4], uint32_t from)
{
    lane_matrices mine = {(const uint16_t *)emulator::memory_at(from, 16), {}};
    emulator::meet_warp(&mine, spread_matrices<TRANSPOSED>);
    for (int m = 0; m < 4; m++) r[m] = mine.r[m];
}

static inline void load_matrices(uint32_t (&r)[4], uint32_t from)
{
    load_matrices_as<false>(r, from);
}
static inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t from)
{
    load_matrices_as<true>(r, from);
}

struct lane_product {
    float *d;          /* [4] */
    const uint32_t *a; /* [4] */
    uint32_t b[2];
};

static inline float low_half(uint32_t pair, __nv_bfloat16)
{
    return bf16_to_float((uint16_t)pair);
}
static inline float low_half(uint32_t pair, __half)
{
    return f16_to_float((uint16_t)pair);
}

/* d[16, 8] += a[16, 16] * b[16, 8], with the fragments of mma.m16n8k16. */
template <class E> static inline void multiply_matrices(void *const *lanes)
{
    float a[16][16], b[16][8], d[16][8] = {};
    for (int l = 0; l < 32; l++) {
        const lane_product *p = (const lane_product *)lanes[l];
        int i = l / 4, j = l % 4 * 2;
        for (int half = 0; half < 2; half++) {
            for (int q = 0; q < 4; q++)
                a[i + q % 2 * 8][j + q / 2 * 8 + half] = low_half(p->a[q] >> 16 * half, E());
            for (int q = 0; q < 2; q++) b[j + q * 8 + half][i] = low_half(p->b[q] >> 16 * half, E());
        }
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++) d[i][j] += a[i][k] * b[k][j];
    for (int l = 0; l < 32; l++) {
        const lane_product *p = (const lane_product *)lanes[l];
        for (int q = 0; q < 4; q++) p->d[q] += d[l / 4 + q / 2 * 8][l % 4 * 2 + q % 2];
    }
}

template <class E>
static inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, E)
{
    lane_product mine = {d, a, {b0, b1}};
    emulator::meet_warp(&mine, multiply_matrices<E>);
}

template <class E> static inline void mma_16x8x8(float (&d)[4], const uint32_t (&a)[2], uint32_t b, E element)
{
    uint32_t both[4] = {a[0], a[1], 0, 0};
    mma_16x8x16(d, both, b, 0, element);
}

struct lane_int8_product {
    int *d;            /* [4] */
    const uint32_t *a; /* [4] */
    uint32_t b[2];
    int start;
};

/* d[16, 8] = a[16, 32] * b[32, 8] + start, with the fragments of mma.m16n8k32. */
static inline void multiply_int8_matrices(void *const *lanes)
{
    int a[16][32], b[32][8];
    for (int l = 0; l < 32; l++) {
        const lane_int8_product *p = (const lane_int8_product *)lanes[l];
        int i = l / 4, j = l % 4 * 4;
        for (int byte = 0; byte < 4; byte++) {
            for (int q = 0; q < 4; q++)
                a[i + q % 2 * 8][j + q / 2 * 16 + byte] = (int8_t)(p->a[q] >> 8 * byte);
            for (int q = 0; q < 2; q++) b[j + q * 16 + byte][i] = (int8_t)(p->b[q] >> 8 * byte);
        }
    }
    for (int l = 0; l < 32; l++) {
        const lane_int8_product *p = (const lane_int8_product *)lanes[l];
        for (int q = 0; q < 4; q++) {
            int sum = p->start;
            for (int k = 0; k < 32; k++) sum += a[l / 4 + q / 2 * 8][k] * b[k][l % 4 * 2 + q % 2];
            p->d[q] = sum;
        }
    }
}

static inline void mma_16x8x32(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int start)
{
    lane_int8_product mine = {d, a, {b0, b1}, start};
    emulator::meet_warp(&mine, multiply_int8_matrices);
}

/* ---- The rest ------------------------------------------------------------------------------------------------ */

static inline float exp2_approx(float x)
{
    return exp2f(x);
}

static inline uint4 load_once(const void *from, bool there)
{
    if (there && (uintptr_t)from % 16) abort();
    return there ? *(const uint4 *)from : uint4{0, 0, 0, 0};
}

static inline unsigned increment_wrapping(unsigned *counter, unsigned most)
{
    emulator::begin_atomic(counter, sizeof *counter, false);
    unsigned before = *counter;
    *counter = before >= most ? 0 : before + 1;
    emulator::end_atomic();
    return before;
}

/* What two words of one address say is never torn: one emulated thread runs at a time. */
static inline void post_word(uint64_t *to, uint32_t value, uint32_t tag)
{
    if ((uintptr_t)to % 8) abort();
    emulator::begin_word(to, sizeof *to, true);
    *to = (uint64_t)tag << 32 | value;
    emulator::end_atomic();
}
static inline uint2 posted_word(const uint64_t *from)
{
    if ((uintptr_t)from % 8) abort();
    emulator::begin_word(from, sizeof *from, false);
    uint64_t word = *from;
    emulator::end_atomic();
    return make_uint2((uint32_t)word, (uint32_t)(word >> 32));
}
static inline uint4 posted_pair(const uint64_t *from)
{
    if ((uintptr_t)from % 16) abort();
    uint2 low = posted_word(from), high = posted_word(from + 1);
    return uint4{low.x, low.y, high.x, high.y};
}
static inline void before_next_look(void)
{
    emulator::let_others_run();
}

static inline void mbarrier_init(uint32_t barrier, int count)
{
    emulator::barrier_init(barrier, count);
}
static inline void mbarriers_made(void) {}
static inline void mbarrier_arrive(uint32_t barrier)
{
    emulator::barrier_arrive(barrier, 0);
}
static inline void mbarrier_arrive_expecting(uint32_t barrier, int bytes)
{
    emulator::barrier_arrive(barrier, bytes);
}
static inline bool mbarrier_ended(uint32_t barrier, uint32_t parity)
{
    return emulator::barrier_ended(barrier, parity);
}
static inline void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    emulator::barrier_wait(barrier, parity);
}
static inline void bulk_copy(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
    emulator::bulk_copy(to, from, bytes, barrier);
}
template <int THREADS> static inline void first_threads_meet(void)
{
    emulator::meet_first(THREADS);
}

static inline void cluster_barrier(void)
{
    emulator::meet_cluster();
}

static inline float2 cluster_load(uint32_t from, int block)
{
    return *(const float2 *)emulator::memory_of_block(from, block, sizeof(float2));
}

static inline uint64_t global_timer(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
