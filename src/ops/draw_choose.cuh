/* draw.cu's last kernel: one block of 1024 threads ends an order: filters, the draw, log-probabilities.
 *
 * Only chunks whose largest logit reaches the limit are looked at: at first a lower bound of the limit (from the
 * chunks' maxima for top-k, from the mass by distance for top-p), then what the radix selection has found so far. They are
 * loaded WINDOW at a time; where one window holds them all, it is loaded once.
 * A filter is found by radix selection on the codes, 11 bits at a time, counting either candidates or mass. */
#ifndef NVLLM_OPS_DRAW_CHOOSE_CUH
#define NVLLM_OPS_DRAW_CHOOSE_CUH

#include "ops/draw_shared.cuh"

enum {
    CHOOSE_THREADS = 1024,
    CHOOSE_WARPS = CHOOSE_THREADS / 32,
    WINDOW = 64, /* chunks */
    WINDOW_IDS = WINDOW * CHUNK,
    RADIX = 2048,
    RADIX_STEPS = 5,
    OWN_CHUNKS = MAX_CHUNKS / CHOOSE_THREADS /* per thread */
};

typedef struct {
    float x[WINDOW_IDS];                            /* the loaded window, edited */
    unsigned count[RADIX], low[RADIX], high[RADIX]; /* of each digit: candidates, mass */
    code_t top[CHOOSE_WARPS * DRAW_MAX_TOP];
    mass_t partial[CHOOSE_WARPS];
    mass_t amount, rest; /* of the digit found */
    unsigned digit, digit_count;
    int token;
    uint16_t chunk[MAX_CHUNKS]; /* to be looked at, in the order of ids */
    int8_t slot[MAX_CHUNKS];    /* of a chunk in the window; -1: not there. Only for edits */
} choose_shared;

/* What all threads know. */
typedef struct {
    const draw_job *job;
    const draw_order *o;
    const draw_tile *tile; /* [tiles] */
    const float *row;
    choose_shared *s;
    float top, temperature;
    code_t limit;
    int chunks; /* in s->chunk */
    int loaded; /* window in s->x, or -1 */
} chooser;

/* ---- The block ----------------------------------------------------------------------------------------------- */

/* Inclusive sum in the order of threads. */
static __device__ __forceinline__ mass_t block_scan(mass_t v, mass_t *partial, mass_t *total)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int offset = 1; offset < 32; offset *= 2) {
        mass_t below = __shfl_up_sync(0xffffffffu, v, offset);
        if (lane >= offset) v += below;
    }
    if (lane == 31) partial[warp] = v;
    __syncthreads();
    mass_t warps = partial[lane];
    for (int offset = 1; offset < 32; offset *= 2) {
        mass_t below = __shfl_up_sync(0xffffffffu, warps, offset);
        if (lane >= offset) warps += below;
    }
    mass_t before = __shfl_sync(0xffffffffu, warps, (warp + 31) % 32);
    *total = __shfl_sync(0xffffffffu, warps, 31);
    __syncthreads();
    return warp > 0 ? v + before : v;
}

static __device__ __forceinline__ mass_t block_total(mass_t v, mass_t *partial)
{
    v = warp_total(v);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    mass_t total = warp_total(partial[threadIdx.x % 32]);
    __syncthreads();
    return total;
}

/* ---- Chunks and windows -------------------------------------------------------------------------------------- */

/* Key of the largest logit of a chunk; 0 past the end. */
static __device__ __forceinline__ unsigned chunk_max(const chooser &c, int chunk)
{
    return chunk < c.job->tiles * TILE_CHUNKS ? c.tile[chunk / TILE_CHUNKS].chunk_max[chunk % TILE_CHUNKS]
                                              : 0;
}

