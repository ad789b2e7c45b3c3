/* The CPU backend: thread pool, scratch memory, and the fast kernel of every op. */
#define _GNU_SOURCE
#include "backend/backend.h"
#include "backend/marks.h"
#include "ops/probe.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
    backend base;
    cpu_context cpu;
    clock_marks marks;
} cpu_backend;

static const cpu_context *context(const backend *b)
{
    return &((const cpu_backend *)b)->cpu;
}

/* clang-format off */
static void run_embed(backend *b, const op_args *a) { op_embed_cpu(&a->embed, context(b)); }
static void run_rope_table(backend *b, const op_args *a) { op_rope_table_cpu(&a->rope_table, context(b)); }
static void run_rmsnorm(backend *b, const op_args *a) { op_rmsnorm_cpu(&a->rmsnorm, context(b)); }
static void run_linear(backend *b, const op_args *a) { op_linear_cpu(&a->linear, context(b)); }
static void run_rope(backend *b, const op_args *a) { op_rope_cpu(&a->rope, context(b)); }
static void run_kv_write(backend *b, const op_args *a) { op_kv_write_cpu(&a->kv_write, context(b)); }
static void run_attention(backend *b, const op_args *a) { op_attention_cpu(&a->attention, context(b)); }
static void run_silu_mul(backend *b, const op_args *a) { op_silu_mul_cpu(&a->silu_mul, context(b)); }
static void run_gather(backend *b, const op_args *a) { op_gather_cpu(&a->gather, context(b)); }
static void run_draw(backend *b, const op_args *a) { (void)b; op_draw_ref(&a->draw); }
/* clang-format on */

static nvllm_status pick_isa(cpu_isa *out, const char *name, nvllm_error *err)
{
    cpu_isa best = cpu_isa_detect();
    *out = best;
    if (!name) return NVLLM_OK;
    int isa = cpu_isa_parse(name);
    if (isa < 0)
        return error_set(err, NVLLM_ERR_USAGE, "unknown instruction set \"%s\" (known: scalar, avx2, avx512)",
                         name);
    if (isa > (int)best)
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "this CPU does not run %s; the best it runs is %s", name,
                         cpu_isa_name(best));
    *out = (cpu_isa)isa;
    return NVLLM_OK;
}

static void cpu_close(backend *b)
{
    cpu_backend *cpu = (cpu_backend *)b;
    thread_pool_close(cpu->cpu.pool);
    free(cpu->cpu.scratch);
    clock_marks_free(&cpu->marks);
    free(cpu);
}

static nvllm_status cpu_open(backend **out, const backend_options *options, nvllm_error *err)
{
    cpu_isa isa;
    nvllm_status st = pick_isa(&isa, options->isa, err);
    if (st) return st;
    cpu_backend *cpu = calloc(1, sizeof *cpu);
    if (!cpu) return error_memory(err, sizeof *cpu, "the CPU backend");
    cpu->base.type = &backend_cpu;
    cpu->base.isa = cpu_isa_name(isa);
    cpu->cpu.isa = isa;
    st = thread_pool_open(&cpu->cpu.pool, options->threads > 0 ? options->threads : thread_count_default(),
                          err);
    if (st) {
        free(cpu);
        return st;
    }
    cpu->base.threads = thread_pool_threads(cpu->cpu.pool);
    *out = &cpu->base;
    return NVLLM_OK;
}

/* Anonymous maps: zero until touched, so an unused part of a KV cache costs nothing. */
static void *cpu_alloc(backend *b, size_t bytes)
{
    (void)b;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void cpu_free(backend *b, void *memory, size_t bytes)
{
    (void)b;
    if (memory) munmap(memory, bytes);
}

static size_t scratch_of(const backend_shape *s, int threads)
{
    int32_t rows = s->max_tokens > s->max_logits ? s->max_tokens : s->max_logits;
    size_t linear = op_linear_scratch(rows, s->widest_input, threads);
    size_t attention = op_attention_scratch(s->max_tokens, s->H, s->C, s->max_context, threads);
    return linear > attention ? linear : attention;
}

static size_t cpu_scratch_bytes(backend *b, const backend_shape *shape)
{
    return (scratch_of(shape, b->threads) + 63) & ~(size_t)63;
}

static nvllm_status cpu_reserve_scratch(backend *b, const backend_shape *shape, nvllm_error *err)
{
    cpu_context *cpu = &((cpu_backend *)b)->cpu;
    size_t bytes = cpu_scratch_bytes(b, shape);
    if (bytes <= cpu->scratch_bytes) return NVLLM_OK;
    void *scratch = aligned_alloc(64, bytes);
    if (!scratch) return error_memory(err, bytes, "the CPU kernels' scratch");
    free(cpu->scratch);
    cpu->scratch = scratch;
    cpu->scratch_bytes = bytes;
    return NVLLM_OK;
}

static backend_limits cpu_measure(backend *b)
{
    const cpu_context *cpu = context(b);
    return (backend_limits){probe_memory_bandwidth(cpu->pool), probe_bf16_flops(cpu->pool, cpu->isa)};
}

static bool cpu_mark(backend *b, int32_t i)
{
    return clock_marks_set(&((cpu_backend *)b)->marks, i);
}

static double cpu_between(backend *b, int32_t i, int32_t j)
{
    return clock_marks_between(&((cpu_backend *)b)->marks, i, j);
}

const backend_type backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .scratch_bytes = cpu_scratch_bytes,
    .reserve_scratch = cpu_reserve_scratch,
    .measure = cpu_measure,
    .mark = cpu_mark,
    .between = cpu_between,
    .op = {[OP_EMBED] = run_embed,
           [OP_ROPE_TABLE] = run_rope_table,
           [OP_RMSNORM] = run_rmsnorm,
           [OP_LINEAR] = run_linear,
           [OP_ROPE] = run_rope,
           [OP_KV_WRITE] = run_kv_write,
           [OP_ATTENTION] = run_attention,
           [OP_SILU_MUL] = run_silu_mul,
           [OP_GATHER] = run_gather,
           [OP_DRAW] = run_draw},
};
