/* What the kernels of draw.cu share: the order of candidates as integers, weights as integers, edits, and what one
 * kernel leaves for the next.
 *
 * Code. Every filter keeps a prefix of one order: larger logit first, lower id first among equals. A candidate's code is
 * the logit's bits as an ordered integer (32 bits, NaN: 0), then the reversed id (19 bits): all codes differ, the
 * order is that of the integers, and any filter is one threshold.
 * Weights are exp((x - top) / temperature) by the host's polynomial, rounding for rounding, in units of 2^-44: sums
 * are integers, so they do not depend on the order of threads and blocks. Weights down to 2^-20 are exact; the sum
 * of a vocabulary of 2^19 fits.
 * Tile: 4096 ids, what a block of the first two kernels holds in registers. Chunk: 128 ids, one load of a warp. */
#ifndef NVLLM_OPS_DRAW_SHARED_CUH
#define NVLLM_OPS_DRAW_SHARED_CUH

#include "ops/cuda.cuh"

#include <math_constants.h>

typedef unsigned long long code_t;
typedef unsigned long long mass_t; /* 2^-44 */

enum {
    TILE = 4096,
    CHUNK = 128,
    TILE_CHUNKS = TILE / CHUNK,
    TILE_THREADS = 256,
    TILE_WARPS = TILE_THREADS / 32,
    EACH = TILE / TILE_THREADS, /* ids per thread of a tile */
    ID_BITS = 19,
    MAX_ID = (1 << ID_BITS) - 1,
    MAX_CHUNKS = (MAX_ID + 1) / CHUNK,
    MAX_TILES = (MAX_ID + 1) / TILE,
    BINS = 64, /* of mass, by distance from the top */
    MASS_BITS = 44
};

static const unsigned KEY_OF_MINUS_INFINITY = 0x007fffffu;

typedef enum { DRAW_DONE, DRAW_BEST, DRAW_SAMPLE } draw_kind;

typedef struct {
    draw_kind kind; /* what is left to do: nothing, log-probabilities of `best`, a draw */
    int best;       /* lowest id of the largest logit, after the edits */
    float top;      /* that logit */
    code_t limit;   /* candidates' codes are at least this: not -infinity, and min-p */
    mass_t bin
        [BINS]; /* mass of the candidates (top - x) / temperature in [b/4, (b+1)/4), for top-p without top-k */
} draw_state;

typedef struct {
    code_t best;                     /* after the edits, as are mass and chunk_max */
    mass_t mass;                     /* of its candidates, without top-k */
    mass_t raw_mass;                 /* sum of exp(x - raw_max) before the edits */
    code_t top[DRAW_MAX_TOP];        /* the best before the edits; 0: there are no more */
    unsigned chunk_max[TILE_CHUNKS]; /* keys */
    float raw_max;
    int unused;
} draw_tile;

/* Arguments of all three kernels. */
typedef struct {
    op_draw_args a;
    draw_state *state; /* [N] */
    draw_tile *tile;   /* [N, tiles] */
    unsigned *arrived; /* [N] */
    int tiles, tiles_per_block;
    bool aligned; /* rows are 16-byte aligned and V is a multiple of 4 */
} draw_job;

/* ---- Codes --------------------------------------------------------------------------------------------------- */