/* Lists the chunks that hold candidates. */
static __device__ void find_chunks(chooser &c)
{
    int first = threadIdx.x * OWN_CHUNKS, mine = 0;
    bool wanted[OWN_CHUNKS];
#pragma unroll
    for (int i = 0; i < OWN_CHUNKS; i++) {
        wanted[i] = chunk_max(c, first + i) >= key_of_code(c.limit);
        mine += wanted[i];
    }
    mass_t total;
    int at = (int)block_scan((mass_t)mine, c.s->partial, &total) - mine;
#pragma unroll
    for (int i = 0; i < OWN_CHUNKS; i++)
        if (wanted[i]) c.s->chunk[at++] = (uint16_t)(first + i);
    c.chunks = (int)total;
    c.loaded = -1;
    __syncthreads();
}

static __device__ __forceinline__ int windows(const chooser &c)
{
    return (c.chunks + WINDOW - 1) / WINDOW;
}

static __device__ __forceinline__ int window_ids(const chooser &c, int w)
{
    return min(c.chunks - w * WINDOW, (int)WINDOW) * CHUNK;
}

/* Id and code of element i of window w. */
static __device__ __forceinline__ int window_id(const chooser &c, int w, int i)
{
    return c.s->chunk[w * WINDOW + i / CHUNK] * CHUNK + i % CHUNK;
}

static __device__ __forceinline__ code_t window_code(const chooser &c, int w, int i)
{
    return code_of(key_of(c.s->x[i]), window_id(c, w, i));
}

static __device__ __forceinline__ mass_t weight_of(const chooser &c, int i)
{
    return mass_of(exp_negative(scaled(c.s->x[i], c.top, c.temperature)));
}

static __device__ void edit_window(const chooser &c, int w)
{
    choose_shared *s = c.s;
    int held = window_ids(c, w) / CHUNK;
    for (int i = threadIdx.x; i < MAX_CHUNKS; i += CHOOSE_THREADS) s->slot[i] = -1;
    __syncthreads();
    if ((int)threadIdx.x < held) s->slot[s->chunk[w * WINDOW + threadIdx.x]] = (int8_t)threadIdx.x;
    __syncthreads();
    edit(s->x, *c.job, *c.o, [s](int id) {
        int slot = s->slot[id / CHUNK];
        return slot < 0 ? -1 : slot * CHUNK + id % CHUNK;
    });
}

/* All threads have ended their work on the window before. */
static __device__ void load_window(chooser &c, int w)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, held = window_ids(c, w) / CHUNK;
    if (c.loaded == w) return;
    c.loaded = w;
    for (int i = warp; i < held; i += CHOOSE_WARPS) {
        int id = c.s->chunk[w * WINDOW + i] * CHUNK + 4 * lane;
        float4 v = c.job->aligned ? load_aligned(c.row, id, c.job->a.V) : load_any(c.row, id, c.job->a.V);
        *(float4 *)(c.s->x + i * CHUNK + 4 * lane) = v;
    }
    __syncthreads();
    if (edits_copies(*c.o)) edit_window(c, w);
}

/* ---- Filters ------------------------------------------------------------------------------------------------- */

/* Candidates whose code agrees with `prefix` above shift + bits, counted and weighed by the next bits. */
static __device__ void histogram(chooser &c, code_t prefix, int shift, int bits, bool by_mass)
{
    choose_shared *s = c.s;
    for (int b = threadIdx.x; b < RADIX; b += CHOOSE_THREADS) s->count[b] = s->low[b] = s->high[b] = 0;
    __syncthreads();
    for (int w = 0; w < windows(c); w++) {
        load_window(c, w);
        for (int i = threadIdx.x; i < window_ids(c, w); i += CHOOSE_THREADS) {
            code_t code = window_code(c, w, i);
            if (code < c.limit || code >> (shift + bits) != prefix) continue;
            int b = (int)(code >> shift) & ((1 << bits) - 1);
            atomicAdd(&s->count[b], 1u);
            if (by_mass) add_mass(&s->low[b], &s->high[b], weight_of(c, i));
        }
        __syncthreads();
    }
}

