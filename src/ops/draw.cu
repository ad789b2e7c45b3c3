/* The next tokens on the GPU, by sample.h's rules, in three kernels that serve all kinds of orders:
 *
 * scan    Blocks of 256 threads per order and tile(s) of the vocabulary: statistics of the raw logits where log-
 *         probabilities are wanted, then biases, penalties and bans, then the best and the largest of every chunk. The
 *         last block of an order to arrive ends it, if it is greedy and wants no log-probabilities.
 * weigh   The same blocks, for orders without top-k: the mass of every tile, and for top-p the mass by distance.
 * choose  One block per order that is not done: filters, draw, log-probabilities (draw_choose.cuh).
 * Where the host knows that all orders are greedy and want none, there is nothing left after scan.
 *
 * The logits are read once for greedy orders (4V bytes, from L2 at small N), twice for others, plus the chunks that
 * hold candidates. Grids depend on N and V only: one captured sequence serves whatever the orders say, but for that.
 * Results depend neither on N nor on the number of blocks: what is kept is per tile. */
#include "ops/draw_choose.cuh"

typedef struct {
    float x[TILE];
    code_t best[TILE_WARPS];
    mass_t mass[TILE_WARPS];
    code_t top[TILE_WARPS * DRAW_MAX_TOP];
    unsigned key[TILE_WARPS];
} scan_shared;

/* Thread t has ids first + 4 * (j * 256 + t) + 0..3 for j in 0..3: a warp's j is one chunk. */
static __device__ __forceinline__ int tile_offset(int e)
{
    return 4 * (e / 4 * TILE_THREADS + (int)threadIdx.x) + e % 4;
}

static __device__ __forceinline__ void load_tile(float (&x)[EACH], const float *row, int first,
                                                 const draw_job &job)
{
    float4 v[EACH / 4];
    if (job.aligned) { /* all loads before the first use */
#pragma unroll
        for (int j = 0; j < EACH / 4; j++) v[j] = load_aligned(row, first + tile_offset(4 * j), job.a.V);
    } else {
#pragma unroll
        for (int j = 0; j < EACH / 4; j++) v[j] = load_any(row, first + tile_offset(4 * j), job.a.V);
    }
#pragma unroll
    for (int j = 0; j < EACH / 4; j++)
        x[4 * j] = v[j].x, x[4 * j + 1] = v[j].y, x[4 * j + 2] = v[j].z, x[4 * j + 3] = v[j].w;
}

/* Edits the tile's copy, by way of shared memory; `back`: the row too, or NULL. */
static __device__ __forceinline__ void edit_tile(float (&x)[EACH], float *shared, const draw_job &job,
                                                 const draw_order &o, int first, float *back)
{
#pragma unroll
    for (int e = 0; e < EACH; e++) shared[tile_offset(e)] = x[e];
    __syncthreads();
    edit(shared, job, o, [first](int id) { return id >= first && id < first + TILE ? id - first : -1; });
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        float v = shared[tile_offset(e)];
        if (back && __float_as_uint(v) != __float_as_uint(x[e])) back[first + tile_offset(e)] = v;
        x[e] = v;
    }
}

/* Sum over the block, for thread 0. The caller keeps `partial` untouched until the next barrier. */
static __device__ __forceinline__ mass_t tile_total(mass_t sum, mass_t *partial)
{
    sum = warp_total(sum);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < TILE_WARPS; w++) sum += partial[w];
    return sum;
}

/* ---- scan ---------------------------------------------------------------------------------------------------- */

/* NaN counts as -infinity here; ids past the end have no code. */
static __device__ __forceinline__ void tile_top(scan_shared &s, draw_tile *record, const float (&x)[EACH],
                                                int first, int V, int n)
{
    int warp = threadIdx.x / 32;
    code_t code[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int id = first + tile_offset(e);
        code[e] = id < V ? code_of(max(key_of(x[e]), KEY_OF_MINUS_INFINITY), id) : 0;
    }
    warp_top<EACH>(s.top + warp * n, code, n);
    __syncthreads();
    if (warp == 0) merge_lists(record->top, s.top, TILE_WARPS, n);
}

static __device__ __forceinline__ void raw_statistics(scan_shared &s, draw_tile *record,
                                                      const float (&x)[EACH], int first, int V, int n_top)
{
    unsigned most = KEY_OF_MINUS_INFINITY;
#pragma unroll
    for (int e = 0; e < EACH; e++) most = max(most, key_of(x[e]));
    most = __reduce_max_sync(0xffffffffu, most);
    if (threadIdx.x % 32 == 0) s.key[threadIdx.x / 32] = most;
    __syncthreads();
    for (int w = 0; w < TILE_WARPS; w++) most = max(most, s.key[w]);
    float raw_max = float_of_key(most);
    mass_t sum = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) sum += mass_of(exp_negative(__fsub_rn(x[e], raw_max)));
    sum = tile_total(sum, s.mass);
    if (threadIdx.x == 0) record->raw_max = raw_max, record->raw_mass = sum;
    if (n_top > 0) tile_top(s, record, x, first, V, n_top);
}

