/* Matrix products of up to 4 tokens on the GPU, bound by reading the weights once: rows * cols * 2 bytes, and for short
 * products by latency: what stands between kernel_waits() and the results is kept short.
 *
 * One block of 8 warps per multiprocessor takes a run of tiles of 8 weight rows. The warps split the columns: in every
 * step warp w multiplies 128 of them, a lane 4 x 16 bytes of one row. Weights stream through a ring in shared memory
 * that each lane fills (cp.async) and reads for itself, so no barrier stands between the memory and the products; the
 * ring is filled before kernel_waits(), because weights depend on no kernel. Products run on tensor cores
 * (mma.m16n8k16: up to 16 tokens x 8 rows), with the columns of a 16-byte load taken in the order in which one lane holds
 * them, the same for weights and inputs: so the weights need no repacking.
 * The warps' sums meet in shared memory once per group of tiles.
 * RMSNorm: the weighted inputs are rounded without 1/rms, and the sums are scaled by it at the end. */
#include "ops/linear_few.cuh"
#include "ops/linear_stream.cuh"

enum { PITCH_PAD = 32 }; /* 64 bytes, so that 8 lanes of two tokens meet different banks */

typedef struct {
    const __nv_bfloat16 *w[LINEAR_MAX_PARTS];
    const float *bias[LINEAR_MAX_PARTS];
    int rows[LINEAR_MAX_PARTS], first_tile[LINEAR_MAX_PARTS + 1], out_col[LINEAR_MAX_PARTS];
    int n_parts, cols, pitch, T;
    int units;      /* tiles; pairs of gate and up tiles when gated */
    int group_sums; /* TOKENS * rows of a group of tiles: at most one per thread */
    float per_cols; /* 1 / cols */
    float *out;
    const float *in;
    int out_stride, in_stride;
    const float *norm; /* NULL: none */
    float eps;
    const int32_t *row; /* NULL: token t reads row t */
    int accumulate, gated;
} few_args;

/* ---- Weights ------------------------------------------------------------------------------------------------- */

/* Where a lane's next weights come from: its row of a tile, advanced step by step. */
typedef struct {
    const __nv_bfloat16 *row; /* at this lane's first column */
    int tile, last;           /* tiles in the op's list: gate and up alternate when gated */
    int step;                 /* in the tile */
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
    return a.w[p] + (size_t)row * a.cols + warp * WARP_COLS + lane % 4 * 8;
}

/* The cursor's step into a stage of the ring, and on to the next. */
static __device__ __forceinline__ void fetch(const few_args &a, cursor *c, uint4 *stage, int steps)
{
    if (c->tile < c->last) {
        int warp_column = c->step * STEP_COLS + threadIdx.x / 32 * WARP_COLS;
        int column = warp_column + threadIdx.x % 4 * 8;
        const __nv_bfloat16 *from = c->row + c->step * STEP_COLS;
#pragma unroll
        for (int i = 0; i < LOADS; i++)
            if (warp_column < a.cols) copy_16(stage + i * 32, from + i * 32, column + i * 32 < a.cols);
        if (++c->step == steps) {
            c->step = 0;
            if (++c->tile < c->last) c->row = lane_row(a, c->tile);
        }
    }
    async_copy_commit();
}

/* ---- Inputs -------------------------------------------------------------------------------------------------- */

/* The norm's weights into shared memory, before the wait: they come from memory, not from a kernel. */
static __device__ __forceinline__ void fetch_norm(const few_args &a, float *norm)
{
    for (int k = threadIdx.x * 4; a.norm && k < a.cols; k += STREAM_THREADS * 4)
        copy_16(norm + k, a.norm + k, true);
    async_copy_commit();
}

/* x[t, :] = bf16(in * norm), zeros up to the padded width; squares[t][8]: sums of squares by warp of the token. `in`: at
 * this thread's first column of its token. Loads are issued together: one round for 4096 columns of one token. */
template <int TOKENS>
static __device__ __forceinline__ void stage_inputs(const few_args &a, const float *in, const float *norm,
                                                    __nv_bfloat16 *x, float (*squares)[8])
{
    enum { AT_ONCE = 4, SHARE = STREAM_THREADS / TOKENS };
    int t = threadIdx.x / SHARE, me = threadIdx.x % SHARE;
    int padded = (a.cols + COLS_PAD - 1) / COLS_PAD * COLS_PAD;
    if (t >= a.T) return;
    __nv_bfloat16 *to = x + t * a.pitch;
    float sum = 0;
    for (int first = me * 4; first < padded; first += SHARE * 4 * AT_ONCE) {
        float4 v[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int k = first + i * SHARE * 4;
            v[i] = k < a.cols ? __ldcg((const float4 *)(in + (k - me * 4))) : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int k = first + i * SHARE * 4;
            float4 u = v[i];
            if (k >= padded) break;
            if (a.norm) {
                sum += u.x * u.x + u.y * u.y + u.z * u.z + u.w * u.w;
                float4 w = *(const float4 *)(norm + k);
                u = make_float4(u.x * w.x, u.y * w.y, u.z * w.z, u.w * w.w);
                if (k >= a.cols) u = make_float4(0, 0, 0, 0);
            }
            *(uint2 *)(to + k) = narrow_4(u);
        }
    }
    if (!a.norm) return;
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) squares[t][me / 32] = sum;
}

