/* One token through the whole model as one kernel: a block of 8 warps per multiprocessor stays on the card from the
 * embedding to the logits, beside a warp that sends it weights.
 *
 *     per layer:  q, k, v | attention | o + residual | gate, up | down + residual        then: lm_head
 *
 * Between two bars every block needs what all have made, and gets it as words (posts.cuh): there are no barriers of the
 * grid. What separates this from as many kernels is that weights never stop coming: the ring of each block, some 190 KB of
 * its next weights, is filled across the bars (persistent_stream.cuh), and the bars cost an exchange through L2, about 1 us
 * on an H200, and no launch.
 *
 * Words are written again a layer later. By then every block that read them has: it has posted rows of the residual
 * stream since, of which each block has some, and the writer has waited for all of those. Tags count layers of all steps;
 * block 0 leaves the last one for the next step when it has seen results of all blocks, which read it when they began.
 *
 * The arithmetic is that of the fused ops (linear_few.cu, attention.cu), in another order of sums.
 * Memory bound: reads every weight once, 2 bytes each, and 4*K*C bytes of cache per position and layer. */
#include "ops/persistent_attention.cuh"
#include "ops/persistent_products.cuh"
#include "ops/rope.cuh"

enum { SHARED_BYTES = (sizeof(persistent_shared) + 127) / 128 * 128 };

/* ---- The kernel ---------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void copy_layers(const persistent_layer *from, persistent_layer *to, int L)
{
    int words = L * (int)(sizeof(persistent_layer) / 8);
    for (int i = threadIdx.x; i < words; i += BLOCK_THREADS) ((uint2 *)to)[i] = ((const uint2 *)from)[i];
}

/* The parts of shared memory, and the block's rows. */
static __device__ __forceinline__ block_state begin(const persistent_args &a)
{
    block_state b = {};
    unsigned char *memory = kept_shared(dynamic_shared<128>());
    b.s = (persistent_shared *)memory;
    b.full = shared_address(b.s->full);
    b.empty = shared_address(b.s->empty);
    b.ring = memory + SHARED_BYTES;
    b.work = b.ring + a.stages * STAGE_PITCH;
    b.sums = (float *)(b.work + a.work_bytes);
    persistent_layer *layers = (persistent_layer *)((unsigned char *)b.sums + SUMS_BYTES);
    b.layers = layers;
    b.own = (float *)(layers + a.m.L);
    copy_layers(a.m.layers, layers, a.m.L);
    if (threadIdx.x < PRODUCTS) deal_product(b.s->share[threadIdx.x], a, threadIdx.x);
    if (threadIdx.x == 0) b.s->head = a.m.head;
    if ((int)threadIdx.x < a.stages) {
        mbarrier_init(b.full + threadIdx.x * 8, 1);
        mbarrier_init(b.empty + threadIdx.x * 8, STREAM_THREADS);
        mbarriers_made();
    }
    __syncthreads();
    return b;
}

static __device__ __forceinline__ void turn_tables(const persistent_args &a, persistent_shared *s)
{
    int32_t pos = a.s.pos[0];
    for (int i = threadIdx.x; i < a.m.C / 2; i += STREAM_THREADS) {
        float2 turn = rope_turn(pos, a.m.inv_freq[i], a.m.rope_scale);
        s->cos[i] = turn.x;
        s->sin[i] = turn.y;
    }
}

template <int CHUNKS, bool WHOLE>
static __device__ __forceinline__ void compute_all(const persistent_args &a, block_state &b)
{
    const persistent_model &m = a.m;
    persistent_shared &s = *b.s;
    int length = a.s.kv_len[0], token = a.s.tokens[0];
    if (token < 0) token = a.s.drawn[-1 - token];
    b.tag = posted_word(m.words).x + 1;
    turn_tables(a, &s);
    if (threadIdx.x == STREAM_THREADS - 1) s.attention = share_of_attention(a, b.layers[0].window, length);
    input_of_embedding(a, b, token);
    int layer = 0, kind = PRODUCT_QKV;
#pragma unroll 1
    while (layer < m.L) {
        const persistent_layer &l = b.layers[layer];
        product(a, b, l.product[kind], kind, layer == 0 && kind == PRODUCT_QKV);
        if (kind == PRODUCT_QKV) attend_layer<CHUNKS, WHOLE>(a, b, l, length);
        if (++kind < PRODUCT_HEAD) continue;
        layer++;
        if (layer < m.L) kind = PRODUCT_QKV, b.tag++;
    }
    product(a, b, s.head, PRODUCT_HEAD, false);
    if (blockIdx.x == 0 && threadIdx.x == 0) post_word(m.words, b.tag, 0);
}

