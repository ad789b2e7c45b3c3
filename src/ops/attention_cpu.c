/* Attention on the CPU: how queries and positions are cut into work; the inner loops are in attention_kernels.h.
 *
 * A query is one token's head. The queries of a row that share a kv head, (token, head) in order, are cut into blocks
 * of at most MAX_QUERIES, so that K and V are read and packed once per block: all heads of a group in decode, some
 * 48 tokens in prefill. Positions are cut into chunks of ATTENTION_CHUNK, aligned to absolute position; a chunk gives
 * each query a part (largest score m, sum of exponentials l, weighted sum of V), and parts are merged in chunk order.
 * Where there are too few blocks for the threads (one long row), every chunk is a work item of its own, and
 * the parts are merged afterwards, in the same order by the same code.
 *
 * Batch invariance: scores, sums and merges of a query run over its own positions [lo, hi) only, in an order fixed by
 * absolute position. Neither the block a query is in, nor its row's chunking, nor the threads appear in it.
 * Never read: positions at or past kv_len, and those below every window of the block (their pages may be gone).
 * Decode is bound by memory: 2*C*K elements per position and row, once. Prefill: 4*C*H operations per query and position. */
#include "ops/attention.h"
#include "ops/attention_kernels.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define MAX_QUERIES    96     /* of a block; its queries, scores and sums stay within L2 */
#define TILE_QUERIES   12     /* the smallest block, and the rows that one kernel call shares a range for */
#define INLINE_WORK    200000 /* multiply-adds, ~10 us: below them a join costs more than it saves */
#define ITEMS_A_THREAD 4      /* work items wanted per thread, for balance */

static const attention_kernels *const kernels[ISA_COUNT] = {
    &attention_kernels_scalar, &attention_kernels_avx2, &attention_kernels_avx512};

static const float zero_row[ATTENTION_MAX_C]; /* stands for positions that nobody sees, in every format */

typedef struct {
    const op_attention_args *args;
    const attention_kernels *kernels;
    int32_t group;       /* H / K */
    int32_t block;       /* queries per block */
    int32_t padded;      /* C rounded up to whole panels */
    int32_t chunks;      /* of the longest row */
    int64_t *first_item; /* [R+1] */
    float *workspace;    /* one per worker */
    float *parts;        /* [T, H, chunks, padded + 2] when every chunk is an item; else NULL */
} attention_job;

/* What one worker needs for a block of queries, laid out in its workspace. */
typedef struct {
    float *q;      /* [queries, C] */
    float *scores; /* [queries, ATTENTION_CHUNK], then their exponentials */
    float *part;   /* [queries, padded + 2]: weighted sum of V, m, l of one chunk */
    float *total;  /* the same over all chunks so far */
    float *packed; /* a block of K or V in panels */
} workspace;

/* One block of queries: q0 .. q0+n-1 of row r and kv head k; query i is token i / group of the row's step. */
typedef struct {
    const attention_job *job;
    workspace ws;
    int32_t r, k, q0, n;
    int32_t pos0; /* position of the row's first token in this step */
} query_block;

static int64_t worker_floats(int32_t padded)
{
    return (int64_t)MAX_QUERIES * (padded + ATTENTION_CHUNK + 2 * (padded + 2)) + ATTENTION_BLOCK * padded;
}

static workspace workspace_of(const attention_job *job, int worker)
{
    workspace ws;
    ws.packed = job->workspace + worker * worker_floats(job->padded);
    ws.q = ws.packed + ATTENTION_BLOCK * job->padded;
    ws.scores = ws.q + MAX_QUERIES * job->padded;
    ws.part = ws.scores + MAX_QUERIES * ATTENTION_CHUNK;
    ws.total = ws.part + MAX_QUERIES * (job->padded + 2);
    return ws;
}

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t max32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* To whole panels. */
static int32_t round_up(int32_t n)
{
    return (n + ATTENTION_PANEL - 1) / ATTENTION_PANEL * ATTENTION_PANEL;
}

/* The positions [lo, hi) that query i of the block sees. */
static int32_t query_hi(const query_block *b, int32_t i)
{
    return b->pos0 + (b->q0 + i) / b->job->group + 1;
}

static int32_t query_lo(const query_block *b, int32_t i)
{
    int32_t window = b->job->args->window;
    return window > 0 ? max32(0, query_hi(b, i) - window) : 0;
}