/* 1/rms of a token; the squares of warps that have no part in it are zero. */
static __device__ __forceinline__ float scale_of(const few_args &a, const float (*squares)[8], int t)
{
    float4 low = *(const float4 *)squares[t], high = *(const float4 *)(squares[t] + 4);
    float sum = (low.x + low.y) + (low.z + low.w) + ((high.x + high.y) + (high.z + high.w));
    return a.norm ? rsqrtf(sum * a.per_cols + a.eps) : 1.0f;
}

/* ---- Results ------------------------------------------------------------------------------------------------- */

/* The sum that this thread finishes in a group: its place, and what is added to it. */
typedef struct {
    int at; /* in the output, -1: none */
    int sum, t, up_row;
    float bias, old;
} result;

/* All but `old`: needs nothing that a kernel writes. */
template <int TOKENS>
static __device__ __forceinline__ result place_result(const few_args &a, int first_tile, int tiles)
{
    result r = {-1, 0, 0, 0, 0, 0};
    int q = threadIdx.x / TILE_ROWS, unit = q / TOKENS;
    int row_in_tile = threadIdx.x % TILE_ROWS, tile = a.gated ? unit * 2 : unit, first_row;
    r.t = q % TOKENS;
    if (tile >= tiles || r.t >= a.T) return r;
    int p = locate(a, first_tile + tile, &first_row), row = first_row + row_in_tile;
    if (row >= a.rows[p]) return r;
    r.at = r.t * a.out_stride + a.out_col[p] + row;
    r.up_row = row;
    r.sum = (tile * TOKENS + r.t) * TILE_ROWS + row_in_tile;
    r.bias = a.bias[p] ? a.bias[p][row] : 0;
    return r;
}

static __device__ __forceinline__ float add_up(const few_args &a, const float *sums, int i)
{
    float total = 0;
#pragma unroll
    for (int w = 0; w < STREAM_WARPS; w++) total += sums[w * a.group_sums + i];
    return total;
}

template <int TOKENS>
static __device__ __forceinline__ void finish(const few_args &a, const result &r, const float *sums,
                                              const float (*squares)[8])
{
    if (r.at < 0) return;
    float scale = scale_of(a, squares, r.t), v = add_up(a, sums, r.sum) * scale + r.bias;
    if (a.gated) {
        float up = add_up(a, sums, r.sum + TOKENS * TILE_ROWS) * scale;
        if (a.bias[1]) up += a.bias[1][r.up_row];
        v = v * __fdividef(1.0f, 1.0f + __expf(-v)) * up; /* e^-v = inf gives 0 */
    }
    a.out[r.at] = r.old + v;
}

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

/* Sums of squares of a token by warp: read 16 bytes at a time. */
template <int TOKENS> struct token_squares {
    alignas(16) float of[TOKENS][8];
};

