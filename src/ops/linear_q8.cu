/* Q8_0 products of up to 4 tokens on the GPU, bound by reading the weights once: 34 bytes for 32 of them.
 *
 * A warp takes whole rows, a lane one block of 32 weights at a time. Blocks are 34 bytes and so not aligned for wide
 * loads: rows pass through a ring in shared memory in stages of 32 blocks (1,088 bytes, copied 16 bytes at a time), out of
 * which each lane picks the 9 words around its block. The ring is filled before kernel_waits(), because weights depend
 * on no kernel. Inputs are rounded to int8 in blocks of 32 as ggml does, once per block of threads; products within a
 * block of weights are exact (dp4a). */
#include "ops/linear_q8.cuh"

enum {
    WARPS = 8,
    STAGE_BLOCKS = 32,
    STAGE_BYTES = STAGE_BLOCKS * Q8_0_BLOCK_BYTES,
    STAGES = 6,
    AHEAD = 4, /* 16-byte loads of inputs in flight per lane */
    RING_BYTES = WARPS * STAGES * STAGE_BYTES
};

/* A warp's stages, in the order in which it needs them: all of a row, then the next row. */
typedef struct {
    int row, step;
} stage_place;

static __device__ __forceinline__ void next_stage(stage_place &s, int steps, int rows_apart)
{
    if (++s.step < steps) return;
    s.step = 0;
    s.row += rows_apart;
}

/* Stages past the last row are empty groups. */
static __device__ __forceinline__ void load_stage(const row_list &a, const stage_place &s, uint32_t to)
{
    int lane = threadIdx.x % 32;
    if (s.row < a.first[a.n_parts]) {
        int offset = s.step * STAGE_BYTES, bytes = min((int)STAGE_BYTES, (int)a.row_bytes - offset);
        const char *from = data_of_row(a, s.row) + offset;
        for (int at = lane * 16; at < bytes; at += 32 * 16) async_copy_l2_128(to + at, from + at, 16);
    }
    async_copy_commit();
}

/* A block of weights: 32 int8, and their scale. */
typedef struct {
    int of[8];
    float scale;
} q8_block;

/* Block `lane` of a stage. It begins at a word for even lanes, two bytes behind one for odd ones. */
static __device__ __forceinline__ q8_block read_block(const unsigned char *stage)
{
    int lane = threadIdx.x % 32, odd = lane % 2;
    const uint32_t *word = (const uint32_t *)(stage + (lane * Q8_0_BLOCK_BYTES & ~3));
    uint32_t w[9];
    q8_block b;
#pragma unroll
    for (int i = 0; i < 9; i++) w[i] = word[i];
#pragma unroll
    for (int i = 0; i < 8; i++) b.of[i] = (int)__funnelshift_rc(w[i], w[i + 1], odd ? 32 : 16);
    __half_raw scale;
    scale.x = (unsigned short)(odd ? w[0] >> 16 : w[0]);
    b.scale = __half2float(__half(scale));
    return b;
}

/* The inputs of T tokens in shared memory: int8 [T, cols], then scales [T, cols / 32]. A warp takes AHEAD times four
 * blocks of 32 at a time, so that few loads wait for each other. */
template <int T>
static __device__ __forceinline__ void round_inputs(const row_list &a, uint32_t *rounded, float *scales)
{
    const int lane = threadIdx.x % 32, part = lane % Q8_LANES, blocks = a.cols / Q8_0_BLOCK, all = T * blocks;
    for (int first = threadIdx.x / 32 * 4; first < all; first += AHEAD * WARPS * 4) {
        float4 x[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int b = first + i * WARPS * 4 + lane / Q8_LANES, t = T == 1 ? 0 : b / blocks;
            const float *in = a.in + (size_t)t * a.in_stride + (b - t * blocks) * Q8_0_BLOCK + part * 4;
            x[i] = b < all ? *(const float4 *)in : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int b = first + i * WARPS * 4 + lane / Q8_LANES;
            q8_four r = round_four(x[i]);
            if (b >= all) continue;
            rounded[b * Q8_LANES + part] = r.four;
            if (part == 0) scales[b] = r.scale;
        }
    }
}

