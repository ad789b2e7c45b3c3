/* What a block of persistent.cu reads, as one stream through a ring of stages in shared memory.
 *
 * The block's tiles of all products, layer by layer, are sent by a warp of its own, by bulk copies: whatever the other warps
 * are doing or waiting for at the time, so that the ring is full of weights when their inputs arrive. A stage is 1024
 * columns of 8 rows. Between the weights of a layer's q, k, v and of its o stand the K and V of the block's part of the
 * attention, as far as they are in the cache: a stage is K or V of 64 positions, eight times eight in a row. */
#ifndef NVLLM_OPS_PERSISTENT_STREAM_CUH
#define NVLLM_OPS_PERSISTENT_STREAM_CUH

#include "ops/persistent_block.cuh"

/* ---- Sending ------------------------------------------------------------------------------------------------- */

/* The sending warp's place in the ring. */
typedef struct {
    unsigned char *ring;
    uint32_t full, empty; /* the barriers' addresses */
    int slot, stages;
    uint32_t parity;
    int behind; /* the slot in_flight before this one, and the parity of its phase */
    uint32_t behind_parity;
    bool paced;
} sender;

/* Words from other blocks queue behind the stages that are on their way to the same multiprocessor. With a ring that is
 * full but for a few slots there is time to ask for one stage after the other. */
static __device__ __forceinline__ void keep_pace(const sender &s)
{
    int ahead = s.slot + PACE_SLOTS, before = s.slot - 1;
    bool wraps = ahead >= s.stages, began = before >= 0;
    if (wraps) ahead -= s.stages;
    if (!began) before += s.stages;
    if (mbarrier_ended(s.empty + ahead * 8, s.parity ^ wraps)) return;
    mbarrier_wait(s.full + before * 8, s.parity ^ began);
}

/* Rows of a stage, one lane each, when the ring has room. */
static __device__ __forceinline__ void send_stage(sender &s, const __nv_bfloat16 *row, bool there, int rows,
                                                  int bytes, int pitch)
{
    int lane = threadIdx.x % 32;
    uint32_t full = s.full + s.slot * 8;
    mbarrier_wait(s.empty + s.slot * 8, s.parity);
    if (s.paced) keep_pace(s);
    mbarrier_wait(s.full + s.behind * 8, s.behind_parity);
    if (++s.behind == s.stages) {
        s.behind = 0;
        s.behind_parity ^= 1;
    }
    if (lane == 0) mbarrier_arrive_expecting(full, rows * bytes);
    __syncwarp();
    if (there) bulk_copy(shared_address(s.ring + s.slot * STAGE_PITCH + lane * pitch), row, bytes, full);
    if (++s.slot == s.stages) {
        s.slot = 0;
        s.parity ^= 1;
    }
}

static __device__ __forceinline__ void send_product(sender &s, const persistent_model &m,
                                                    const persistent_product &w, const product_share &p,
                                                    int kind)
{
    int lane = threadIdx.x % 32;
    bool gated = kind == PRODUCT_GATE_UP;
    for (int tile = 0; tile < p.tiles; tile++) {
        int in_share = (gated ? tile >> 1 : tile) * TILE_ROWS, rows = min((int)TILE_ROWS, p.rows - in_share);
        bool there = lane < rows;
        int row = p.first + in_share + (there ? lane : 0), part = gated ? tile & 1 : 0;
        if (kind == PRODUCT_QKV) part = part_of_row(m, &row);
        const __nv_bfloat16 *from = w.w[part] + (size_t)row * p.cols;
        for (int column = 0; column < p.cols; column += STEP_COLS)
            send_stage(s, from + column, there, rows, min((int)STEP_COLS, p.cols - column) * 2, ROW_PITCH);
    }
}

/* K and V of the block's tiles: whole ones, of which the last has positions that nobody has written yet. */
static __device__ __forceinline__ void send_positions(sender &s, const persistent_args &a,
                                                      const persistent_layer &l, const attention_share &share)
{
    int lane = threadIdx.x % 32, C = a.m.C, in_copy = COPY_POSITIONS * C, page = 0;
    for (int tile = 0; tile < share.tiles; tile++) {
        int first = share.j.origin + tile * SPLIT_STEP;
        if (tile % 32 == 0 && tile + lane < share.tiles)
            page = a.s.pages[(first + lane * SPLIT_STEP) >> a.attend.page_shift];
        int of_tile = __shfl_sync(0xffffffffu, page, tile % 32);
        size_t slot = (((size_t)of_tile * a.m.K + share.heads.kv) << a.attend.page_shift) +
                      (first & (a.m.page_slots - 1));
        size_t at = slot * C + (lane < KV_COPIES ? lane : 0) * in_copy;
        send_stage(s, (const __nv_bfloat16 *)l.k_pool + at, lane < KV_COPIES, KV_COPIES, in_copy * 2,
                   kv_pitch(C));
        send_stage(s, (const __nv_bfloat16 *)l.v_pool + at, lane < KV_COPIES, KV_COPIES, in_copy * 2,
                   kv_pitch(C));
    }
}

/* All that the block reads, in the order in which it is used. */
static __device__ __forceinline__ void send_all(const persistent_args &a, const block_state &b)
{
    sender s = {b.ring, b.full, b.empty, 0, a.stages, 1, a.stages - a.in_flight,
                1,      a.paced}; /* parity 1: barriers that nobody has used yet */
    int length = a.s.kv_len[0];
    attention_share attention = share_of_attention(a, b.layers[0].window, length);
    for (int layer = 0; layer < a.m.L; layer++) {
        const persistent_layer &l = b.layers[layer];
        if (l.window != attention.window) attention = share_of_attention(a, l.window, length);
        for (int kind = 0; kind < PRODUCT_HEAD; kind++) {
            if (kind == PRODUCT_QKV + 1) send_positions(s, a, l, attention);
            send_product(s, a.m, l.product[kind], b.s->share[kind], kind);
        }
    }
    send_product(s, a.m, a.m.head, b.s->share[PRODUCT_HEAD], PRODUCT_HEAD);
}

/* ---- Receiving ----------------------------------------------------------------------------------------------- */

/* The next stage, for a warp of those that multiply. */
static __device__ __forceinline__ const unsigned char *receive_stage(const block_state &b)
{
    mbarrier_wait(b.full + b.slot * 8, b.parity);
    return b.ring + b.slot * STAGE_PITCH;
}

/* It has been read by this lane: each arrives for itself, which takes no longer than one for all. (The __syncwarp orders
 * nothing that matters here; without it the compiler makes a slower loop.) */
static __device__ __forceinline__ void release_stage(const persistent_args &a, block_state &b)
{
    __syncwarp();
    mbarrier_arrive(b.empty + b.slot * 8);
    if (++b.slot == a.stages) {
        b.slot = 0;
        b.parity ^= 1;
    }
}

#endif