/* TOKENS: 1, 2 or 4, at least T. */
template <int STAGES, int TOKENS>
static __global__ void __maxnreg__(72) few(const __grid_constant__ few_args a)
{
    enum { GROUP = STREAM_THREADS / TILE_ROWS / TOKENS, SHARE = STREAM_THREADS / TOKENS };
    unsigned char *shared = dynamic_shared<128>();
    float(&squares)[TOKENS][8] = block_shared<token_squares<TOKENS>>().of;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, token = lane / 4;
    uint4 *const ring = (uint4 *)shared + warp * (LOADS * 32) + lane, *stage = ring;
    float *sums =
        (float *)(shared + STAGES * STAGE_BYTES); /* two buffers [warp][tile, token, row], used in turn */
    float *norm = sums + 2 * STREAM_WARPS * a.group_sums;
    __nv_bfloat16 *x = (__nv_bfloat16 *)(norm + (a.norm ? a.pitch : 0));
    int per_unit = a.gated ? 2 : 1, steps = (a.cols + STEP_COLS - 1) / STEP_COLS;
    int first = (int)((long long)blockIdx.x * a.units / gridDim.x) * per_unit;
    int last = (int)((long long)(blockIdx.x + 1) * a.units / gridDim.x) * per_unit;
    cursor c = {lane_row(a, first), first, last, 0};
    kernel_begins();
    fetch_norm(a, norm);
#pragma unroll 1
    for (int i = 0; i < STAGES; i++) fetch(a, &c, ring + i * (STAGE_BYTES / 16), steps);
    if (threadIdx.x < TOKENS * 8) ((float *)squares)[threadIdx.x] = 0;
    result r = place_result<TOKENS>(a, first, min((int)GROUP, last - first));
    int input_row = min((int)threadIdx.x / SHARE, a.T - 1);
    const float *in = a.in + (size_t)input_row * a.in_stride + threadIdx.x % SHARE * 4;
    const bool has_token = token < a.T;
    const int warp_cols = warp * WARP_COLS;
    const __nv_bfloat16 *lane_x = x + token * a.pitch + warp_cols + lane % 4 * 8;
    float *const my_sums = sums + warp * a.group_sums + token * TILE_ROWS + lane % 4 * 2;
    async_copy_wait<STAGES>();
    __syncthreads();

    kernel_waits();
    if (a.row) in += (ptrdiff_t)(__ldcg(a.row + input_row) - input_row) * a.in_stride;
    if (a.accumulate && r.at >= 0) r.old = __ldcg(a.out + r.at);
    stage_inputs<TOKENS>(a, in, norm, x, squares);
    __syncthreads();

    float sum[LOADS][4] = {};
    int buffer = 0;
    for (int group = first; group < last; group += GROUP) {
        int tiles = min((int)GROUP, last - group), offset = buffer * STREAM_WARPS * a.group_sums;
        float *to = my_sums + offset;
        if (group != first) {
            r = place_result<TOKENS>(a, group, tiles);
            if (a.accumulate && r.at >= 0) r.old = __ldcg(a.out + r.at);
        }
#pragma unroll 1
        for (int tile = 0; tile < tiles; tile++, to += TOKENS * TILE_ROWS) {
#pragma unroll 1
            for (int column = 0; column < a.cols; column += STEP_COLS) {
                async_copy_wait<STAGES - 1>();
                if (column + warp_cols < a.cols) {
                    uint4 in[LOADS];
                    load_inputs(in, lane_x + column, has_token);
                    multiply_step(sum, stage, in);
                }
                fetch(a, &c, stage, steps);
                stage += STAGE_BYTES / 16;
                if (stage == ring + STAGES * (STAGE_BYTES / 16)) stage = ring;
            }
            put_sums(sum, to, has_token);
        }
        __syncthreads();
        finish<TOKENS>(a, r, sums + offset, squares);
        buffer ^= 1;
    }
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

template <int STAGES, int TOKENS>
static void launch_stages(const few_args &a, size_t rest, int blocks, const cuda_context *cuda)
{
    size_t shared = (size_t)STAGES * STAGE_BYTES + rest;
    cudaFuncSetAttribute(few<STAGES, TOKENS>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    launch(cuda, few<STAGES, TOKENS>, dim3((unsigned)blocks), STREAM_THREADS, shared, a);
}

/* As many stages as the block has steps, at most 6: a ring no larger than needed leaves room for the next kernel's. */
template <int TOKENS> static bool start(few_args *a, const cuda_context *cuda)
{
    const int group = STREAM_THREADS / TILE_ROWS / TOKENS;
    int blocks = a->units < cuda->multiprocessors ? a->units : cuda->multiprocessors;
    int tiles = (a->units + blocks - 1) / blocks * (a->gated ? 2 : 1);
    int stages = tiles * ((a->cols + STEP_COLS - 1) / STEP_COLS);
    a->group_sums = (tiles < group ? tiles : group) * TOKENS * TILE_ROWS;
    size_t rest = 2 * STREAM_WARPS * sizeof(float) * (size_t)a->group_sums +
                  (a->norm ? sizeof(float) : 0) * (size_t)a->pitch +
                  (size_t)TOKENS * (size_t)a->pitch * sizeof(__nv_bfloat16);
    if (rest + 1024 + 2 * STAGE_BYTES > (size_t)cuda->shared_bytes) return false;
    int room = (int)((cuda->shared_bytes - 1024 - rest) / STAGE_BYTES);
    if (stages > room) stages = room;
    if (stages <= 2)
        launch_stages<2, TOKENS>(*a, rest, blocks, cuda);
    else if (stages == 3)
        launch_stages<3, TOKENS>(*a, rest, blocks, cuda);
    else if (stages <= 5)
        launch_stages<4, TOKENS>(*a, rest, blocks, cuda);
    else
        launch_stages<6, TOKENS>(*a, rest, blocks, cuda);
    return true;
}

static bool start_tokens(few_args *a, const cuda_context *cuda)
{
    return a->T == 1 ? start<1>(a, cuda) : a->T == 2 ? start<2>(a, cuda) : start<4>(a, cuda);
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
    a.per_cols = 1.0f / (float)a.cols;
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
    return describe(&a, l, false) && start_tokens(&a, cuda);
}

bool norm_linear_few_cuda(const op_norm_linear_args *n, const cuda_context *cuda)
{
    few_args a;
    if (!describe(&a, &n->linear, n->gated)) return false;
    a.norm = n->norm;
    a.eps = n->eps;
    a.row = n->row;
    return (uintptr_t)a.norm % 16 == 0 && start_tokens(&a, cuda);
}
