/* Matrix products of up to 16 tokens on the GPU, bound by reading the weights once: rows * cols * 2 bytes.
 *
 * One block of 8 warps per multiprocessor takes a run of tiles of 8 weight rows. The warps split the columns: in every
 * step warp w multiplies 128 of them, a lane 4 x 16 bytes of one row. Weights stream through a ring in shared memory
 * that each lane fills (cp.async) and reads for itself, so no barrier stands between the memory and the products; the
 * ring is filled before kernel_waits(), because weights depend on no kernel. Products run on tensor cores
 * (mma.m16n8k16: 16 tokens x 8 rows), with the columns of a 16-byte load taken in the order in which one lane holds
 * them, the same for weights and inputs: so the weights need no repacking, and 1 token costs what 16 cost.
 * The warps' sums meet in shared memory once per group of tiles.
 * RMSNorm: the weighted inputs are rounded without 1/rms, and the sums are scaled by it at the end. */
#include "ops/linear_few.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * 32,
    LOADS = 4,                          /* 16-byte loads per lane and step */
    STEP_COLS = WARPS * LOADS * 32,     /* 1024 columns per step of the block */
    STAGE_BYTES = THREADS * LOADS * 16, /* 16 KB */
    TILE_ROWS = 8,
    COLS_PAD = 128,   /* inputs are padded with zeros to a multiple of this */
    PITCH_PAD = 32    /* then 64 bytes more, so that 8 lanes of two tokens meet different banks */
};

typedef struct {
    const __nv_bfloat16 *w[LINEAR_MAX_PARTS];
    const float *bias[LINEAR_MAX_PARTS];
    int rows[LINEAR_MAX_PARTS], first_tile[LINEAR_MAX_PARTS + 1], out_col[LINEAR_MAX_PARTS];
    int n_parts, cols, pitch, T;
    int units;      /* tiles; pairs of gate and up tiles when gated */
    int group;      /* tiles whose sums are added up together; even */
    int group_sums; /* tokens * rows of a group: at most one per thread */
    float *out;
    const float *in;
    int out_stride, in_stride;
    const float *norm; /* NULL: none */
    float eps;
    const int32_t *row; /* NULL: token t reads row t */
    int accumulate, gated;
} few_args;

/* ---- Instructions -------------------------------------------------------------------------------------------- */

/* 16 bytes into shared memory, or zeros. */
static __device__ __forceinline__ void copy_16(void *to, const void *from, bool there)
{
    unsigned address = (unsigned)__cvta_generic_to_shared(to);
    int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes)
                 : "memory");
}

static __device__ __forceinline__ void copies_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* sum[16 tokens, 8 rows] += inputs[16 tokens, 16 columns] * weights[8 rows, 16 columns]^T */
static __device__ __forceinline__ void multiply(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2,
                                                unsigned a3, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* ---- Weights ------------------------------------------------------------------------------------------------- */

/* Where a lane's weights come from: its row of the current tile, advanced step by step. */
typedef struct {
    const __nv_bfloat16 *row; /* at this lane's first column */
    int tile, step;           /* the tile in the block's list (gate and up alternate when gated), and the step in it */
} cursor;

static __device__ __forceinline__ int part_of_tile(const few_args &a, int tile)
{
    int p = 0;
    while (p + 1 < a.n_parts && tile >= a.first_tile[p + 1]) p++;
    return p;
}

/* Tile `tile` of the op's list: its part, and its first row there. */
static __device__ __forceinline__ int locate(const few_args &a, int tile, int *first_row)
{
    int p = a.gated ? tile & 1 : part_of_tile(a, tile);
    *first_row = (a.gated ? tile >> 1 : tile - a.first_tile[p]) * TILE_ROWS;
    return p;
}

static __device__ __forceinline__ const __nv_bfloat16 *lane_row(const few_args &a, int tile)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first, p = locate(a, tile, &first);
    int row = min(first + lane / 4, a.rows[p] - 1); /* past the end: read something, store nothing */
    return a.w[p] + (size_t)row * a.cols + warp * (LOADS * 32) + lane % 4 * 8;
}

