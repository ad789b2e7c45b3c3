/* Q8_0 products of up to 4 tokens on the GPU, alone and with the norm before them, bound by reading the weights once: 34
 * bytes for 32 of them.
 *
 * A warp takes whole rows, one at a time, or two side by side where a row has no work for more than half of its lanes
 * (ROWS). A lane takes two blocks of 32 weights at a time: 68 bytes, 17 words, and 17 is odd, so 32 lanes that read their
 * words one after the other meet 32 banks. Rows pass through a ring in shared memory, which is filled before
 * kernel_waits(), because weights depend on no kernel.
 * Inputs are rounded to int8 in blocks of 32 as ggml does, once per block of threads, and lie in shared memory as weights
 * do, with zeros where those have their scales. So words of weights and of inputs are multiplied as they are: no word has
 * weights of both blocks. Products within a block are exact (dp4a).
 * RMSNorm: the weighted inputs are rounded without 1/rms, which changes no int8, and the sums are scaled by it at the end.
 *
 * Shared memory is what bounds a multiprocessor: 2,176 bytes of a row are 17 cycles to write, 17 to read and 17 for the
 * inputs, 42 bytes per cycle, of which 4.4 TB/s on 132 of 1.75 GHz need 19. Fewer than 16 warps do not keep it busy, and
 * deeper rings are no faster: three stages of all of them are 14 MB on their way. */
#include "ops/linear_q8.cuh"

enum {
    WARPS = 16,
    PAIR_WORDS = 2 * Q8_0_BLOCK_BYTES / 4,
    PAIR_BYTES = PAIR_WORDS * 4,
    STAGE_BYTES = 32 * PAIR_BYTES, /* of a warp */
    FEWEST_STAGES = 1,
    MOST_STAGES = 3,
    AHEAD = 4 /* 16-byte loads of inputs in flight per lane */
};

typedef struct {
    row_list rows;
    int stages; /* of the ring, FEWEST_STAGES to MOST_STAGES */
    int pairs;  /* of blocks in a row, the last perhaps with one */
} q8_few_args;

/* ---- Weights ------------------------------------------------------------------------------------------------- */

/* The first row that a warp takes after this one. Two rows at a time: gate and its up; one at a time: up follows gate. */
template <int ROWS> static __device__ __forceinline__ int next_row(const row_list &a, int row)
{
    int apart = (int)gridDim.x * WARPS;
    if (ROWS == 2) return row + apart * 2;
    if (!a.gated) return row + apart;
    return row % 2 ? row + apart * 2 - 1 : row + 1;
}

/* A lane's loads, stage by stage: all of a row, then its next row. */
typedef struct {
    const char *from; /* its first bytes of the stage */
    int row;          /* the warp's first */
    int left;         /* bytes of the row from the stage on; none where there is no row */
} load_place;

template <int ROWS> static __device__ __forceinline__ load_place begin_row(const row_list &a, int row)
{
    const int lanes = 32 / ROWS, mine = row + (int)threadIdx.x % 32 / lanes;
    bool there = mine < a.first[a.n_parts];
    return {data_of_row(a, there ? mine : 0) + threadIdx.x % lanes * 16, row, there ? (int)a.row_bytes : 0};
}

/* `to`: this lane's place in the stage. Stages past the last row are empty groups. */
template <int ROWS>
static __device__ __forceinline__ void load_stage(const row_list &a, load_place &p, uint32_t to)
{
    enum { LANES = 32 / ROWS, BYTES = STAGE_BYTES / ROWS, AT_ONCE = LANES * 16 };
    if (p.row < a.first[a.n_parts]) {
        int mine = min(p.left, (int)BYTES) - (int)threadIdx.x % LANES * 16;
#pragma unroll
        for (int i = 0; i < (BYTES + AT_ONCE - 1) / AT_ONCE; i++)
            if (i * AT_ONCE < mine) async_copy_l2_128(to + i * AT_ONCE, p.from + i * AT_ONCE, 16);
        p.from += BYTES;
        p.left -= BYTES;
        if (ROWS == 2 || p.left <= 0) p = begin_row<ROWS>(a, next_row<ROWS>(a, p.row));
    }
    async_copy_commit();
}