static float *query_part(const query_block *b, float *parts, int32_t i)
{
    return parts + (int64_t)i * (b->job->padded + 2);
}

/* Where the ATTENTION_BLOCK positions from j0 on lie in `pool`; zero_row outside [lo, hi). */
static void block_rows(const void **row, const query_block *b, const void *pool, int32_t j0, int32_t lo,
                       int32_t hi)
{
    const op_attention_args *a = b->job->args;
    const kv_layer *kv = &a->kv;
    int64_t row_bytes = (int64_t)dtype_row_bytes(kv->format, kv->C);
    for (int32_t i = 0; i < ATTENTION_BLOCK; i++) row[i] = zero_row;
    int32_t j = max32(j0, lo), end = min32(j0 + ATTENTION_BLOCK, hi);
    while (j < end) {
        int64_t page = a->pages[(int64_t)b->r * a->P + j / kv->S];
        int32_t slot = j % kv->S, stop = min32(end, j - slot + kv->S);
        const char *at = (const char *)pool + ((page * kv->K + b->k) * kv->S + slot) * row_bytes;
        for (; j < stop; j++, at += row_bytes) row[j - j0] = at;
    }
}

/* scores[i, j - base] = q[i] . k[j] for the positions of [lo, hi), which lies in the chunk that starts at base. */
static void score_chunk(const query_block *b, int32_t base, int32_t lo, int32_t hi)
{
    const attention_job *job = b->job;
    const kv_layer *kv = &job->args->kv;
    memset(b->ws.scores, 0, (size_t)b->n * ATTENTION_CHUNK * sizeof(float));
    int32_t first = lo / ATTENTION_BLOCK * ATTENTION_BLOCK;
    for (int32_t j0 = first; j0 < hi; j0 += ATTENTION_BLOCK) {
        const void *row[ATTENTION_BLOCK], *next[ATTENTION_BLOCK];
        bool last = j0 + ATTENTION_BLOCK >= hi;
        block_rows(next, b, last ? kv->v_pool : kv->k_pool, last ? first : j0 + ATTENTION_BLOCK, lo, hi);
        block_rows(row, b, kv->k_pool, j0, lo, hi);
        int32_t n = round_up(min32(hi - j0, ATTENTION_BLOCK));
        job->kernels->pack_k(b->ws.packed, row, next, n, kv->C, kv->format);
        int32_t from = 0, to = b->n; /* queries that see a position of this block */
        while (from < to && query_hi(b, from) <= j0) from++;
        while (to > from && query_lo(b, to - 1) >= j0 + ATTENTION_BLOCK) to--;
        panel_product p = {.out = b->ws.scores + from * ATTENTION_CHUNK + (j0 - base),
                           .a = b->ws.q + from * kv->C,
                           .b = b->ws.packed,
                           .out_stride = ATTENTION_CHUNK,
                           .a_stride = kv->C,
                           .b_stride = kv->C * ATTENTION_PANEL,
                           .rows = to - from,
                           .panels = n / ATTENTION_PANEL,
                           .first = 0,
                           .last = kv->C};
        job->kernels->multiply_add(&p);
    }
}

/* Turns scores into exponentials, with m and l of every query's part; a query that sees nothing here gets l = 0. */
static void softmax_chunk(const query_block *b, int32_t base)
{
    const attention_job *job = b->job;
    for (int32_t i = 0; i < b->n; i++) {
        float *part = query_part(b, b->ws.part, i), *s = b->ws.scores + i * ATTENTION_CHUNK;
        int32_t lo = max32(query_lo(b, i) - base, 0), hi = min32(query_hi(b, i) - base, ATTENTION_CHUNK);
        memset(part, 0, ((size_t)job->padded + 2) * sizeof *part);
        if (lo >= hi) continue;
        int32_t first = lo / ATTENTION_PANEL * ATTENTION_PANEL;
        int32_t last = round_up(hi);
        for (int32_t j = first; j < lo; j++) s[j] = -INFINITY;
        for (int32_t j = hi; j < last; j++) s[j] = -INFINITY;
        part[job->padded + 1] =
            job->kernels->softmax(s + first, last - first, job->args->scale, &part[job->padded]);
    }
}