/* The largest of the chunks, and the tile's best for thread 0. */
static __device__ __forceinline__ code_t tile_best(scan_shared &s, draw_tile *record, const float (&x)[EACH],
                                                   int first)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    unsigned chunk[EACH / 4], most = 0, id = 0xffffffffu;
#pragma unroll
    for (int j = 0; j < EACH / 4; j++) {
        unsigned own =
            max(max(key_of(x[4 * j]), key_of(x[4 * j + 1])), max(key_of(x[4 * j + 2]), key_of(x[4 * j + 3])));
        chunk[j] = __reduce_max_sync(0xffffffffu, own);
        most = max(most, chunk[j]);
        if (lane == 0) record->chunk_max[j * TILE_WARPS + warp] = chunk[j];
    }
#pragma unroll
    for (int e = EACH - 1; e >= 0; e--) /* ids rise with e */
        if (key_of(x[e]) == most) id = (unsigned)(first + tile_offset(e));
    id = __reduce_min_sync(0xffffffffu, id);
    if (lane == 0) s.best[warp] = code_of(most, (int)min(id, (unsigned)MAX_ID));
    __syncthreads();
    code_t best = s.best[0];
    if (threadIdx.x == 0)
        for (int w = 1; w < TILE_WARPS; w++) best = max(best, s.best[w]);
    return best;
}

/* The smallest float logit that min-p leaves: p >= min_p * largest p means x >= top + temperature * ln min_p. */
static __device__ code_t first_limit(const sample_params &p, float top)
{
    code_t finite = code_of(KEY_OF_MINUS_INFINITY + 1, MAX_ID);
    if (p.min_p <= 0) return finite;
    if (p.min_p >= 1) return code_of(key_of(top), MAX_ID);
    double exact = (double)top + (double)p.temperature * log((double)p.min_p);
    float floor = (float)exact;
    if ((double)floor < exact) floor = nextafterf(floor, CUDART_INF_F);
    return max(finite, code_of(key_of(floor), MAX_ID));
}

/* One warp, when all tiles of the order are there. */
static __device__ __forceinline__ void decide(const draw_job &job, int n)
{
    const draw_order &o = job.a.order[n];
    const draw_tile *tile = job.tile + (size_t)n * job.tiles;
    draw_state *state = job.state + n;
    int lane = threadIdx.x % 32;
    code_t best = 0;
    for (int t = lane; t < job.tiles; t += 32) best = max(best, __ldcg(&tile[t].best));
    best = warp_max(best);
    for (int b = lane; b < BINS; b += 32) state->bin[b] = 0;
    if (lane > 0) return;
    float top = float_of_key(key_of_code(best)); /* NaN when all are */
    bool finite = top > -CUDART_INF_F && top < CUDART_INF_F;
    bool sample = finite && o.params.temperature != 0;
    job.arrived[n] = 0;
    state->kind = sample ? DRAW_SAMPLE : o.n_top >= 0 ? DRAW_BEST : DRAW_DONE;
    if (state->kind == DRAW_DONE) {
        write_result(job, n, id_of(best), !(top > -CUDART_INF_F), 0);
        write_epoch(job, n);
        return;
    }
    state->best = id_of(best);
    state->top = top;
    if (sample) state->limit = first_limit(o.params, top);
}

static __global__ void __launch_bounds__(TILE_THREADS, 2) draw_scan(draw_job job)
{
    scan_shared &s = block_shared<scan_shared>();
    kernel_begins();
    kernel_waits();
    int n = blockIdx.y, from = blockIdx.x * job.tiles_per_block,
        to = min(from + job.tiles_per_block, job.tiles);
    const draw_order &o = job.a.order[n];
    float *row = row_of(job, o);
    bool edits = has_edits(o);
    for (int t = from; t < to; t++) {
        draw_tile *record = job.tile + (size_t)n * job.tiles + t;
        float x[EACH];
        load_tile(x, row, t * TILE, job);
        if (t > from) __syncthreads(); /* thread 0 has read the last tile's partial results */
        if (o.n_top >= 0) raw_statistics(s, record, x, t * TILE, job.a.V, o.n_top);
        if (edits) edit_tile(x, s.x, job, o, t * TILE, edits_copies(o) ? NULL : row);
        code_t best = tile_best(s, record, x, t * TILE);
        if (threadIdx.x == 0) record->best = best;
    }
    if (threadIdx.x >= 32) return;
    unsigned before = 0;
    if (threadIdx.x == 0) {
        __threadfence();
        before = atomicAdd(&job.arrived[n], 1u);
        __threadfence();
    }
    if (__shfl_sync(0xffffffffu, before, 0) != gridDim.x - 1) return;
    __syncwarp(); /* what thread 0 has acquired is seen by its warp */
    decide(job, n);
}