/* The digit, from the largest down, at which the running amount reaches `wanted`; `rest` is what is wanted of it. */
static __device__ void find_digit(chooser &c, mass_t wanted, bool by_mass)
{
    choose_shared *s = c.s;
    mass_t amount[2], total;
    int first = RADIX - 1 - 2 * (int)threadIdx.x;
#pragma unroll
    for (int i = 0; i < 2; i++)
        amount[i] = by_mass ? (mass_t)s->high[first - i] << 32 | s->low[first - i] : s->count[first - i];
    mass_t end = block_scan(amount[0] + amount[1], s->partial, &total), begin = end - amount[0] - amount[1];
    if (begin < wanted && wanted <= end) {
        int i = begin + amount[0] < wanted;
        s->digit = (unsigned)(first - i);
        s->digit_count = s->count[first - i];
        s->amount = i ? amount[1] : amount[0];
        s->rest = wanted - begin - (i ? amount[0] : 0);
    }
    __syncthreads();
}

/* Raises the limit to the code of the candidate, in order, at which the running count or mass reaches `wanted`, which
 * is at least 1 and at most the amount there is. */
static __device__ void keep_first(chooser &c, mass_t wanted, bool by_mass)
{
    code_t prefix = 0;
    int shift = 32 + ID_BITS;
    for (int step = 0; step < RADIX_STEPS; step++) {
        int bits = step < 2 ? 11 : step < 4 ? 10 : 9; /* 32 bits of the key, 19 of the id */
        shift -= bits;
        histogram(c, prefix, shift, bits, by_mass);
        find_digit(c, wanted, by_mass);
        prefix = prefix << bits | c.s->digit;
        wanted = c.s->rest;
        c.limit = max(c.limit, prefix << shift);
        if (c.s->digit_count == 1 || wanted == c.s->amount) break;
        if (windows(c) > 1) find_chunks(c);
    }
}

/* Amount of the candidates: how many, or their mass. */
static __device__ mass_t amount_of_candidates(chooser &c, bool by_mass)
{
    mass_t sum = 0;
    for (int w = 0; w < windows(c); w++) {
        load_window(c, w);
        for (int i = threadIdx.x; i < window_ids(c, w); i += CHOOSE_THREADS)
            if (window_code(c, w, i) >= c.limit) sum += by_mass ? weight_of(c, i) : 1;
        if (windows(c) > 1) __syncthreads();
    }
    return block_total(sum, c.s->partial);
}

/* As many chunks reach the k-th largest of the chunks' maxima, so the k-th largest logit is no smaller. Its key, or a
 * little less: the lowest bits make no difference. */
static __device__ unsigned floor_of_top_k(const chooser &c, unsigned k)
{
    unsigned own[OWN_CHUNKS], floor = 0, *counts = c.s->count; /* two sets in turn: one barrier per bit */
#pragma unroll
    for (int i = 0; i < OWN_CHUNKS; i++) own[i] = chunk_max(c, (int)threadIdx.x + i * CHOOSE_THREADS);
    for (unsigned bit = 1u << 31; bit >= 1u << 13; bit >>= 1) {
        unsigned mine = 0;
#pragma unroll
        for (int i = 0; i < OWN_CHUNKS; i++) mine += own[i] >= (floor | bit);
        mine = __reduce_add_sync(0xffffffffu, mine);
        if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32] = mine;
        __syncthreads();
        if (__reduce_add_sync(0xffffffffu, counts[threadIdx.x % 32]) >= k) floor |= bit;
        counts = counts == c.s->count ? c.s->count + CHOOSE_WARPS : c.s->count;
    }
    __syncthreads();
    return floor;
}