/* part[i] += sum_j p[i, j] * v[j] for `rows` queries from i on and the positions [first, last) of a packed block. */
static void add_values(const query_block *b, int32_t i, int32_t rows, int32_t column, int32_t first,
                       int32_t last)
{
    if (first >= last) return;
    int32_t padded = b->job->padded;
    panel_product p = {.out = query_part(b, b->ws.part, i),
                       .a = b->ws.scores + i * ATTENTION_CHUNK + column,
                       .b = b->ws.packed,
                       .out_stride = padded + 2,
                       .a_stride = ATTENTION_CHUNK,
                       .b_stride = ATTENTION_BLOCK * ATTENTION_PANEL,
                       .rows = rows,
                       .panels = padded / ATTENTION_PANEL,
                       .first = first,
                       .last = last};
    b->job->kernels->multiply_add(&p);
}

/* The block at j0 for a tile of queries: the positions that all see in one product, and before and after it, token by
 * token, those that only some see. Each query adds exactly its own positions, in order. */
static void add_values_tile(const query_block *b, int32_t i, int32_t n, int32_t base, int32_t j0)
{
    int32_t first = max32(query_lo(b, i + n - 1) - j0, 0), last = min32(query_hi(b, i) - j0, ATTENTION_BLOCK);
    if (last < first) last = first;
    for (int32_t e = i, next; e < i + n; e = next) {
        for (next = e + 1; next < i + n && query_hi(b, next) == query_hi(b, e);) next++;
        int32_t lo = max32(query_lo(b, e) - j0, 0), hi = min32(query_hi(b, e) - j0, ATTENTION_BLOCK);
        add_values(b, e, next - e, j0 - base, lo, min32(first, hi));
    }
    add_values(b, i, n, j0 - base, first, last);
    for (int32_t e = i, next; e < i + n; e = next) {
        for (next = e + 1; next < i + n && query_hi(b, next) == query_hi(b, e);) next++;
        int32_t lo = max32(query_lo(b, e) - j0, 0), hi = min32(query_hi(b, e) - j0, ATTENTION_BLOCK);
        add_values(b, e, next - e, j0 - base, max32(last, lo), hi);
    }
}

static void value_chunk(const query_block *b, int32_t base, int32_t lo, int32_t hi)
{
    const attention_job *job = b->job;
    const kv_layer *kv = &job->args->kv;
    int32_t end = query_hi(b, b->n - 1);
    for (int32_t j0 = lo / ATTENTION_BLOCK * ATTENTION_BLOCK; j0 < hi; j0 += ATTENTION_BLOCK) {
        const void *row[ATTENTION_BLOCK], *next[ATTENTION_BLOCK];
        bool last = j0 + ATTENTION_BLOCK >= hi;
        block_rows(next, b, last ? kv->k_pool : kv->v_pool, j0 + ATTENTION_BLOCK, lo, last ? end : hi);
        block_rows(row, b, kv->v_pool, j0, lo, hi);
        job->kernels->pack_v(b->ws.packed, row, next, min32(hi - j0, ATTENTION_BLOCK), kv->C, kv->format);
        for (int32_t i = 0; i < b->n; i += TILE_QUERIES)
            add_values_tile(b, i, min32(TILE_QUERIES, b->n - i), base, j0);
    }
}

/* The parts of the block's queries for one chunk. */
static void attend_chunk(const query_block *b, int32_t chunk)
{
    int32_t base = chunk * ATTENTION_CHUNK;
    int32_t lo = max32(base, query_lo(b, 0)), hi = min32(base + ATTENTION_CHUNK, query_hi(b, b->n - 1));
    score_chunk(b, base, lo, hi);
    softmax_chunk(b, base);
    value_chunk(b, base, lo, hi);
}

/* total += part, both relative to their largest score. An empty total has l = 0. */
static void merge_part(float *restrict total, const float *restrict part, int32_t padded)
{
    float m = part[padded], l = part[padded + 1];
    if (l == 0) return;
    float old = total[padded + 1] == 0 ? -INFINITY : total[padded];
    float top = old > m ? old : m, shrink = expf(old - top), grow = expf(m - top);
    for (int32_t c = 0; c < padded; c++) total[c] = total[c] * shrink + part[c] * grow;
    total[padded] = top;
    total[padded + 1] = total[padded + 1] * shrink + l * grow;
}

