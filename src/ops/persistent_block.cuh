/* A block of persistent.cu: what it is given, its rows of every product, its part of attention, its shared memory.
 *
 * Rows of a product are dealt to the blocks in pairs of neighbours, as evenly as that goes, the same rows of every layer;
 * positions of the cache in splits, a few heads each. What all of that reads comes through persistent_stream.cuh. */
#ifndef NVLLM_OPS_PERSISTENT_BLOCK_CUH
#define NVLLM_OPS_PERSISTENT_BLOCK_CUH

#include "ops/attention_merge.cuh"
#include "ops/linear_stream.cuh"
#include "ops/persistent.cuh"
#include "ops/posts.cuh"

enum {
    ROW_PITCH = STEP_COLS * 2 + 64, /* bytes in a stage: two rows' quarters meet all banks once */
    STAGE_PITCH = TILE_ROWS * ROW_PITCH,
    MOST_STAGES = 16,
    STAGES_IN_FLIGHT = 4, /* measured: fewer keep the memory less busy, more help no model */
    PACE_SLOTS = 3,
    GROUP_TILES = 16, /* whose sums wait in shared memory together */
    GROUP_SUMS = GROUP_TILES * TILE_ROWS,
    SUMS_BYTES = 2 * STREAM_WARPS * GROUP_SUMS * (int)sizeof(float), /* two groups, used in turn */
    MOST_ROPE_PAIRS = 64,
    HEADS_AT_ONCE = 4, /* of a block, in attention: at most 8 (persistent_tiles.cuh) */
    KV_COPIES = 8,     /* of a tile of K or V */
    COPY_POSITIONS = SPLIT_STEP / KV_COPIES,
    BLOCK_THREADS = STREAM_THREADS + 32 /* the last warp sends weights */
};

/* ---- What the kernel is given -------------------------------------------------------------------------------- */

/* Where each kind of words begins in `words`; all even, so that pairs are aligned. The first is the tag of the last step. */
typedef struct {
    uint32_t qkv, attention, middle, ffn, out,
        partial;       /* middle, out: the residual stream after half a layer, and all */
    uint32_t per_part; /* words of one block's part of an attention */
} word_places;

typedef struct {
    persistent_model m;
    persistent_step s;
    word_places at;
    attend_args attend; /* but for what differs from layer to layer */
    int stages, own_rows;
    int in_flight;  /* most stages that are asked for at a time */
    bool paced;     /* one, while no more than PACE_SLOTS slots of the ring are free */
    int columns;    /* of attention: kv heads * groups */
    int work_bytes; /* for inputs and for attention, which take turns */
} persistent_args;

/* ---- The block's part of attention --------------------------------------------------------------------------- */

/* Bytes from one copy of a stage of K or V to the next: 8 rows of 16 bytes, one of each copy, meet all banks once. */
static __device__ __forceinline__ int kv_pitch(int C)
{
    return COPY_POSITIONS * C * 2 + 16;
}

/* What a block has of the attention of layers with this window; none: nothing. */
typedef struct {
    int window;
    bool none;
    job j;
    block_place place;
    block_heads heads;
    int tiles; /* of SPLIT_STEP positions */
    int own_pair,
        own_end; /* of the heads' pairs of channels, those that this block brings together of all splits */
} attention_share;

/* `length`: positions, this token included. */
static __device__ __forceinline__ attention_share share_of_attention(const persistent_args &a, int window,
                                                                     int length)
{
    attention_share s;
    s.window = window;
    s.place = {(int)blockIdx.x / a.columns, (int)blockIdx.x % a.columns, 0, a.columns};
    s.none = s.place.split >= a.attend.splits || !find_split(s.j, a.attend, window, s.place.split, length);
    s.j.row = s.j.token = 0;
    s.heads = heads_of_column(a.attend, s.place.column);
    s.tiles = s.none ? 0 : (s.j.end - s.j.origin + SPLIT_STEP - 1) / SPLIT_STEP;
    int pairs = s.heads.n * a.m.C / 2, splits = s.none ? 1 : s.j.splits;
    s.own_pair = pairs * s.place.split / splits;
    s.own_end = pairs * (s.place.split + 1) / splits;
    return s;
}

/* ---- Shared memory ------------------------------------------------------------------------------------------- */

/* A product, and the block's part of it. */
typedef struct {
    int first, rows; /* rows (gate rows when gated) */
    int tiles;       /* of 8 rows; gate's and up's in turns when gated */
    int cols;
    bool normed;   /* the input is the residual stream, else it comes as pairs */
    bool residual; /* the result is added to it */
    int in, out;   /* where their words begin; out is none: logits */
} product_share;

typedef struct {
    uint64_t full[MOST_STAGES], empty[MOST_STAGES]; /* barriers of the stages */
    alignas(16) float squares[STREAM_WARPS];
    product_share share[PRODUCTS];
    persistent_product head;
    attention_share attention; /* of the current layer's window */
    float cos[MOST_ROPE_PAIRS], sin[MOST_ROPE_PAIRS];
} persistent_shared;

/* What a thread of the first warps knows. */
typedef struct {
    persistent_shared *s;
    const persistent_layer *layers;
    uint32_t full, empty; /* the barriers' addresses */
    unsigned char *ring, *work;
    float *sums, *own; /* own: the residual stream in the block's own rows */
    uint32_t tag;      /* of the layer's words */
    int buffer;        /* of sums */
    int slot;          /* of the ring, that comes next */
    uint32_t parity;
} block_state;

static __device__ __forceinline__ void meet(void)
{
    first_threads_meet<STREAM_THREADS>();
}

/* ---- The block's rows ---------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void deal_rows(product_share &p, int rows, int unit)
{
    unsigned units = (unsigned)(rows / unit); /* times blocks fits: rows of a matrix in memory are fewer */
    p.first = (int)(blockIdx.x * units / gridDim.x) * unit;
    p.rows = (int)((blockIdx.x + 1) * units / gridDim.x) * unit - p.first;
}

/* One thread per product. */
static __device__ __forceinline__ void deal_product(product_share &p, const persistent_args &a, int kind)
{
    const persistent_model &m = a.m;
    int q = m.H * m.C, kv = m.K * m.C;
    int rows = kind == PRODUCT_QKV       ? q + 2 * kv
               : kind == PRODUCT_GATE_UP ? m.F
               : kind == PRODUCT_HEAD    ? m.V
                                         : m.D;
    p.cols = kind == PRODUCT_OUT ? q : kind == PRODUCT_DOWN ? m.F : m.D;
    deal_rows(p, rows, kind == PRODUCT_HEAD ? 1 : 2);
    p.tiles = (p.rows + TILE_ROWS - 1) / TILE_ROWS * (kind == PRODUCT_GATE_UP ? 2 : 1);
    p.residual = kind == PRODUCT_OUT || kind == PRODUCT_DOWN;
    p.normed = !p.residual;
    const uint32_t in[PRODUCTS] = {a.at.out, a.at.attention, a.at.middle, a.at.ffn, a.at.out},
                   out[PRODUCTS] = {a.at.qkv, a.at.middle, a.at.ffn, a.at.out, 0};
    p.in = (int)in[kind];
    p.out = (int)out[kind];
}

/* Of q, k and v; `row` becomes one of the part. */
static __device__ __forceinline__ int part_of_row(const persistent_model &m, int *row)
{
    int q = m.H * m.C, kv = m.K * m.C, part = (*row >= q) + (*row >= q + kv);
    *row -= part == 0 ? 0 : part == 1 ? q : q + kv;
    return part;
}

#endif