static __device__ __forceinline__ void fetch(const few_args &a, cursor *c, uint4 *stage, int last_tile, int steps)
{
    int column = c->step * STEP_COLS + threadIdx.x / 32 * (LOADS * 32) + threadIdx.x % 4 * 8;
    if (c->tile < last_tile) {
        const __nv_bfloat16 *from = c->row + c->step * STEP_COLS;
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            if (column - threadIdx.x % 4 * 8 < a.cols) /* the same for the whole warp */
                copy_16(stage + i * 32, from + i * 32, column + i * 32 < a.cols);
        if (++c->step == steps) {
            c->step = 0;
            if (++c->tile < last_tile) c->row = lane_row(a, c->tile);
        }
    }
    copies_commit();
}

/* ---- Inputs -------------------------------------------------------------------------------------------------- */

/* Threads that share a token's input, a power of two: 256 for one token, 32 from eight tokens on. */
static __device__ __forceinline__ int threads_per_token(int T)
{
    return T == 1 ? 256 : T == 2 ? 128 : T <= 4 ? 64 : 32;
}

static __device__ __forceinline__ uint2 narrow_4(float4 v)
{
    __nv_bfloat162 low = __floats2bfloat162_rn(v.x, v.y), high = __floats2bfloat162_rn(v.z, v.w);
    return make_uint2(*(unsigned *)&low, *(unsigned *)&high);
}

/* x[t, :] = bf16(in * norm), zeros up to the padded width; squares[t][8]: sums of squares by warp of the token. */
static __device__ __forceinline__ void stage_inputs(const few_args &a, __nv_bfloat16 *x, float (*squares)[8])
{
    int share = threads_per_token(a.T), at_once = THREADS / share, me = threadIdx.x % share;
    int padded = (a.cols + COLS_PAD - 1) / COLS_PAD * COLS_PAD;
    for (int t = threadIdx.x / share; t < a.T; t += at_once) {
        const float *in = a.in + (size_t)(a.row ? __ldcg(a.row + t) : t) * a.in_stride;
        __nv_bfloat16 *to = x + (size_t)t * a.pitch;
        float sum = 0;
#pragma unroll 4
        for (int k = me * 4; k < padded; k += share * 4) {
            float4 v = make_float4(0, 0, 0, 0);
            if (k < a.cols) {
                v = __ldcg((const float4 *)(in + k));
                if (a.norm) {
                    float4 w = *(const float4 *)(a.norm + k);
                    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
                    v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
                }
            }
            *(uint2 *)(to + k) = narrow_4(v);
        }
        if (a.norm) {
            sum = warp_sum(sum);
            if (threadIdx.x % 32 == 0) squares[t][me / 32] = sum;
        }
    }
}

static __device__ __forceinline__ float scale_of(const few_args &a, const float (*squares)[8], int t)
{
    float sum = 0;
    if (!a.norm) return 1;
    for (int i = 0; i < threads_per_token(a.T) / 32; i++) sum += squares[t][i];
    return 1.0f / sqrtf(sum / (float)a.cols + a.eps);
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* The sum that this thread finishes in a group: its place, and what is added to it. */
typedef struct {
    float *out; /* NULL: none */
    int sum, sum_up;
    float scale, bias, bias_up, old;
} result;

static __device__ __forceinline__ result result_of(const few_args &a, const float (*squares)[8], int first_tile,
                                                   int tiles)
{
    result r = {};
    int row_in_tile = threadIdx.x % TILE_ROWS, q = threadIdx.x / TILE_ROWS, unit = q / a.T, t = q - unit * a.T;
    int tile = a.gated ? unit * 2 : unit, first_row;
    if (tile >= tiles) return r;
    int p = locate(a, first_tile + tile, &first_row), row = first_row + row_in_tile;
    if (row >= a.rows[p]) return r;
    r.out = a.out + (size_t)t * a.out_stride + a.out_col[p] + row;
    r.sum = (tile * a.T + t) * TILE_ROWS + row_in_tile;
    r.sum_up = r.sum + a.T * TILE_ROWS;
    r.scale = scale_of(a, squares, t);
    r.bias = a.bias[p] ? a.bias[p][row] : 0;
    r.bias_up = a.gated && a.bias[1] ? a.bias[1][row] : 0;
    r.old = a.accumulate ? __ldcg(r.out) : 0;
    return r;
}

static __device__ __forceinline__ float add_up(const few_args &a, const float *sums, int i)
{
    float total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += sums[w * a.group_sums + i];
    return total;
}

static __device__ __forceinline__ void finish(const few_args &a, const result &r, const float *sums)
{
    if (!r.out) return;
    float v = add_up(a, sums, r.sum) * r.scale + r.bias;
    if (a.gated) {
        float up = add_up(a, sums, r.sum_up) * r.scale + r.bias_up;
        v = v / (1.0f + expf(-v)) * up;
    }
    *r.out = r.old + v;
}

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

/* One step: this lane's LOADS x 16 bytes against the inputs of the tokens that it holds. */
template <bool WIDE>
static __device__ __forceinline__ void multiply_step(float (&sum)[LOADS][4], const uint4 *stage,
                                                     const __nv_bfloat16 *x, const few_args &a)
{
    const uint4 zero = make_uint4(0, 0, 0, 0);
    int token = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        uint4 w = stage[i * 32];
        uint4 low = token < a.T ? *(const uint4 *)(x + i * 32) : zero;
        uint4 high = WIDE && token + 8 < a.T ? *(const uint4 *)(x + (size_t)8 * a.pitch + i * 32) : zero;
        multiply(sum[i], low.x, high.x, low.y, high.y, w.x, w.y);
        multiply(sum[i], low.z, high.z, low.w, high.w, w.z, w.w);
    }
}