static void write_head(const attention_job *job, int32_t t, int32_t h, const float *total)
{
    int32_t C = job->args->kv.C;
    float *out = job->args->out + (int64_t)t * job->args->out_stride + (int64_t)h * C;
    for (int32_t c = 0; c < C; c++) out[c] = total[c] / total[job->padded + 1];
}

static int32_t query_token(const query_block *b, int32_t i)
{
    return b->job->args->row_start[b->r] + (b->q0 + i) / b->job->group;
}

static int32_t query_head(const query_block *b, int32_t i)
{
    return b->k * b->job->group + (b->q0 + i) % b->job->group;
}

static void attend_whole(const query_block *b)
{
    const attention_job *job = b->job;
    memset(b->ws.total, 0, (size_t)b->n * ((size_t)job->padded + 2) * sizeof(float));
    int32_t last = (query_hi(b, b->n - 1) - 1) / ATTENTION_CHUNK;
    for (int32_t chunk = query_lo(b, 0) / ATTENTION_CHUNK; chunk <= last; chunk++) {
        attend_chunk(b, chunk);
        for (int32_t i = 0; i < b->n; i++)
            merge_part(query_part(b, b->ws.total, i), query_part(b, b->ws.part, i), job->padded);
    }
    for (int32_t i = 0; i < b->n; i++)
        write_head(job, query_token(b, i), query_head(b, i), query_part(b, b->ws.total, i));
}

static float *stored_part(const attention_job *job, int32_t t, int32_t h, int32_t chunk)
{
    return job->parts + (((int64_t)t * job->args->H + h) * job->chunks + chunk) * (job->padded + 2);
}

static void attend_one_chunk(const query_block *b, int32_t chunk)
{
    int32_t first = query_lo(b, 0) / ATTENTION_CHUNK, last = (query_hi(b, b->n - 1) - 1) / ATTENTION_CHUNK;
    if (chunk < first || chunk > last) return;
    attend_chunk(b, chunk);
    for (int32_t i = 0; i < b->n; i++)
        memcpy(stored_part(b->job, query_token(b, i), query_head(b, i), chunk), query_part(b, b->ws.part, i),
               ((size_t)b->job->padded + 2) * sizeof(float));
}

static int32_t row_of_item(const attention_job *job, int64_t item)
{
    int32_t r = 0, above = job->args->R;
    while (above - r > 1) {
        int32_t middle = r + (above - r) / 2;
        if (job->first_item[middle] <= item)
            r = middle;
        else
            above = middle;
    }
    return r;
}

/* Item = first_item[r] + (query block * K + k) * chunks of the row + chunk. */
static query_block find_block(const attention_job *job, int64_t item, int32_t *chunk, int worker)
{
    const op_attention_args *a = job->args;
    int32_t r = row_of_item(job, item), tokens = a->row_start[r + 1] - a->row_start[r];
    int64_t local = item - job->first_item[r];
    int32_t chunks = job->parts ? (a->kv_len[r] + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK : 1;
    *chunk = (int32_t)(local % chunks);
    local /= chunks;
    int32_t q0 = (int32_t)(local / a->kv.K) * job->block;
    return (query_block){.job = job,
                         .ws = workspace_of(job, worker),
                         .r = r,
                         .k = (int32_t)(local % a->kv.K),
                         .q0 = q0,
                         .n = min32(job->block, tokens * job->group - q0),
                         .pos0 = a->kv_len[r] - tokens};
}

static void attend_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const attention_job *job = arg;
    const op_attention_args *a = job->args;
    int32_t chunk;
    for (int64_t item = begin; item < end; item++) {
        query_block b = find_block(job, item, &chunk, worker);
        for (int32_t i = 0; i < b.n; i++)
            memcpy(b.ws.q + i * a->kv.C,
                   a->q + (int64_t)query_token(&b, i) * a->q_stride + (int64_t)query_head(&b, i) * a->kv.C,
                   (size_t)a->kv.C * sizeof(float));
        if (job->parts)
            attend_one_chunk(&b, chunk);
        else
            attend_whole(&b);
    }
}

