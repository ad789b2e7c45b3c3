/* The reference backend: the plain formula of every op on one thread. Slow on purpose; the oracle of the others. */
#include "backend/backend.h"
#include "backend/marks.h"

#include <stdlib.h>

typedef struct {
    backend base;
    clock_marks marks;
} reference_backend;

/* clang-format off */
static void run_embed(backend *b, const op_args *a) { (void)b; op_embed_ref(&a->embed); }
static void run_rope_table(backend *b, const op_args *a) { (void)b; op_rope_table_ref(&a->rope_table); }
static void run_rmsnorm(backend *b, const op_args *a) { (void)b; op_rmsnorm_ref(&a->rmsnorm); }
static void run_linear(backend *b, const op_args *a) { (void)b; op_linear_ref(&a->linear); }
static void run_rope(backend *b, const op_args *a) { (void)b; op_rope_ref(&a->rope); }
static void run_kv_write(backend *b, const op_args *a) { (void)b; op_kv_write_ref(&a->kv_write); }
static void run_attention(backend *b, const op_args *a) { (void)b; op_attention_ref(&a->attention); }
static void run_silu_mul(backend *b, const op_args *a) { (void)b; op_silu_mul_ref(&a->silu_mul); }
static void run_gather(backend *b, const op_args *a) { (void)b; op_gather_ref(&a->gather); }
static void run_draw(backend *b, const op_args *a) { (void)b; op_draw_ref(&a->draw); }
static void run_norm_linear(backend *b, const op_args *a) { (void)b; op_norm_linear_ref(&a->norm_linear); }
static void run_rope_attention(backend *b, const op_args *a) { (void)b; op_rope_attention_ref(&a->rope_attention); }
/* clang-format on */

static nvllm_status reference_open(backend **out, const backend_options *options, nvllm_error *err)
{
    (void)options;
    reference_backend *b = calloc(1, sizeof *b);
    if (!b) return error_memory(err, sizeof *b, "the reference backend");
    b->base.type = &backend_reference;
    b->base.threads = 1;
    b->base.isa = "plain";
    *out = &b->base;
    return NVLLM_OK;
}

static void reference_close(backend *b)
{
    clock_marks_free(&((reference_backend *)b)->marks);
    free(b);
}

static void *reference_alloc(backend *b, size_t bytes)
{
    (void)b;
    return calloc(1, bytes);
}

static void reference_free(backend *b, void *memory, size_t bytes)
{
    (void)b;
    (void)bytes;
    free(memory);
}

static size_t reference_scratch_bytes(backend *b, const backend_shape *shape)
{
    (void)b;
    (void)shape;
    return 0;
}

static nvllm_status reference_reserve_scratch(backend *b, const backend_shape *shape, nvllm_error *err)
{
    (void)b;
    (void)shape;
    (void)err;
    return NVLLM_OK;
}

static bool reference_mark(backend *b, int32_t i)
{
    return clock_marks_set(&((reference_backend *)b)->marks, i);
}

static double reference_between(backend *b, int32_t i, int32_t j)
{
    return clock_marks_between(&((reference_backend *)b)->marks, i, j);
}

static bool reference_can_fuse(op_kind kind, const weight *const *parts, int32_t n_parts)
{
    (void)kind;
    (void)parts;
    (void)n_parts;
    return true;
}

const backend_type backend_reference = {
    .name = "reference",
    .open = reference_open,
    .close = reference_close,
    .alloc = reference_alloc,
    .free = reference_free,
    .scratch_bytes = reference_scratch_bytes,
    .reserve_scratch = reference_reserve_scratch,
    .mark = reference_mark,
    .between = reference_between,
    .can_fuse = reference_can_fuse,
    .op = {[OP_EMBED] = run_embed,
           [OP_ROPE_TABLE] = run_rope_table,
           [OP_RMSNORM] = run_rmsnorm,
           [OP_LINEAR] = run_linear,
           [OP_ROPE] = run_rope,
           [OP_KV_WRITE] = run_kv_write,
           [OP_ATTENTION] = run_attention,
           [OP_SILU_MUL] = run_silu_mul,
           [OP_GATHER] = run_gather,
           [OP_DRAW] = run_draw,
           [OP_NORM_LINEAR] = run_norm_linear,
           [OP_ROPE_ATTENTION] = run_rope_attention},
};