/* The warp's sums of one tile into the group's buffer: [warp][tile, token, row]. */
template <bool WIDE>
static __device__ __forceinline__ void put_sums(float (&sum)[LOADS][4], float *sums, int tile, const few_args &a)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, token = lane / 4;
    float *to = sums + warp * a.group_sums + (tile * a.T + token) * TILE_ROWS + lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < (WIDE ? 2 : 1); half++) {
        float even = 0, odd = 0;
#pragma unroll
        for (int i = 0; i < LOADS; i++) even += sum[i][half * 2], odd += sum[i][half * 2 + 1];
        if (token + half * 8 < a.T) *(float2 *)(to + half * 8 * TILE_ROWS) = make_float2(even, odd);
    }
#pragma unroll
    for (int i = 0; i < LOADS; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0;
}

template <int STAGES, bool WIDE> static __global__ void __launch_bounds__(THREADS, 1) few(few_args a)
{
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ float squares[FEW_TOKENS][8];
    uint4 *ring = (uint4 *)shared + threadIdx.x / 32 * (LOADS * 32) + threadIdx.x % 32;
    float *sums = (float *)(shared + STAGES * STAGE_BYTES); /* two buffers, used in turn */
    __nv_bfloat16 *x = (__nv_bfloat16 *)(shared + STAGES * STAGE_BYTES + 2 * WARPS * sizeof(float) * a.group_sums);
    int per_unit = a.gated ? 2 : 1, steps = (a.cols + STEP_COLS - 1) / STEP_COLS;
    int first = (int)((long long)blockIdx.x * a.units / gridDim.x) * per_unit;
    int last = (int)((long long)(blockIdx.x + 1) * a.units / gridDim.x) * per_unit;
    cursor c = {lane_row(a, first), first, 0};
    kernel_begins();
#pragma unroll
    for (int i = 0; i < STAGES; i++) fetch(a, &c, ring + i * (STAGE_BYTES / 16), last, steps);
    kernel_waits();
    stage_inputs(a, x, squares);
    __syncthreads();

    int warp_cols = threadIdx.x / 32 * (LOADS * 32), slot = 0, buffer = 0;
    const __nv_bfloat16 *lane_x = x + (size_t)(threadIdx.x % 32 / 4) * a.pitch + warp_cols + threadIdx.x % 4 * 8;
    for (int group = first; group < last; group += a.group) {
        int tiles = min(a.group, last - group);
        float *mine = sums + buffer * (WARPS * a.group_sums);
        result r = result_of(a, squares, group, tiles);
        float sum[LOADS][4] = {};
        for (int tile = 0; tile < tiles; tile++) {
            for (int step = 0; step < steps; step++) {
                uint4 *stage = ring + slot * (STAGE_BYTES / 16);
                copies_wait<STAGES - 1>();
                if (step * STEP_COLS + warp_cols < a.cols)
                    multiply_step<WIDE>(sum, stage, lane_x + step * STEP_COLS, a);
                fetch(a, &c, stage, last, steps);
                slot = slot + 1 == STAGES ? 0 : slot + 1;
            }
            put_sums<WIDE>(sum, mine, tile, a);
        }
        __syncthreads();
        finish(a, r, mine);
        buffer ^= 1;
    }
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

template <int STAGES, bool WIDE>
static void launch_few(const few_args &a, size_t rest, int blocks, const cuda_context *cuda)
{
    size_t shared = (size_t)STAGES * STAGE_BYTES + rest;
    cudaFuncSetAttribute(few<STAGES, WIDE>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    launch(cuda, few<STAGES, WIDE>, dim3((unsigned)blocks), THREADS, shared, a);
}

template <bool WIDE> static void launch_stages(const few_args &a, int stages, size_t rest, int blocks,
                                               const cuda_context *cuda)
{
    if (stages <= 2)
        launch_few<2, WIDE>(a, rest, blocks, cuda);
    else if (stages == 3)
        launch_few<3, WIDE>(a, rest, blocks, cuda);
    else if (stages <= 5)
        launch_few<4, WIDE>(a, rest, blocks, cuda);
    else
        launch_few<6, WIDE>(a, rest, blocks, cuda);
}

/* As many stages as the block has steps, at most 6: a ring no larger than needed leaves room for the next kernel's. */
static bool start(few_args *a, const cuda_context *cuda)
{
    int blocks = a->units < cuda->multiprocessors ? a->units : cuda->multiprocessors;
    int tiles = (a->units + blocks - 1) / blocks * (a->gated ? 2 : 1);
    int stages = tiles * ((a->cols + STEP_COLS - 1) / STEP_COLS);
    a->group = FEW_TOKENS * 2 / a->T & ~1;
    a->group_sums = (tiles < a->group ? tiles : a->group) * a->T * TILE_ROWS;
    size_t rest = 2 * WARPS * sizeof(float) * (size_t)a->group_sums +
                  (size_t)a->T * (size_t)a->pitch * sizeof(__nv_bfloat16);
    int room = rest < (size_t)cuda->shared_bytes ? (int)((cuda->shared_bytes - 1024 - rest) / STAGE_BYTES) : 0;
    if (stages > 6) stages = 6;
    if (stages > room) stages = room;
    if (room < 2) return false;
    if (a->T > 8)
        launch_stages<true>(*a, stages, rest, blocks, cuda);
    else
        launch_stages<false>(*a, stages, rest, blocks, cuda);
    return true;
}

static bool describe(few_args *out, const op_linear_args *l, bool gated)
{
    few_args a = {};
    if (l->T > FEW_TOKENS || l->in_stride % 4 != 0 || (uintptr_t)l->in % 16 != 0) return false;
    for (int p = 0; p < l->n_parts; p++) {
        const weight *w = l->part[p].w;
        if (w->format != DTYPE_BF16 || w->cols % 8 != 0 || (uintptr_t)w->data % 16 != 0) return false;
        a.w[p] = (const __nv_bfloat16 *)w->data;
        a.bias[p] = l->part[p].bias;
        a.rows[p] = w->rows;
        a.out_col[p] = gated ? 0 : l->part[p].out_col;
        a.first_tile[p + 1] = a.first_tile[p] + (w->rows + TILE_ROWS - 1) / TILE_ROWS;
        a.cols = w->cols;
    }
    a.n_parts = l->n_parts;
    a.units = a.first_tile[gated ? 1 : a.n_parts];
    a.pitch = (a.cols + COLS_PAD - 1) / COLS_PAD * COLS_PAD + PITCH_PAD;
    a.T = l->T;
    a.out = l->out;
    a.in = l->in;
    a.out_stride = l->out_stride;
    a.in_stride = l->in_stride;
    a.accumulate = l->accumulate;
    a.gated = gated;
    *out = a;
    return true;
}

bool linear_few_cuda(const op_linear_args *l, const cuda_context *cuda)
{
    few_args a;
    return describe(&a, l, false) && start(&a, cuda);
}

bool norm_linear_few_cuda(const op_norm_linear_args *n, const cuda_context *cuda)
{
    few_args a;
    if (!describe(&a, &n->linear, n->gated)) return false;
    a.norm = n->norm;
    a.eps = n->eps;
    a.row = n->row;
    return (uintptr_t)a.norm % 16 == 0 && start(&a, cuda);
}