/* CHUNKS of 32 channels hold a head; WHOLE: and are filled by it. */
template <int CHUNKS, bool WHOLE>
static __global__ void __launch_bounds__(BLOCK_THREADS, 1)
    token_pass(const __grid_constant__ persistent_args a)
{
    block_state b = begin(a);
    kernel_begins();
    kernel_waits();
    if (threadIdx.x >= STREAM_THREADS) {
        send_all(a, b);
        return;
    }
    compute_all<CHUNKS, WHOLE>(a, b);
}

/* ---- Launch -------------------------------------------------------------------------------------------------- */

static int heads_of_group(const persistent_model *m, int groups)
{
    int ratio = m->H / m->K;
    return (ratio + groups - 1) / groups;
}

/* As many blocks as multiprocessors; each has rows of the residual stream. */
static int blocks_of(const persistent_model *m, const cuda_context *cuda)
{
    return m->D / 2 < cuda->multiprocessors ? m->D / 2 : cuda->multiprocessors;
}

static size_t even(size_t n)
{
    return (n + 1) / 2 * 2;
}

static word_places places_of(const persistent_model *m)
{
    word_places p;
    size_t q = (size_t)m->H * (size_t)m->C;
    p.qkv = 2;
    p.attention = (uint32_t)(p.qkv + q + 2 * (size_t)m->K * (size_t)m->C);
    p.middle = (uint32_t)(p.attention + even(q / 2));
    p.ffn = p.middle + (uint32_t)m->D;
    p.out = (uint32_t)(p.ffn + even((size_t)m->F / 2));
    p.partial = p.out + (uint32_t)m->D;
    p.per_part = (uint32_t)(HEADS_AT_ONCE * (m->C + 2));
    return p;
}

size_t persistent_words(const persistent_model *m, const cuda_context *cuda)
{
    word_places p = places_of(m);
    return p.partial + (size_t)blocks_of(m, cuda) * p.per_part;
}

static int work_bytes(const persistent_model *m)
{
    int widest = m->F > m->D ? m->F : m->D, q = m->H * m->C;
    if (q > widest) widest = q;
    size_t input = (size_t)(widest + COLS_PAD - 1) / COLS_PAD * COLS_PAD * sizeof(__nv_bfloat16);
    size_t attention = m->C == 64 ? sizeof(attention_memory<2>) : sizeof(attention_memory<4>);
    return (int)(((input > attention ? input : attention) + 127) / 128 * 128);
}

/* Shared memory beside the ring. */
static size_t rest_bytes(const persistent_model *m, int own_rows)
{
    return SHARED_BYTES + (size_t)work_bytes(m) + SUMS_BYTES + (size_t)m->L * sizeof(persistent_layer) +
           (size_t)own_rows * sizeof(float);
}

static int own_rows_of(const persistent_model *m, int blocks)
{
    return 2 * ((m->D / 2 + blocks - 1) / blocks);
}

/* As many as there is room for. */
static int stages_of(const persistent_model *m, const cuda_context *cuda)
{
    size_t rest = rest_bytes(m, own_rows_of(m, blocks_of(m, cuda))) + 1024; /* the system's */
    size_t room = rest < (size_t)cuda->shared_bytes ? (size_t)cuda->shared_bytes - rest : 0;
    size_t stages = room / STAGE_PITCH;
    return stages < MOST_STAGES ? (int)stages : MOST_STAGES;
}

/* As in attention.cu: few heads in a block while there are multiprocessors for them. */
static int groups_of(const persistent_model *m, int max_len, int blocks)
{
    int ratio = m->H / m->K, heads = 1;
    long long splits = ((long long)max_len + SPLIT_STEP - 1) / SPLIT_STEP;
    while (heads < ratio && heads < HEADS_AT_ONCE) {
        long long parts = m->K * splits * ((ratio + heads - 1) / heads);
        if (parts <= (heads == 1 ? blocks / 2 : blocks)) break;
        heads *= 2;
    }
    return (ratio + heads - 1) / heads;
}