/* Of this thread's last `groups` groups of copies the first has arrived, and all before it. */
static __device__ __forceinline__ void wait_for_first_of(int groups)
{
    switch (groups) {
    case 1: async_copy_wait<0>(); break;
    case 2: async_copy_wait<1>(); break;
    case 3: async_copy_wait<2>(); break;
    default: async_copy_wait<3>(); break;
    }
}

/* ---- Inputs -------------------------------------------------------------------------------------------------- */

/* The norm's weights into shared memory, before the wait: they come from memory, not from a kernel. */
static __device__ __forceinline__ void load_norm(const row_list &a, float *norm)
{
    for (int k = threadIdx.x * 4; a.norm && k < a.cols; k += WARPS * 32 * 4)
        async_copy_l2_128(shared_address(norm + k), a.norm + k, 16);
    async_copy_commit();
}

/* Four inputs of block b, as a block of weights has them: behind two bytes that are zero. */
static __device__ __forceinline__ void put_four(unsigned char *rounded, int b, int part, uint32_t four)
{
    uint16_t *to = (uint16_t *)(rounded + b * Q8_0_BLOCK_BYTES);
    if (part == 0) to[0] = 0;
    to[1 + part * 2] = (uint16_t)four;
    to[2 + part * 2] = (uint16_t)(four >> 16);
}

/* The inputs in shared memory: int8 [TOKENS, pairs] as above, and scales [TOKENS, pairs * 2]; a block past the last is
 * zero. A token has WARPS / TOKENS warps; one takes AHEAD times four blocks of 32 at a time, so that few loads wait for each
 * other. Squares are added up in WARPS classes of columns, which are the same for any number of tokens: so are the bits of
 * their sum. */
template <int TOKENS>
static __device__ __forceinline__ void round_inputs(const row_list &a, int pairs, const float *norm,
                                                    unsigned char *rounded, float *scales,
                                                    float (&squares)[TOKENS][WARPS])
{
    enum { EACH = WARPS / TOKENS };
    const int lane = threadIdx.x % 32, part = lane % Q8_LANES, blocks = a.cols / Q8_0_BLOCK;
    const int t = threadIdx.x / 32 / EACH, me = threadIdx.x / 32 % EACH;
    if (t >= a.T) return;
    const float *in = inputs_of(a, t) + part * 4;
    float square[TOKENS] = {};
    for (int first = me * 4; first < pairs * 2; first += AHEAD * EACH * 4) {
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
            if (first + i * EACH * 4 >= pairs * 2) break;
            if (a.norm && b < blocks) {
                float4 w = *(const float4 *)(norm + b * Q8_0_BLOCK + part * 4);
                square[i % TOKENS] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
                v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
            }
            q8_four r = round_four(v);
            if (b >= pairs * 2) continue;
            put_four(rounded + t * pairs * PAIR_BYTES, b, part, r.four);
            if (part == 0) scales[t * pairs * 2 + b] = r.scale;
        }
    }
    if (!a.norm) return;
#pragma unroll
    for (int i = 0; i < TOKENS; i++) {
        float sum = warp_sum(square[i]);
        if (lane == 0) squares[t][i * EACH + me] = sum;
    }
}

/* ---- Products ------------------------------------------------------------------------------------------------ */

/* Two blocks of weights, or one at the end of a row (`both` false), with the inputs of every token. Word 0 has the first
 * one's scale and two weights, word 8 its last two and the other's scale. */
