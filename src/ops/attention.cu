/* Paged attention on the GPU for rows with one token in this step (decode).
 *
 * A block does one row, one kv head with up to 8 of its query heads, and one split of the row's positions. The host
 * takes the numbers of splits and heads from the step's longest context, of which it knows a bound, to fill the card;
 * how long a split is, and how many are needed, every block works out from kv_len, so that one recorded graph serves
 * every length. A short context has one split, which writes the result; else the last block to arrive merges what all
 * have left in scratch.
 *
 * In a block a warp takes its part of each tile of positions. L lanes hold one position's K (8 elements each) and, of
 * the weighted sum of V, the same 8 channels: 16-byte loads, log2(L) shuffles per score. Online softmax
 * (arXiv:1805.02867) per lane group, in base 2; the groups are brought together once at the end. The next tile's K is
 * asked for as soon as the scores have used up the registers of this one's, and V likewise.
 *
 * Memory bound: reads 2*K*C*size bytes per position. Prompts that the tensor core kernel refuses (float32 cache, odd
 * C) go through the same kernel token by token, one split each. */
#include "ops/attention_merge.cuh"
#include "ops/attention_softmax.cuh"

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

/* As many as the registers allow. */
template <class E, int G> static constexpr int blocks_per_sm()
{
    return sizeof(E) == 2 && G <= 2 ? 2 : 1;
}

/* E: the cache's element; G: query heads of a block; L: lanes that share a position. Grid: (splits or tokens, kv heads
 * * groups, rows or 1). */