const char *persistent_refuses(const persistent_model *m, const cuda_context *cuda)
{
    if (m->C > 2 * MOST_ROPE_PAIRS || m->C % 8 != 0) return "its heads have an unsupported width";
    if (m->page_slots < SPLIT_STEP || (m->page_slots & (m->page_slots - 1)) != 0)
        return "its cache's pages have an unsupported size";
    if (m->D % 8 != 0 || m->F % 8 != 0) return "its rows are no multiples of 8";
    if (m->K * groups_of(m, INT_MAX, 1) > blocks_of(m, cuda))
        return "it has too many heads for the GPU's multiprocessors";
    if (cuda->major < 9) return "its GPU, or the code for it, is older than compute capability 9.0";
    if (stages_of(m, cuda) < 3) return "a multiprocessor's shared memory is too small for it";
    return NULL;
}

template <int CHUNKS, bool WHOLE>
static void launch_pass(persistent_args *a, int blocks, const cuda_context *cuda)
{
    size_t shared = rest_bytes(&a->m, a->own_rows) + (size_t)a->stages * STAGE_PITCH;
    cudaFuncSetAttribute(token_pass<CHUNKS, WHOLE>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    launch_cooperative(cuda, token_pass<CHUNKS, WHOLE>, (unsigned)blocks, BLOCK_THREADS, shared, *a);
}

static int parts_of(int n, int size)
{
    return (n + size - 1) / size;
}

/* Stages of weights that a block reads in a layer. Where these are few, blocks talk for longer than they read, and gain by a
 * pace (Qwen3-0.6B 2 %, with 4096 tokens of context 5 %); the others lose by it (TinyLlama 4 %). */
static int layer_stages(const persistent_model *m, int blocks)
{
    int tile = blocks * TILE_ROWS, q = m->H * m->C, qkv = q + 2 * m->K * m->C;
    return (parts_of(qkv, tile) + 2 * parts_of(m->F, tile)) * parts_of(m->D, STEP_COLS) +
           parts_of(m->D, tile) * (parts_of(q, STEP_COLS) + parts_of(m->F, STEP_COLS));
}

static attend_args attention_of(const persistent_model *m, const persistent_step *s, int groups, int splits)
{
    attend_args d = {};
    op_attention_args *t = &d.op.attention;
    t->kv.format = DTYPE_BF16;
    t->kv.K = m->K;
    t->kv.S = m->page_slots;
    t->kv.C = m->C;
    t->pages = s->pages;
    t->T = t->R = 1;
    t->P = s->P;
    t->H = m->H;
    t->scale = 1.0f / sqrtf((float)m->C);
    d.op.k = (float *)m->words; /* not read: says that q, k and v are new */
    d.op.slot = s->slot;
    d.op.eps = m->eps;
    d.op.pairing = m->pairing;
    d.groups = groups;
    d.heads = heads_of_group(m, groups);
    d.splits = splits;
    while (1 << d.page_shift < m->page_slots) d.page_shift++;
    return d;
}

void persistent_run(const persistent_model *m, const persistent_step *s, const cuda_context *cuda)
{
    persistent_args a = {};
    int blocks = blocks_of(m, cuda), length = s->max_len > 0 ? s->max_len : s->P * m->page_slots;
    int groups = groups_of(m, length, blocks);
    a.m = *m;
    a.s = *s;
    a.at = places_of(m);
    a.columns = m->K * groups;
    int splits = blocks / a.columns < MOST_SPLITS ? blocks / a.columns : MOST_SPLITS;
    a.attend = attention_of(m, s, groups, splits);
    a.stages = stages_of(m, cuda);
    a.in_flight = a.stages < STAGES_IN_FLIGHT ? a.stages : STAGES_IN_FLIGHT;
    a.paced = a.stages > 2 * PACE_SLOTS && layer_stages(m, blocks) < 5 * a.stages / 2;
    a.own_rows = own_rows_of(m, blocks);
    a.work_bytes = work_bytes(m);
    if (m->C == 64)
        launch_pass<2, true>(&a, blocks, cuda);
    else if (m->C == 128)
        launch_pass<4, true>(&a, blocks, cuda);
    else
        launch_pass<4, false>(&a, blocks, cuda);
}