template <int TOKENS>
static __device__ __forceinline__ void multiply_add(float (&sum)[TOKENS], const uint32_t *weights,
                                                    const uint32_t *rounded, const float2 *scales, int pairs,
                                                    int pair, bool both)
{
    int w[PAIR_WORDS];
#pragma unroll
    for (int i = 0; i < PAIR_WORDS; i++) w[i] = (int)weights[i];
    __half_raw first, second;
    first.x = (unsigned short)w[0];
    second.x = (unsigned short)(both ? (uint32_t)w[8] >> 16 : 0); /* what is not there may be no number */
    const float first_scale = __half2float(__half(first)), second_scale = __half2float(__half(second));
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        const uint32_t *x = rounded + (t * pairs + pair) * PAIR_WORDS;
        float2 x_scale = scales[t * pairs + pair];
        int dot[2] = {};
#pragma unroll
        for (int i = 0; i < PAIR_WORDS; i++) dot[i / 9] = __dp4a(w[i], (int)x[i], dot[i / 9]);
        sum[t] = fmaf(first_scale * x_scale.x, (float)dot[0], sum[t]);
        sum[t] = fmaf(second_scale * x_scale.y, (float)dot[1], sum[t]);
    }
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* What a row's sums meet at its end, asked for at its beginning. */
typedef struct {
    float bias, old; /* old: of the lane's token */
    float *out;      /* the same; NULL: none */
} result;

template <int ROWS> static __device__ __forceinline__ result place_result(const row_list &a, int row)
{
    const int lanes = 32 / ROWS, lane = threadIdx.x % lanes, mine = row + (int)threadIdx.x % 32 / lanes;
    result r = {0, 0, NULL};
    if (mine >= a.first[a.n_parts]) return r;
    int n, p = part_of_row(a, mine, &n);
    if (a.bias[p]) r.bias = a.bias[p][n];
    if (lane >= a.T || (a.gated && p == 0)) return r;
    r.out = a.out + (size_t)lane * a.out_stride + a.out_col[p] + n;
    if (a.accumulate) r.old = __ldcg(r.out);
    return r;
}

/* The lanes' sums of a row are added up, and lane t stores token t's. `gate`: of the row before, and then this row's. */
template <int TOKENS, int ROWS>
static __device__ __forceinline__ void finish_row(const row_list &a, const result &r,
                                                  const float (&sum)[TOKENS], float (&gate)[TOKENS],
                                                  const float (&scale)[TOKENS])
{
    const int lanes = 32 / ROWS;
    float mine = 0;
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        float v = sum[t];
#pragma unroll
        for (int apart = lanes / 2; apart > 0; apart >>= 1) v += __shfl_xor_sync(0xffffffffu, v, apart);
        v = v * scale[t] + r.bias;
        if (ROWS == 2 && a.gated) gate[t] = __shfl_xor_sync(0xffffffffu, v, lanes);
        if ((int)threadIdx.x % lanes == t) mine = a.gated ? silu_times(gate[t], v) : v;
        gate[t] = v;
    }
    if (r.out) *r.out = r.old + mine;
}

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

