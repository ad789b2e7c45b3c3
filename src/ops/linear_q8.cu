/* Q8_0 products of up to 4 tokens on the GPU, alone and with the norm before them, bound by reading the weights once: 34
 * bytes for 32 of them.
 *
 * A warp takes whole rows (a row of gate and its row of up), a lane one block of 32 weights at a time. Blocks are 34 bytes
 * and so not aligned for wide loads: rows pass through a ring in shared memory in stages of 32 blocks (1,088 bytes, copied
 * 16 bytes at a time), out of which each lane picks the 9 words around its block. The ring is filled before kernel_waits(),
 * because weights depend on no kernel. Inputs are rounded to int8 in blocks of 32 as ggml does, once per block of threads;
 * products within a block of weights are exact (dp4a).
 * RMSNorm: the weighted inputs are rounded without 1/rms, which changes no int8, and the sums are scaled by it at the end. */
#include "ops/linear_q8.cuh"

enum {
    WARPS = 8,
    STAGE_BLOCKS = 32,
    STAGE_BYTES = STAGE_BLOCKS * Q8_0_BLOCK_BYTES,
    STAGES = 6,
    AHEAD = 4, /* 16-byte loads of inputs in flight per lane */
    RING_BYTES = WARPS * STAGES * STAGE_BYTES
};

/* The row that a warp takes after this one; up follows gate. */
static __device__ __forceinline__ int next_row(const row_list &a, int row)
{
    int apart = (int)gridDim.x * WARPS;
    if (!a.gated) return row + apart;
    return row % 2 ? row + apart * 2 - 1 : row + 1;
}

/* A warp's loads, stage by stage: all of a row, then the next row. */
typedef struct {
    const char *from; /* this lane's first bytes of the stage */
    int row, left;    /* bytes of the row from the stage on */
} load_place;

static __device__ __forceinline__ load_place begin_row(const row_list &a, int row)
{
    bool there = row < a.first[a.n_parts];
    return {data_of_row(a, there ? row : 0) + threadIdx.x % 32 * 16, row, (int)a.row_bytes};
}

/* `to`: this lane's place in the stage. Stages past the last row are empty groups. */
static __device__ __forceinline__ void load_stage(const row_list &a, load_place &p, uint32_t to)
{
    enum { ALL_LANES = 32 * 16, COPIES = (STAGE_BYTES + ALL_LANES - 1) / ALL_LANES };
    if (p.row < a.first[a.n_parts]) {
        int mine = min(p.left, (int)STAGE_BYTES) - (int)threadIdx.x % 32 * 16;
#pragma unroll
        for (int i = 0; i < COPIES; i++)
            if (i * ALL_LANES < mine) async_copy_l2_128(to + i * ALL_LANES, p.from + i * ALL_LANES, 16);
        p.from += STAGE_BYTES;
        p.left -= STAGE_BYTES;
        if (p.left <= 0) p = begin_row(a, next_row(a, p.row));
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

/* The norm's weights into shared memory, before the wait: they come from memory, not from a kernel. */
static __device__ __forceinline__ void load_norm(const row_list &a, float *norm)
{
    for (int k = threadIdx.x * 4; a.norm && k < a.cols; k += WARPS * 32 * 4)
        async_copy_l2_128(shared_address(norm + k), a.norm + k, 16);
    async_copy_commit();
}

/* The inputs in shared memory: int8 [TOKENS, cols], then scales [TOKENS, cols / 32]. A token has WARPS / TOKENS warps; one
 * takes AHEAD times four blocks of 32 at a time, so that few loads wait for each other. Squares are added up in 8 classes of
 * columns, which are the same for any number of tokens: so are the bits of their sum. */
template <int TOKENS>
static __device__ __forceinline__ void round_inputs(const row_list &a, const float *norm, uint32_t *rounded,
                                                    float *scales, float (&squares)[TOKENS][WARPS])
{
    enum { EACH = WARPS / TOKENS };
    const int lane = threadIdx.x % 32, part = lane % Q8_LANES, blocks = a.cols / Q8_0_BLOCK;
    const int t = threadIdx.x / 32 / EACH, me = threadIdx.x / 32 % EACH;
    if (t >= a.T) return;
    const float *in = inputs_of(a, t) + part * 4;
    float square[TOKENS] = {};
    for (int first = me * 4; first < blocks; first += AHEAD * EACH * 4) {
        float4 x[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int b = first + i * EACH * 4 + lane / Q8_LANES;
            x[i] = b < blocks ? __ldcg((const float4 *)(in + b * Q8_0_BLOCK)) : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int b = first + i * EACH * 4 + lane / Q8_LANES;
            float4 v = x[i];
            if (a.norm && b < blocks) {
                float4 w = *(const float4 *)(norm + b * Q8_0_BLOCK + part * 4);
                square[i % TOKENS] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
                v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
            }
            q8_four r = round_four(v);
            if (b >= blocks) continue;
            rounded[(t * blocks + b) * Q8_LANES + part] = r.four;
            if (part == 0) scales[t * blocks + b] = r.scale;
        }
    }
    if (!a.norm) return;
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        float sum = warp_sum(square[i]);
        if (lane == 0) squares[t][i * EACH + me] = sum;
    }
}

/* A block of weights with the block's inputs of every token. */
template <int TOKENS>
static __device__ __forceinline__ void multiply_add(float (&sum)[TOKENS], const q8_block &w,
                                                    const int8_t *rounded, const float *scales, int cols,
                                                    int block)
{
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        const int4 *x = (const int4 *)(rounded + t * cols + block * Q8_0_BLOCK);
        int4 low = x[0], high = x[1];
        int dot = __dp4a(w.of[0], low.x, __dp4a(w.of[1], low.y, __dp4a(w.of[2], low.z, 0)));
        dot = __dp4a(w.of[3], low.w, __dp4a(w.of[4], high.x, __dp4a(w.of[5], high.y, dot)));
        dot = __dp4a(w.of[6], high.z, __dp4a(w.of[7], high.w, dot));
        sum[t] = fmaf(w.scale * scales[t * (cols / Q8_0_BLOCK) + block], (float)dot, sum[t]);
    }
}