/* Merges the stored parts of one token: item = t. */
static void merge_items(void *arg, int64_t begin, int64_t end, int worker)
{
    const attention_job *job = arg;
    const op_attention_args *a = job->args;
    float *total = workspace_of(job, worker).total;
    for (int64_t t = begin; t < end; t++) {
        int32_t r = 0;
        while (a->row_start[r + 1] <= t) r++;
        int32_t hi = a->kv_len[r] - (a->row_start[r + 1] - (int32_t)t) + 1;
        int32_t lo = a->window > 0 ? max32(0, hi - a->window) : 0;
        for (int32_t h = 0; h < a->H; h++) {
            memset(total, 0, ((size_t)job->padded + 2) * sizeof *total);
            for (int32_t chunk = lo / ATTENTION_CHUNK; chunk <= (hi - 1) / ATTENTION_CHUNK; chunk++)
                merge_part(total, stored_part(job, (int32_t)t, h, chunk), job->padded);
            write_head(job, (int32_t)t, h, total);
        }
    }
}

/* Fills first_item for blocks of job->block queries, chunk by chunk when parts are stored; returns the items. */
static int64_t count_items(attention_job *job)
{
    const op_attention_args *a = job->args;
    int64_t items = 0;
    for (int32_t r = 0; r < a->R; r++) {
        int64_t queries = (int64_t)(a->row_start[r + 1] - a->row_start[r]) * job->group;
        int64_t chunks = job->parts ? (a->kv_len[r] + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK : 1;
        job->first_item[r] = items;
        items += (queries + job->block - 1) / job->block * a->kv.K * chunks;
    }
    job->first_item[a->R] = items;
    return items;
}

static size_t align64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* The largest blocks that give every thread enough items; if even the smallest do not, chunks become items. */
static int64_t plan(attention_job *job, const cpu_context *cpu)
{
    const op_attention_args *a = job->args;
    int threads = thread_pool_threads(cpu->pool);
    int64_t wanted = threads == 1 ? 1 : ITEMS_A_THREAD * threads, items;
    size_t table = align64(((size_t)a->R + 1) * sizeof(int64_t));
    size_t work = align64((size_t)threads * (size_t)worker_floats(job->padded) * sizeof(float));
    assert(table + work <= cpu->scratch_bytes);
    job->first_item = cpu->scratch;
    job->workspace = (float *)((char *)cpu->scratch + table);
    for (job->block = MAX_QUERIES; (items = count_items(job)) < wanted && job->block > TILE_QUERIES;)
        job->block /= 2;
    for (int32_t r = 0; r < a->R; r++)
        job->chunks = max32(job->chunks, (a->kv_len[r] + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK);
    size_t parts =
        (size_t)a->T * (size_t)a->H * (size_t)job->chunks * ((size_t)job->padded + 2) * sizeof(float);
    if (items >= wanted || job->chunks == 1 || table + work + parts > cpu->scratch_bytes) return items;
    job->parts = (float *)((char *)cpu->scratch + table + work);
    return count_items(job);
}

/* Multiply-adds of the step, about. */
static int64_t work_of(const op_attention_args *a)
{
    int64_t positions = 0;
    for (int32_t r = 0; r < a->R; r++)
        positions += (int64_t)(a->row_start[r + 1] - a->row_start[r]) * a->kv_len[r];
    return 2 * positions * a->H * a->kv.C;
}

void op_attention_cpu(const op_attention_args *a, const cpu_context *cpu)
{
    if (a->T == 0) return;
    attention_job job = {
        .args = a, .kernels = kernels[cpu->isa], .group = a->H / a->kv.K, .padded = round_up(a->kv.C)};
    int64_t items = plan(&job, cpu);
    int64_t grain = work_of(a) < INLINE_WORK ? items : 1;
    thread_pool_run(cpu->pool, items, grain, attend_items, &job);
    if (job.parts) thread_pool_run(cpu->pool, a->T, 1, merge_items, &job);
}

size_t op_attention_scratch(int32_t T, int32_t H, int32_t C, int32_t max_context, int threads)
{
    size_t padded = (size_t)round_up(C), queries = (size_t)T * (size_t)H;
    /* Chunks are items only when there are fewer blocks of TILE_QUERIES than ITEMS_A_THREAD * threads. */
    size_t split = (size_t)(TILE_QUERIES * ITEMS_A_THREAD) * (size_t)threads;
    size_t chunks = ((size_t)max_context + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK;
    return align64(((size_t)T + 1) * sizeof(int64_t)) +
           align64((size_t)threads * (size_t)worker_floats((int32_t)padded) * sizeof(float)) +
           (queries < split ? queries : split) * chunks * (padded + 2) * sizeof(float);
}