/* Shared memory: the warps' rings, the norm's weights, the inputs' scales, rounded inputs. TOKENS: at least a.T. */
template <int TOKENS, int ROWS>
static __global__ void __launch_bounds__(WARPS * 32) linear_q8(const __grid_constant__ q8_few_args args)
{
    enum { LANES = 32 / ROWS };
    const row_list &a = args.rows;
    unsigned char *shared = dynamic_shared<16>();
    float(&squares)[TOKENS][WARPS] = block_shared<token_squares<WARPS, TOKENS>>().of;
    float *norm = (float *)(shared + WARPS * args.stages * STAGE_BYTES),
          *scales = norm + (a.norm ? a.cols : 0);
    unsigned char *rounded = (unsigned char *)(scales + TOKENS * args.pairs * 2);
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / 32, rows = a.first[a.n_parts];
    int row = ((int)blockIdx.x + (int)gridDim.x * warp) * (a.gated ? 2 : ROWS), slot = 0;
    unsigned char *ring =
        shared + warp * args.stages * STAGE_BYTES + threadIdx.x % 32 / LANES * (STAGE_BYTES / ROWS);
    const uint32_t lane_ring = shared_address(ring) + lane * 16;
    load_place ahead = begin_row<ROWS>(a, row);
    kernel_begins();
    load_norm(a, norm);
#pragma unroll 1
    for (int i = 0; i < args.stages; i++) load_stage<ROWS>(a, ahead, lane_ring + i * STAGE_BYTES);
    wait_for_first_of(args.stages + 1); /* the norm's weights */
    __syncthreads();
    kernel_waits();
    result r = place_result<ROWS>(a, row);
    round_inputs<TOKENS>(a, args.pairs, norm, rounded, scales, squares);
    __syncthreads();
    float sum[TOKENS] = {}, gate[TOKENS] = {}, scale[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        float all = 0;
#pragma unroll
        for (int i = 0; i < WARPS; i++) all += squares[t][i];
        scale[t] = scale_of_squares(a, all);
    }
    for (int pair = lane; row < rows;) {
        wait_for_first_of(args.stages);
        __syncwarp(); /* all lanes' copies of this stage are there */
        if (pair < args.pairs)
            multiply_add<TOKENS>(sum, (const uint32_t *)(ring + slot * STAGE_BYTES) + lane * PAIR_WORDS,
                                 (const uint32_t *)rounded, (const float2 *)scales, args.pairs, pair,
                                 (pair * 2 + 1) * Q8_0_BLOCK < a.cols);
        __syncwarp(); /* all lanes have read this stage */
        load_stage<ROWS>(a, ahead, lane_ring + slot * STAGE_BYTES);
        slot = slot + 1 == args.stages ? 0 : slot + 1;
        pair += LANES;
        if (pair - lane < args.pairs) continue;
        finish_row<TOKENS, ROWS>(a, r, sum, gate, scale);
#pragma unroll
        for (int t = 0; t < TOKENS; t++) sum[t] = 0;
        pair = lane;
        row = next_row<ROWS>(a, row);
        r = place_result<ROWS>(a, row);
    }
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

/* false: shared memory does not hold the inputs. */
template <int TOKENS, int ROWS> static bool launch_rows(const row_list &rows, const cuda_context *cuda)
{
    q8_few_args a = {};
    const int outputs = rows.first[rows.n_parts] / (rows.gated ? 2 : 1), at_once = rows.gated ? 1 : ROWS;
    int blocks = min(cuda->multiprocessors, (outputs + at_once - 1) / at_once);
    a.rows = rows;
    a.pairs = (rows.cols + 2 * Q8_0_BLOCK - 1) / (2 * Q8_0_BLOCK);
    int64_t rest = (int64_t)TOKENS * a.pairs * (PAIR_BYTES + 2 * (int)sizeof(float)) +
                   (rows.norm ? (int)sizeof(float) : 0) * (int64_t)rows.cols;
    int64_t room = cuda->shared_bytes - (int)sizeof(token_squares<WARPS, TOKENS>) - rest;
    if (room < FEWEST_STAGES * WARPS * STAGE_BYTES) return false;
    a.stages = min((int)room / (WARPS * STAGE_BYTES), (int)MOST_STAGES);
    int shared = a.stages * WARPS * STAGE_BYTES + (int)rest;
    cudaFuncSetAttribute(linear_q8<TOKENS, ROWS>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    launch(cuda, linear_q8<TOKENS, ROWS>, dim3((unsigned)blocks), WARPS * 32, (size_t)shared, a);
    return true;
}

template <int TOKENS> static bool launch_q8(const row_list &a, const cuda_context *cuda)
{
    return a.cols <= 32 * Q8_0_BLOCK ? launch_rows<TOKENS, 2>(a, cuda) : launch_rows<TOKENS, 1>(a, cuda);
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