/* -0 and 0 are one value; NaN is below -infinity. */
static __device__ __forceinline__ unsigned key_of(float x)
{
    unsigned bits = __float_as_uint(__fadd_rn(x, 0.0f));
    if (x != x) return 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float float_of_key(unsigned key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

static __device__ __forceinline__ code_t code_of(unsigned key, int id)
{
    return (code_t)key << ID_BITS | (unsigned)(MAX_ID - id);
}

static __device__ __forceinline__ int id_of(code_t code)
{
    return MAX_ID - (int)(code & MAX_ID);
}

static __device__ __forceinline__ unsigned key_of_code(code_t code)
{
    return (unsigned)(code >> ID_BITS);
}

/* ---- Weights ------------------------------------------------------------------------------------------------- */

/* sample_select.c's exp_negative, with its roundings: no fused multiply-add. */
static __device__ __forceinline__ float exp_negative(float x)
{
    float shifted = __fadd_rn(__fmul_rn(x, 1.44269504088896341f), 12582912.0f);
    float n = __fsub_rn(shifted, 12582912.0f);
    float r = __fsub_rn(__fsub_rn(x, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, -2.12194440e-4f));
    float p = 1.9875691500e-4f;
    p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
    p = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f);
    float power = __uint_as_float((__float_as_uint(shifted) + 127u) << 23);
    return x > -87.3365447f ? __fmul_rn(p, power) : 0.0f;
}

static __device__ __forceinline__ mass_t mass_of(float w)
{
    return __float2ull_rn(__fmul_rn(w, (float)(1ull << MASS_BITS)));
}

/* 64-bit sums in shared memory by 32-bit atomics. */
static __device__ __forceinline__ void add_mass(unsigned *low, unsigned *high, mass_t v)
{
    unsigned add = (unsigned)v, old = atomicAdd(low, add), carry = old + add < old;
    unsigned rest = (unsigned)(v >> 32) + carry;
    if (rest) atomicAdd(high, rest);
}

static __device__ __forceinline__ float scaled(float x, float top, float temperature)
{
    return __fdiv_rn(__fsub_rn(x, top), temperature);
}

/* ---- Warps --------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ code_t warp_max(code_t v)
{
    unsigned high = (unsigned)(v >> 32), most = __reduce_max_sync(0xffffffffu, high);
    unsigned low = __reduce_max_sync(0xffffffffu, high == most ? (unsigned)v : 0u);
    return (code_t)most << 32 | low;
}

static __device__ __forceinline__ mass_t warp_total(mass_t v)
{
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
    return v;
}

/* The n largest codes of a warp's, in order, into out[n]; 0 after the last. Codes other than 0 differ. */
template <int E> static __device__ __forceinline__ void warp_top(code_t *out, const code_t (&code)[E], int n)
{
    code_t last = ~(code_t)0;
    for (int i = 0; i < n; i++) {
        code_t best = 0;
#pragma unroll
        for (int e = 0; e < E; e++)
            if (code[e] < last && code[e] > best) best = code[e];
        last = warp_max(best);
        if (threadIdx.x % 32 == 0) out[i] = last;
    }
}

/* The n largest of up to 32 such lists, lists[l * n + i], into out[n]. One warp; out may be `lists`. */
static __device__ __forceinline__ void merge_lists(code_t *out, const code_t *lists, int count, int n)
{
    int lane = threadIdx.x % 32, at = lane * n, end = lane < count ? at + n : at;
    code_t best = 0;
    for (int i = 0; i < n; i++) {
        code_t head = at < end ? lists[at] : 0, most = warp_max(head);
        at += head == most;
        if (lane == i) best = most;
    }
    __syncwarp();
    if (lane < n) out[lane] = best;
    __syncwarp();
}

/* ---- Edits --------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ bool has_penalty(const draw_order &o)
{
    const sample_params &p = o.params;
    return o.n_counts > 0 &&
           (p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0);
}

static __device__ __forceinline__ bool has_edits(const draw_order &o)
{
    return o.n_bias > 0 || o.n_banned > 0 || has_penalty(o);
}

/* Log-probabilities need the drawn token's own logit: the row is then left as it is, and whoever loads part of it
 * edits his copy. Otherwise the first kernel edits the row. */
static __device__ __forceinline__ bool edits_copies(const draw_order &o)
{
    return o.n_top >= 0 && has_edits(o);
}

static __device__ __forceinline__ float penalized(float x, const sample_count &seen, const sample_params &p)
{
    if (seen.in_prompt > 0 || seen.in_output > 0)
        x = x > 0 ? __fdiv_rn(x, p.repetition_penalty) : __fmul_rn(x, p.repetition_penalty);
    if (seen.in_output > 0)
        x = __fsub_rn(x,
                      __fadd_rn(__fmul_rn(p.frequency_penalty, (float)seen.in_output), p.presence_penalty));
    return x;
}

/* Biases in the order of their list, by one warp: a token may have several. */
template <class P>
static __device__ __forceinline__ void add_biases(float *x, const draw_job &job, const draw_order &o, P place)
{
    int lane = threadIdx.x % 32;
    for (int first = 0; first < o.n_bias; first += 32) {
        sample_bias b = {-1, 0};
        if (first + lane < o.n_bias) b = job.a.bias[o.first_bias + first + lane];
        int at = b.token >= 0 && b.token < job.a.V ? place(b.token) : -1;
        for (unsigned left = __ballot_sync(0xffffffffu, at >= 0); left; left &= left - 1) {
            if (lane == __ffs((int)left) - 1) x[at] = __fadd_rn(x[at], b.bias);
            __syncwarp();
        }
    }
}

/* Biases, penalties and bans on logits in shared memory: place(id) is the index in x, or -1. All threads of the block
 * call; x is ready before for all of them, and after. Each token is in `counts` once. */
template <class P>
static __device__ __forceinline__ void edit(float *x, const draw_job &job, const draw_order &o, P place)
{
    if (o.n_bias > 0) {
        if (threadIdx.x < 32) add_biases(x, job, o, place);
        __syncthreads();
    }
    if (has_penalty(o)) {
        for (int i = threadIdx.x; i < o.n_counts; i += blockDim.x) {
            sample_count seen = job.a.counts[o.first_count + i];
            int at = seen.token >= 0 && seen.token < job.a.V ? place(seen.token) : -1;
            if (at >= 0) x[at] = penalized(x[at], seen, o.params);
        }
        __syncthreads();
    }
    if (o.n_banned > 0) {
        for (int i = threadIdx.x; i < o.n_banned; i += blockDim.x) {
            int token = job.a.banned[o.first_banned + i];
            int at = token >= 0 && token < job.a.V ? place(token) : -1;
            if (at >= 0) atomicExch(&x[at], -CUDART_INF_F); /* a token may be there twice */
        }
        __syncthreads();
    }
}

/* ---- Rows and results ---------------------------------------------------------------------------------------- */

/* Four neighbouring logits; NaN past the end. `id` is a multiple of 4. The first form is for aligned rows. */
static __device__ __forceinline__ float4 load_aligned(const float *row, int id, int V)
{
    float4 none = {CUDART_NAN_F, CUDART_NAN_F, CUDART_NAN_F, CUDART_NAN_F};
    return id < V ? *(const float4 *)(row + id) : none;
}

static __device__ __forceinline__ float4 load_any(const float *row, int id, int V)
{
    float4 v = {CUDART_NAN_F, CUDART_NAN_F, CUDART_NAN_F, CUDART_NAN_F};
    if (id + 0 < V) v.x = row[id + 0];
    if (id + 1 < V) v.y = row[id + 1];
    if (id + 2 < V) v.z = row[id + 2];
    if (id + 3 < V) v.w = row[id + 3];
    return v;
}

static __device__ __forceinline__ float *row_of(const draw_job &job, const draw_order &o)
{
    return job.a.logits + (size_t)o.logit * (size_t)job.a.V;
}

/* One thread; the epoch follows when everything else can be seen by the host. */
static __device__ __forceinline__ void write_result(const draw_job &job, int n, int token, bool failed,
                                                    float logprob)
{
    const draw_order &o = job.a.order[n];
    draw_result *r = &job.a.result[o.result];
    r->token = token;
    r->failed = failed;
    r->logprob = logprob;
    r->n_top = o.n_top > 0 ? o.n_top : 0;
    job.a.drawn[n] = token;
}

static __device__ __forceinline__ void write_epoch(const draw_job &job, int n)
{
    const draw_order &o = job.a.order[n];
    __threadfence_system();
    *(volatile int32_t *)&job.a.result[o.result].epoch = o.epoch;
}

#endif