/* Shared memory: the warps' rings, rounded inputs, their scales. */
template <int T>
static __global__ void __launch_bounds__(WARPS * 32) linear_q8(const __grid_constant__ row_list a)
{
    unsigned char *shared = dynamic_shared<16>();
    int8_t *rounded = (int8_t *)(shared + RING_BYTES);
    float *scales = (float *)(rounded + T * a.cols);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = a.first[a.n_parts];
    int blocks = a.cols / Q8_0_BLOCK, steps = (blocks + STAGE_BLOCKS - 1) / STAGE_BLOCKS;
    int apart = gridDim.x * WARPS, slot = 0;
    unsigned char *ring = shared + warp * STAGES * STAGE_BYTES;
    uint32_t ring_address = shared_address(ring);
    stage_place now = {(int)blockIdx.x * WARPS + warp, 0}, ahead = now;
    kernel_begins();
    for (int i = 0; i < STAGES; i++) {
        load_stage(a, ahead, ring_address + i * STAGE_BYTES);
        next_stage(ahead, steps, apart);
    }
    kernel_waits();
    round_inputs<T>(a, (uint32_t *)rounded, scales);
    __syncthreads();
    float sum[T] = {};
    while (now.row < rows) {
        async_copy_wait<STAGES - 1>();
        __syncwarp(); /* all lanes' copies of this stage are there */
        int block = now.step * STAGE_BLOCKS + lane;
        if (block < blocks) {
            q8_block w = read_block(ring + slot * STAGE_BYTES);
#pragma unroll
            for (int t = 0; t < T; t++) {
                const int4 *x = (const int4 *)(rounded + t * a.cols + block * Q8_0_BLOCK);
                int4 low = x[0], high = x[1];
                int dot = __dp4a(w.of[0], low.x, __dp4a(w.of[1], low.y, __dp4a(w.of[2], low.z, 0)));
                dot = __dp4a(w.of[3], low.w, __dp4a(w.of[4], high.x, __dp4a(w.of[5], high.y, dot)));
                dot = __dp4a(w.of[6], high.z, __dp4a(w.of[7], high.w, dot));
                sum[t] = fmaf(w.scale * scales[t * blocks + block], (float)dot, sum[t]);
            }
        }
        __syncwarp(); /* all lanes have read this stage */
        load_stage(a, ahead, ring_address + slot * STAGE_BYTES);
        next_stage(ahead, steps, apart);
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        if (now.step + 1 == steps) {
            store_row<T>(a, now.row, sum);
#pragma unroll
            for (int t = 0; t < T; t++) sum[t] = 0;
        }
        next_stage(now, steps, apart);
    }
}

template <int T> static bool launch_q8(const row_list &a, const cuda_context *cuda)
{
    int shared = RING_BYTES + T * (a.cols + a.cols / Q8_0_BLOCK * (int)sizeof(float));
    unsigned blocks = (unsigned)min(cuda->multiprocessors, (a.first[a.n_parts] + WARPS - 1) / WARPS);
    if (shared > cuda->shared_bytes) return false;
    cudaFuncSetAttribute(linear_q8<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    launch(cuda, linear_q8<T>, dim3(blocks), WARPS * 32, (size_t)shared, a);
    return true;
}

bool linear_q8_cuda(const row_list &a, dtype format, int T, const cuda_context *cuda)
{
    if (format != DTYPE_Q8_0 || !rows_are_aligned(a) || !inputs_are_aligned(a)) return false;
    switch (T) {
    case 1: return launch_q8<1>(a, cuda);
    case 2: return launch_q8<2>(a, cuda);
    case 4: return launch_q8<4>(a, cuda);
    default: return false;
    }
}