/* Shared memory: the warps' rings, rounded inputs, the norm's weights, the inputs' scales. TOKENS: at least a.T. */
template <int TOKENS>
static __global__ void __launch_bounds__(WARPS * 32) linear_q8(const __grid_constant__ row_list a)
{
    unsigned char *shared = dynamic_shared<16>();
    float(&squares)[TOKENS][WARPS] = block_shared<token_squares<WARPS, TOKENS>>().of;
    int8_t *rounded = (int8_t *)(shared + RING_BYTES);
    float *norm = (float *)(rounded + TOKENS * a.cols), *scales = norm + (a.norm ? a.cols : 0);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rows = a.first[a.n_parts], slot = 0;
    int blocks = a.cols / Q8_0_BLOCK, row = ((int)blockIdx.x * WARPS + warp) * (a.gated ? 2 : 1);
    unsigned char *ring = shared + warp * STAGES * STAGE_BYTES;
    uint32_t lane_ring = shared_address(ring) + lane * 16;
    load_place ahead = begin_row(a, row);
    kernel_begins();
    load_norm(a, norm);
#pragma unroll 1
    for (int i = 0; i < STAGES; i++) load_stage(a, ahead, lane_ring + i * STAGE_BYTES);
    async_copy_wait<STAGES>();
    __syncthreads(); /* the norm's weights are there */
    kernel_waits();
    round_inputs<TOKENS>(a, norm, (uint32_t *)rounded, scales, squares);
    __syncthreads();
    float sum[TOKENS] = {}, gate[TOKENS] = {}, scale[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        const float(&s)[WARPS] = squares[t];
        scale[t] = scale_of_squares(a, ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
    }
    for (int first = 0; row < rows;) { /* first: block of the stage */
        async_copy_wait<STAGES - 1>();
        __syncwarp(); /* all lanes' copies of this stage are there */
        if (first + lane < blocks)
            multiply_add<TOKENS>(sum, read_block(ring + slot * STAGE_BYTES), rounded, scales, a.cols,
                                 first + lane);
        __syncwarp(); /* all lanes have read this stage */
        load_stage(a, ahead, lane_ring + slot * STAGE_BYTES);
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        first += STAGE_BLOCKS;
        if (first < blocks) continue;
        bool is_gate = a.gated && row % 2 == 0;
        if (!is_gate) store_row<TOKENS>(a, row, sum, gate, scale);
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            gate[t] = sum[t];
            sum[t] = 0;
        }
        first = 0;
        row = next_row(a, row);
    }
}

/* false: shared memory does not hold the inputs. */
template <int TOKENS> static bool launch_q8(const row_list &a, const cuda_context *cuda)
{
    int scales = a.cols / Q8_0_BLOCK * (int)sizeof(float), norm = a.norm ? a.cols * (int)sizeof(float) : 0;
    int64_t shared = RING_BYTES + (int64_t)TOKENS * (a.cols + scales) + norm;
    int outputs = a.first[a.n_parts] / (a.gated ? 2 : 1);
    unsigned blocks = (unsigned)min(cuda->multiprocessors, (outputs + WARPS - 1) / WARPS);
    if (shared + (int)sizeof(token_squares<WARPS, TOKENS>) > cuda->shared_bytes) return false;
    cudaFuncSetAttribute(linear_q8<TOKENS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    launch(cuda, linear_q8<TOKENS>, dim3(blocks), WARPS * 32, (size_t)shared, a);
    return true;
}

int linear_q8_cuda(const row_list &a, dtype format, const cuda_context *cuda)
{
    if (format != DTYPE_Q8_0 || !rows_are_aligned(a) || !inputs_are_aligned(a)) return 0;
    row_list some = a;
    some.T = min(a.T, 4);
    if (some.T > 2 && launch_q8<4>(some, cuda)) return some.T;
    some.T = min(a.T, 2);
    if (some.T > 1 && launch_q8<2>(some, cuda)) return some.T;
    some.T = 1;
    return launch_q8<1>(some, cuda) ? 1 : 0;
}