template <class E, int G, int L>
static __global__ void __launch_bounds__(THREADS, blocks_per_sm<E, G>())
    attend(const __grid_constant__ attend_args d)
{
    block_memory<E, G, L> &shared = block_shared<block_memory<E, G, L>>();
    kernel_begins();
    const kv_layer &kv = d.op.attention.kv;
    const block_place place = {(int)blockIdx.x, (int)blockIdx.y, (int)blockIdx.z, (int)gridDim.y};
    block_heads b = heads_of_column(d, place.column);
    constexpr int pairs = L * VECTOR / 64;
    head_pairs<pairs> w = item_weights<pairs>(d, threadIdx.x / 32, b.n);
    bool early = d.op.k; /* the step's arrays and earlier K and V are older than the step's first kernel */
    if (!early) kernel_waits();
    job j;
    if (!find_job(j, d, place)) {
        if (early) kernel_waits();
        return;
    }
    tile_reader<E, L> cache(d, j, b.kv);
    next_tile<E, L> tile;
    ask_first_tile(tile, cache, kv, j);
    if (early) kernel_waits();
    prepare_heads(shared, d, j, b, w, stored_heads(d, j, b));
    __syncthreads();
    attend_tiles(shared, tile, cache, kv, j, b);
    __syncthreads();
    write_out(shared, d, j, b, place);
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

/* Elements that a block keeps per head. */
static int padded_width(int C)
{
    return C <= 64 ? 64 : C <= 128 ? 128 : 256;
}

/* Splits that the longest context of the step can use, by a bound that all replays of a recorded step share; a window
 * begins anywhere in its first split. */
static int useful_splits(const op_attention_args *a)
{
    int64_t length = a->max_len > 0 ? a->max_len : (int64_t)a->P * a->kv.S;
    if (a->window > 0 && a->window + SPLIT_STEP - 1 < length) length = a->window + SPLIT_STEP - 1;
    return (int)((length + SPLIT_STEP - 1) / SPLIT_STEP);
}

/* Enough blocks to fill the card, and none that would find nothing to do: a block that waits for nothing holds registers
 * that the next kernel's could use. */
static int splits_of(const attend_args *d, int blocks)
{
    const op_attention_args *a = &d->op.attention;
    int splits = blocks / (a->kv.K * d->groups * a->R), useful = useful_splits(a);
    if (splits > MOST_SPLITS) splits = MOST_SPLITS;
    if (splits > useful) splits = useful;
    return splits < 1 ? 1 : splits;
}

template <class E, int G, int L> static void launch_attend(attend_args *d, const cuda_context *cuda)
{
    const op_attention_args *a = &d->op.attention;
    int columns = a->kv.K * d->groups, rows = d->by_token ? 1 : a->R;
    int blocks = cuda->multiprocessors * blocks_per_sm<E, G>();
    if (blocks > MOST_BLOCKS) blocks = MOST_BLOCKS;
    d->splits = d->by_token ? 1 : splits_of(d, blocks);
    d->partial_stats = (float2 *)cuda->scratch;
    d->partial_sums = (float *)(d->partial_stats + MOST_BLOCKS * MOST_HEADS);
    d->counters = cuda->counters;
    dim3 grid((unsigned)(d->by_token ? a->T : d->splits), (unsigned)columns, (unsigned)rows);
    launch(cuda, attend<E, G, L>, grid, THREADS, 0, *d);
}

/* Query heads of a block, of the numbers that there are variants for: 1, step, step^2 .. widest.
 *
 * All heads of a kv head in one block read K and V once, but that block computes for a time that grows with them, behind
 * the wait (from instruction counts about 0.2 us per head and 64 positions), and with 4 heads or more takes registers
 * that leave no room beside another kernel's blocks. So while multiprocessors would be idle, they take heads. The other
 * blocks then read K and V again, from the L2 cache: of the most there can be for a grid that still has a multiprocessor
 * per block, 64 positions each, that is some 4 MB or 0.7 us, and before the wait. The step from 2 heads to 1 saves least,
 * and is made only for half as many blocks. Longer contexts fill the card with splits and keep their heads together. */
static int heads_per_block(const attend_args *d, int step, int widest, int multiprocessors)
{
    const op_attention_args *a = &d->op.attention;
    int ratio = a->H / a->kv.K;
    if (d->by_token) return widest; /* has no splits, and tokens to fill the card with */
    int64_t parts = (int64_t)a->kv.K * a->R * useful_splits(a); /* blocks, if each had all heads */
    for (int heads = 1; heads < widest; heads *= step)
        if (parts * ((ratio + heads - 1) / heads) <= (heads == 1 ? multiprocessors / 2 : multiprocessors))
            return heads;
    return widest;
}

/* float32 caches get fewer variants: 1 or 4 heads. */
template <class E, int L> static void launch_heads(attend_args *d, const cuda_context *cuda)
{
    constexpr bool is_small = sizeof(E) == 2;
    constexpr int widest = is_small && L < 32 ? MOST_HEADS : 4;
    int ratio = d->op.attention.H / d->op.attention.kv.K;
    int most = heads_per_block(d, is_small ? 2 : 4, widest, cuda->multiprocessors);
    d->groups = (ratio + most - 1) / most;
    d->heads = (ratio + d->groups - 1) / d->groups;
    if (d->heads == 1)
        launch_attend<E, 1, L>(d, cuda);
    else if (d->heads == 2)
        launch_attend<E, is_small ? 2 : 4, L>(d, cuda);
    else if (d->heads <= 4)
        launch_attend<E, 4, L>(d, cuda);
    else
        launch_attend<E, widest, L>(d, cuda);
}

template <class E> static void launch_width(attend_args *d, const cuda_context *cuda)
{
    switch (padded_width(d->op.attention.kv.C)) {
    case 64: launch_heads<E, 8>(d, cuda); break;
    case 128: launch_heads<E, 16>(d, cuda); break;
    default: launch_heads<E, 32>(d, cuda); break;
    }
}

/* log2(S) when the kernel may read 16 bytes at a time and finds whole tiles in a page; else -1. */
static int page_shift_of(const kv_layer *kv)
{
    int shift = 0;
    uintptr_t misaligned = ((uintptr_t)kv->k_pool | (uintptr_t)kv->v_pool) % 16;
    while (shift < 30 && 1 << shift < kv->S) shift++;
    return 1 << shift == kv->S && kv->S >= SPLIT_STEP && kv->C % VECTOR == 0 && !misaligned ? shift : -1;
}

static void attend_all(attend_args *d, const cuda_context *cuda)
{
    d->page_shift = page_shift_of(&d->op.attention.kv);
    switch (d->op.attention.kv.format) {
    case DTYPE_F32: launch_width<float>(d, cuda); break;
    case DTYPE_F16: launch_width<__half>(d, cuda); break;
    default: launch_width<__nv_bfloat16>(d, cuda); break;
    }
}

void attention_of_single_tokens(const op_rope_attention_args *a, const cuda_context *cuda)
{
    attend_args d = {};
    d.op = *a;
    attend_all(&d, cuda);
}

void attention_of_prompts(const op_attention_args *a, const cuda_context *cuda)
{
    if (op_attention_prompt_cuda(a, cuda)) return;
    attend_args d = {};
    d.op.attention = *a;
    d.by_token = 1;
    attend_all(&d, cuda);
}

/* T <= R: see rope_attention.cu. */
extern "C" void op_attention_cuda(const op_attention_args *a, const cuda_context *cuda)
{
    op_rope_attention_args ready = {};
    ready.attention = *a;
    if (a->T > a->R) attention_of_prompts(a, cuda);
    if (a->R > 1 || a->T == 1) attention_of_single_tokens(&ready, cuda);
}

/* MOST_BLOCKS bounds it for all numbers of tokens, rows and heads. */
extern "C" size_t op_attention_cuda_scratch(int32_t C)
{
    return (size_t)MOST_BLOCKS * MOST_HEADS * (sizeof(float2) + (size_t)padded_width(C) * sizeof(float));
}