/* ---- weigh --------------------------------------------------------------------------------------------------- */

typedef struct {
    float x[TILE];
    mass_t mass[TILE_WARPS];
    unsigned low[BINS], high[BINS];
} weigh_shared;

/* Mass of a tile's candidates for thread 0; all of them into the bins. */
static __device__ __forceinline__ mass_t weigh_tile(weigh_shared &s, const float (&x)[EACH], int first,
                                                    const draw_state &state, float temperature,
                                                    bool by_distance)
{
    mass_t sum = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        if (code_of(key_of(x[e]), first + tile_offset(e)) < state.limit) continue;
        float z = scaled(x[e], state.top, temperature);
        mass_t w = mass_of(exp_negative(z));
        sum += w;
        int b = (int)fminf(-4.0f * z, (float)BINS);
        if (by_distance && b < BINS) add_mass(&s.low[b], &s.high[b], w);
    }
    return tile_total(sum, s.mass);
}

static __global__ void __launch_bounds__(TILE_THREADS) draw_weigh(draw_job job)
{
    weigh_shared &s = block_shared<weigh_shared>();
    kernel_begins();
    kernel_waits();
    int n = blockIdx.y, from = blockIdx.x * job.tiles_per_block,
        to = min(from + job.tiles_per_block, job.tiles);
    draw_state *state = job.state + n;
    const draw_order &o = job.a.order[n];
    if (state->kind != DRAW_SAMPLE || o.params.top_k > 0) return;
    bool by_distance = o.params.top_p < 1, edits = edits_copies(o);
    const float *row = row_of(job, o);
    if (threadIdx.x < BINS) s.low[threadIdx.x] = s.high[threadIdx.x] = 0;
    for (int t = from; t < to; t++) {
        float x[EACH];
        load_tile(x, row, t * TILE, job);
        __syncthreads();
        if (edits) edit_tile(x, s.x, job, o, t * TILE, NULL);
        mass_t mass = weigh_tile(s, x, t * TILE, *state, o.params.temperature, by_distance);
        if (threadIdx.x == 0) job.tile[(size_t)n * job.tiles + t].mass = mass;
    }
    if (!by_distance) return;
    __syncthreads();
    if (threadIdx.x >= BINS) return;
    mass_t mass = (mass_t)s.high[threadIdx.x] << 32 | s.low[threadIdx.x];
    if (mass) atomicAdd(&state->bin[threadIdx.x], mass);
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

static int tiles_of(int V)
{
    return (V + TILE - 1) / TILE;
}

static size_t state_bytes(int N)
{
    return ((size_t)N * sizeof(draw_state) + 255) / 256 * 256;
}

extern "C" size_t op_draw_cuda_scratch(int32_t N, int32_t V)
{
    return state_bytes(N) + (size_t)N * (size_t)tiles_of(V) * sizeof(draw_tile);
}

/* A block per tile while that leaves about eight blocks per multiprocessor; then several tiles per block. */
static int tiles_per_block(int tiles, int N, int multiprocessors)
{
    int blocks = 8 * multiprocessors / N;
    if (blocks < 1) blocks = 1;
    return blocks >= tiles ? 1 : (tiles + blocks - 1) / blocks;
}

extern "C" void op_draw_cuda(const op_draw_args *a, const cuda_context *cuda)
{
    if (a->N <= 0) return;
    draw_job job = {};
    job.a = *a;
    job.state = (draw_state *)cuda->scratch;
    job.tile = (draw_tile *)((char *)cuda->scratch + state_bytes(a->N));
    job.arrived = cuda->counters;
    job.tiles = tiles_of(a->V);
    job.tiles_per_block = tiles_per_block(job.tiles, a->N, cuda->multiprocessors);
    job.aligned = a->V % 4 == 0 && (uintptr_t)a->logits % 16 == 0;
    dim3 grid((unsigned)((job.tiles + job.tiles_per_block - 1) / job.tiles_per_block), (unsigned)a->N);
    launch(cuda, draw_scan, grid, TILE_THREADS, 0, job);
    if (a->greedy) return;
    launch(cuda, draw_weigh, grid, TILE_THREADS, 0, job);
    cudaFuncSetAttribute(draw_choose, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)sizeof(choose_shared));
    launch(cuda, draw_choose, (unsigned)a->N, CHOOSE_THREADS, sizeof(choose_shared), job);
}
