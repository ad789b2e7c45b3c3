/* Matrix products on the CPU: packs the inputs, then shares the rows of the weights out to the threads.
 *
 * A thread gets runs of consecutive rows, so that it reads memory as one stream (decode is bound by that), and does
 * them in blocks that stay in its second-level cache while all tokens pass by (prefill is bound by arithmetic).
 * Parts of different formats (GGUF files mix them) are done one format after the other. */
#include "ops/linear.h"

#include "ops/linear_kernels.h"

#include <assert.h>

enum {
    BLOCK_BYTES = 256 * 1024,   /* of weights, per visit of all tokens: a quarter of the L2 cache */
    TASK_COST_MIN = 128 * 1024, /* bytes of weights * tokens below which a task is not worth handing over */
    PACK_ELEMENTS_MIN = 16 * 1024, /* the same for packing */
    ALIGNMENT = 64,
    PAGE = 4096, /* addresses that differ by it share a set of the L1 cache */
    TOKEN_SKEW = 704
};

typedef struct {
    const op_linear_args *args;
    const linear_kernel *kernel;
    dtype format;
    int32_t cols;
    uint8_t *packed;
    size_t packed_stride;
} product;

static const linear_kernel *kernel_of(cpu_isa isa, dtype format)
{
    switch (isa) {
    case ISA_AVX512: return &linear_kernels_avx512[format];
    case ISA_AVX2: return &linear_kernels_avx2[format];
    default: return &linear_kernels_scalar[format];
    }
}

/* Bytes between packed tokens: the six tokens of a tile start a sixth of a page apart, modulo the page, or else those
 * with 2^n cols would crowd each other out of the same sets of the L1 cache (24 % slower at 2048 cols). */
static size_t stride_of_packed(const linear_kernel *kernel, int32_t cols)
{
    size_t bytes = kernel->packed_bytes(cols);
    return bytes + (TOKEN_SKEW + PAGE - bytes % PAGE) % PAGE;
}

static void pack_tokens(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const product *p = arg;
    for (int64_t t = begin; t < end; t++)
        p->kernel->pack(p->packed + p->packed_stride * (size_t)t, p->args->in + t * p->args->in_stride,
                        p->cols);
}

/* Rows [begin, end) of one part, for all tokens. */
static void do_rows(const product *p, const linear_part *part, int64_t begin, int64_t end)
{
    const op_linear_args *a = p->args;
    size_t stride = dtype_row_bytes(p->format, p->cols);
    int64_t step = (int64_t)linear_round_up(BLOCK_BYTES / stride + 1, LINEAR_TILE_ROWS);
    for (int64_t n = begin; n < end; n += step) {
        linear_block b = {
            .out = a->out + part->out_col + n,
            .out_stride = a->out_stride,
            .bias = part->bias ? part->bias + n : NULL,
            .w = (const uint8_t *)part->w->data + stride * (size_t)n,
            .w_stride = stride,
            .x = p->packed,
            .x_stride = p->packed_stride,
            .T = a->T,
            .rows = (int32_t)(end - n < step ? end - n : step),
            .cols = p->cols,
            .accumulate = a->accumulate,
        };
        p->kernel->block(&b);
    }
}

static int64_t tile_count(const weight *w)
{
    return ((int64_t)w->rows + LINEAR_TILE_ROWS - 1) / LINEAR_TILE_ROWS;
}

/* Items of the parallel loop are tiles of LINEAR_TILE_ROWS rows, numbered through all parts of the format. */
static void multiply_tiles(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const product *p = arg;
    int64_t first = 0; /* tile of the part */
    for (int i = 0; i < p->args->n_parts; i++) {
        const linear_part *part = &p->args->part[i];
        if (part->w->format != p->format) continue;
        int64_t tiles = tile_count(part->w), from = begin - first, to = end - first;
        if (from < 0) from = 0;
        if (to > tiles) to = tiles;
        int64_t last_row = to * LINEAR_TILE_ROWS;
        if (last_row > part->w->rows) last_row = part->w->rows;
        if (from < to) do_rows(p, part, from * LINEAR_TILE_ROWS, last_row);
        first += tiles;
    }
}

static void multiply_format(product *p, const cpu_context *cpu)
{
    const op_linear_args *a = p->args;
    int64_t tiles = 0, cost = (int64_t)dtype_row_bytes(p->format, p->cols) * LINEAR_TILE_ROWS * a->T;
    for (int i = 0; i < a->n_parts; i++)
        if (a->part[i].w->format == p->format) tiles += tile_count(a->part[i].w);
    assert(p->cols > 0);
    p->kernel = kernel_of(cpu->isa, p->format);
    p->packed = cpu->scratch;
    p->packed_stride = stride_of_packed(p->kernel, p->cols);
    assert((uintptr_t)p->packed % ALIGNMENT == 0 && p->packed_stride * (size_t)a->T <= cpu->scratch_bytes);
    thread_pool_run(cpu->pool, a->T, PACK_ELEMENTS_MIN / p->cols + 1, pack_tokens, p);
    thread_pool_run(cpu->pool, tiles, TASK_COST_MIN / cost + 1, multiply_tiles, p);
}

void op_linear_cpu(const op_linear_args *a, const cpu_context *cpu)
{
    assert(a->n_parts >= 1 && a->n_parts <= LINEAR_MAX_PARTS);
    if (a->T <= 0) return;
    for (int format = 0; format < DTYPE_COUNT; format++)
        for (int i = 0; i < a->n_parts; i++) {
            const weight *w = a->part[i].w;
            if (w->format != (dtype)format) continue;
            product p = {.args = a, .format = w->format, .cols = w->cols};
            multiply_format(&p, cpu); /* all parts of this format */
            break;
        }
}

size_t op_linear_scratch(int32_t T, int32_t cols, int threads)
{
    (void)threads; /* packed inputs are shared */
    static const cpu_isa isas[] = {ISA_SCALAR, ISA_AVX2, ISA_AVX512};
    size_t most = 0;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        for (int format = 0; format < DTYPE_COUNT; format++) {
            size_t bytes = stride_of_packed(kernel_of(isas[i], (dtype)format), cols);
            if (bytes > most) most = bytes;
        }
    return most * (size_t)T;
}