/* The smallest key of the bins by distance that hold `wanted` mass together; the margin covers the rounding of bins. */
static __device__ unsigned floor_of_top_p(const chooser &c, const draw_state &state, mass_t wanted)
{
    int lane = threadIdx.x % 32;
    mass_t first = state.bin[2 * lane], both = first + state.bin[2 * lane + 1];
    for (int offset = 1; offset < 32; offset *= 2) {
        mass_t below = __shfl_up_sync(0xffffffffu, both, offset);
        if (lane >= offset) both += below;
    }
    unsigned reached = __ballot_sync(0xffffffffu, both >= wanted);
    if (!reached) return 0;
    double distance = 0.25 * (2 * __ffs((int)reached)) * (double)c.temperature * 1.00001;
    return key_of(nextafterf((float)((double)c.top - distance), -CUDART_INF_F));
}

static __device__ mass_t share(float p, mass_t total)
{
    return (mass_t)ceil((double)p * (double)total);
}

/* ---- The draw ------------------------------------------------------------------------------------------------ */

static __device__ __forceinline__ uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* floor(u * total) with sample.c's u(seed, step) of 53 bits. */
static __device__ __forceinline__ mass_t random_mass(const draw_order &o, mass_t total)
{
    uint64_t u = mix(mix(o.params.seed) + (o.step + 1) * 0x9e3779b97f4a7c15u) >> 11;
    return __umul64hi(u << 11, total);
}

/* The first candidate, in the order of ids, at which the running mass exceeds `wanted`, given `before` the windows. */
static __device__ int locate(chooser &c, mass_t wanted, mass_t before)
{
    enum { OWN = WINDOW_IDS / CHOOSE_THREADS };
    for (int w = 0; w < windows(c); w++) {
        load_window(c, w);
        mass_t weight[OWN], sum = 0, total;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int at = threadIdx.x * OWN + i;
            bool kept = at < window_ids(c, w) && window_code(c, w, at) >= c.limit;
            weight[i] = kept ? weight_of(c, at) : 0;
            sum += weight[i];
        }
        mass_t end = before + block_scan(sum, c.s->partial, &total), begin = end - sum;
        if (begin <= wanted && wanted < end) {
            int i = 0;
#pragma unroll
            for (int j = 0; j < OWN - 1; j++) {
                begin += weight[j];
                i += begin <= wanted; /* sums rise: counts those that end at or before `wanted` */
            }
            c.s->token = window_id(c, w, threadIdx.x * OWN + i);
        }
        before += total;
        if (wanted < before) break;
    }
    __syncthreads();
    return c.s->token;
}

/* Without top-k and top-p the tiles' masses say which tile to look at. */
static __device__ int draw_by_tiles(chooser &c)
{
    int t = threadIdx.x;
    mass_t mass = t < c.job->tiles ? c.tile[t].mass : 0, total;
    mass_t end = block_scan(mass, c.s->partial, &total), wanted = random_mass(*c.o, total);
    if (end - mass <= wanted && wanted < end) {
        c.s->digit = (unsigned)t;
        c.s->rest = end - mass;
    }
    __syncthreads();
    if (t < TILE_CHUNKS) c.s->chunk[t] = (uint16_t)(c.s->digit * TILE_CHUNKS + t);
    c.chunks = TILE_CHUNKS;
    __syncthreads();
    return locate(c, wanted, c.s->rest);
}

static __device__ int draw_filtered(chooser &c, const draw_state &state)
{
    const sample_params &p = c.o->params;
    mass_t mass = 0;
    if (p.top_k > 0)
        c.limit = max(c.limit, code_of(floor_of_top_k(c, (unsigned)p.top_k), MAX_ID));
    else {
        int t = threadIdx.x;
        mass = block_total(t < c.job->tiles ? c.tile[t].mass : 0, c.s->partial);
        c.limit = max(c.limit, code_of(floor_of_top_p(c, state, share(p.top_p, mass)), MAX_ID));
    }
    find_chunks(c);
    if (p.top_k > 0 && amount_of_candidates(c, false) > (mass_t)p.top_k)
        keep_first(c, (mass_t)p.top_k, false);
    if (p.top_p < 1) {
        if (p.top_k > 0) mass = amount_of_candidates(c, true);
        keep_first(c, share(p.top_p, mass), true);
    }
    if (windows(c) > 1) find_chunks(c);
    return locate(c, random_mass(*c.o, amount_of_candidates(c, true)), 0);
}

/* ---- Log-probabilities --------------------------------------------------------------------------------------- */

/* One warp: log(sum of exp(raw logits)). */
static __device__ double log_total(const chooser &c)
{
    int lane = threadIdx.x % 32;
    float most = -CUDART_INF_F;
    double sum = 0;
    for (int t = lane; t < c.job->tiles; t += 32) most = fmaxf(most, c.tile[t].raw_max);
    for (int offset = 16; offset > 0; offset >>= 1)
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
    for (int t = lane; t < c.job->tiles; t += 32)
        if (c.tile[t].raw_mass)
            sum += (double)c.tile[t].raw_mass * exp((double)c.tile[t].raw_max - (double)most);
    for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    return (double)most + log(sum / (double)(1ull << MASS_BITS));
}

/* The best of the tiles' lists: every warp for its tiles, then one for all. */
static __device__ void merge_top(const chooser &c, int n)
{
    enum { OWN_TILES = MAX_TILES / CHOOSE_WARPS, OWN = (OWN_TILES * DRAW_MAX_TOP + 31) / 32 };
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    code_t code[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int at = i * 32 + lane, t = at / n * CHOOSE_WARPS + warp;
        code[i] = at < OWN_TILES * n && t < c.job->tiles ? c.tile[t].top[at % n] : 0;
    }
    warp_top<OWN>(c.s->top + warp * n, code, n);
    __syncthreads();
    if (warp == 0) merge_lists(c.s->top, c.s->top, CHOOSE_WARPS, n);
}

/* The result of an order: one warp, after merge_top by all. */
static __device__ void write_all(const chooser &c, int n, int token, bool failed)
{
    int lane = threadIdx.x % 32, n_top = c.o->n_top;
    float logprob = 0;
    if (n_top >= 0) {
        double total = log_total(c);
        float x = c.row[token];
        logprob = (float)((x == x ? (double)x : (double)-CUDART_INF_F) - total);
        if (lane < min(n_top, c.job->a.V)) {
            code_t code = c.s->top[lane];
            sample_logprob best = {id_of(code), (float)((double)float_of_key(key_of_code(code)) - total)};
            c.job->a.result[c.o->result].top[lane] = best;
            __threadfence_system();
        }
    }
    __syncwarp();
    if (lane > 0) return;
    write_result(*c.job, n, token, failed, logprob);
    write_epoch(*c.job, n);
}

static __global__ void __launch_bounds__(CHOOSE_THREADS) draw_choose(draw_job job)
{
    kernel_begins();
    kernel_waits();
    int n = blockIdx.x;
    const draw_state &state = job.state[n];
    if (state.kind == DRAW_DONE) return;
    chooser c = {};
    c.job = &job;
    c.o = job.a.order + n;
    c.tile = job.tile + (size_t)n * job.tiles;
    c.row = row_of(job, *c.o);
    c.s = (choose_shared *)dynamic_shared<16>();
    c.top = state.top;
    c.temperature = c.o->params.temperature;
    c.limit = state.limit;
    c.loaded = -1;
    int token = state.best;
    if (state.kind == DRAW_SAMPLE)
        token = c.o->params.top_k > 0 || c.o->params.top_p < 1 ? draw_filtered(c, state) : draw_by_tiles(c);
    if (c.o->n_top > 0) merge_top(c, c.o->n_top);
    if (threadIdx.x < 32) write_all(c, n, token, !(state.top > -CUDART_INF_F));
}

#endif
