/* Times our ops alone on the GPU, fused and single, in the shapes of three models: one half of the comparison in
 * docs/fused-kernels.md, torch_ops.py being the other. JSON lines on stdout, one per measurement.
 *
 * A measurement is one recorded list of CALLS times the same op (or group of ops), each with another layer's weights, as
 * in a model: LAYERS_BYTES of the smallest of them are far more than the L2 cache, so weights come from memory. Launches
 * are part of the list and the device never waits for the host: mark, list, mark are asked for while the list before
 * them still runs. "hot" measurements, for contrast, use one layer's weights again and again. */
#include "backend/backend.h"

#include <stdio.h>
#include <stdlib.h>

enum { CALLS = 100, ROUNDS = 7, MOST_TOKENS = 512, MOST_LAYERS = 80 };

static const int32_t token_counts[] = {1, 8, 32, 512};
static const double LAYERS_BYTES = 250e6;

typedef struct {
    const char *name;
    int32_t D, H, K, C, F;
} model_shape;

typedef struct {
    weight q, k, v, o, gate, up, down;
    float *norm;
} layer;

typedef struct {
    backend *device;
    const model_shape *m;
    layer layers[MOST_LAYERS];
    int n_layers, n_memory;
    void *memory[MOST_LAYERS * 8 + 8];
    float *x, *normed, *qkv, *attention, *gate_up, *gated, *residual; /* [MOST_TOKENS, ...] */
} bench;

static void die(const char *message)
{
    fprintf(stderr, "compare_ops: %s\n", message);
    exit(1);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void *take(bench *b, size_t bytes)
{
    void *p = b->device->type->alloc(b->device, bytes);
    if (!p) die("the GPU has not enough memory");
    return b->memory[b->n_memory++] = p;
}

static void *take_copy(bench *b, const void *from, size_t bytes)
{
    nvllm_error err = {0};
    void *p = take(b, bytes);
    if (b->device->type->copy_in(b->device, p, from, bytes, &err)) die(err.message);
    return p;
}

/* bf16 numbers of magnitude 2^-6 .. 2^-5 and both signs; as float32, pairs of them are numbers of that size too. */
static uint16_t *random_block(size_t elements)
{
    uint16_t *data = malloc(elements * sizeof *data);
    uint32_t random = 1;
    if (!data) die("not enough memory");
    for (size_t i = 0; i < elements; i++) {
        random = random * 1664525u + 1013904223u;
        data[i] = (uint16_t)(0x3c80u | (random >> 31 << 15) | (random >> 20 & 0x7fu));
    }
    return data;
}

static size_t matrix_bytes(int32_t rows, int32_t cols)
{
    return (size_t)rows * (size_t)cols * sizeof(uint16_t);
}

static weight make_weight(bench *b, const uint16_t *random, int32_t rows, int32_t cols)
{
    return (weight){DTYPE_BF16, rows, cols, take_copy(b, random, matrix_bytes(rows, cols))};
}

static void make_layers(bench *b, const uint16_t *random)
{
    const model_shape *m = b->m;
    b->n_layers = (int)(LAYERS_BYTES / (double)matrix_bytes(m->D, m->H * m->C)) + 1;
    if (b->n_layers > MOST_LAYERS) b->n_layers = MOST_LAYERS;
    for (int i = 0; i < b->n_layers; i++)
        b->layers[i] = (layer){.q = make_weight(b, random, m->H * m->C, m->D),
                               .k = make_weight(b, random, m->K * m->C, m->D),
                               .v = make_weight(b, random, m->K * m->C, m->D),
                               .o = make_weight(b, random, m->D, m->H * m->C),
                               .gate = make_weight(b, random, m->F, m->D),
                               .up = make_weight(b, random, m->F, m->D),
                               .down = make_weight(b, random, m->D, m->F),
                               .norm = take_copy(b, random, (size_t)m->D * sizeof(float))};
}

static float *make_activations(bench *b, const uint16_t *random, int32_t width)
{
    return take_copy(b, random, (size_t)MOST_TOKENS * (size_t)width * sizeof(float));
}

static void make_bench(bench *b, backend *device, const model_shape *m)
{
    nvllm_error err = {0};
    backend_shape shape = {.max_tokens = MOST_TOKENS,
                           .max_logits = 1,
                           .widest_input = m->F,
                           .max_rows = 1,
                           .H = m->H,
                           .C = m->C,
                           .F = m->F,
                           .V = 1024,
                           .max_context = MOST_TOKENS};
    *b = (bench){.device = device, .m = m};
    if (device->type->reserve_scratch(device, &shape, &err)) die(err.message);
    size_t most =
        (size_t)m->F * (size_t)(m->D > 4 * MOST_TOKENS ? m->D : 4 * MOST_TOKENS); /* matrix, gate_up */
    uint16_t *random = random_block(most);
    make_layers(b, random);
    b->x = make_activations(b, random, m->D);
    b->normed = make_activations(b, random, m->D);
    b->qkv = make_activations(b, random, (m->H + 2 * m->K) * m->C);
    b->attention = make_activations(b, random, m->H * m->C);
    b->gate_up = make_activations(b, random, 2 * m->F);
    b->gated = make_activations(b, random, m->F);
    b->residual = make_activations(b, random, m->D);
    free(random);
}

static void free_bench(bench *b)
{
    while (b->n_memory > 0) b->device->type->free(b->device, b->memory[--b->n_memory], 0);
}

/* ---- The groups of ops --------------------------------------------------------------------------------------- */

static void run(bench *b, op_kind kind, op_args a)
{
    b->device->type->op[kind](b->device, &a);
}

static void run_norm(bench *b, const layer *l, int32_t T)
{
    int32_t D = b->m->D;
    op_rmsnorm_args norm = {.out = b->normed, .out_stride = D, .in = b->x, .in_stride = D};
    norm.w = l->norm;
    norm.T = T;
    norm.groups = 1;
    norm.width = D;
    norm.eps = 1e-6f;
    run(b, OP_RMSNORM, (op_args){.rmsnorm = norm});
}

static op_linear_args linear_of(float *out, int32_t out_stride, const float *in, int32_t in_stride, int32_t T)
{
    return (op_linear_args){.out = out, .out_stride = out_stride, .in = in, .in_stride = in_stride, .T = T};
}

static op_linear_args qkv_of(const bench *b, const layer *l, const float *in, int32_t T)
{
    const model_shape *m = b->m;
    op_linear_args a = linear_of(b->qkv, (m->H + 2 * m->K) * m->C, in, m->D, T);
    a.n_parts = 3;
    a.part[0] = (linear_part){.w = &l->q};
    a.part[1] = (linear_part){.w = &l->k, .out_col = m->H * m->C};
    a.part[2] = (linear_part){.w = &l->v, .out_col = (m->H + m->K) * m->C};
    return a;
}

static void run_norm_qkv(bench *b, const layer *l, int32_t T)
{
    run_norm(b, l, T);
    run(b, OP_LINEAR, (op_args){.linear = qkv_of(b, l, b->normed, T)});
}

static void run_norm_qkv_fused(bench *b, const layer *l, int32_t T)
{
    op_norm_linear_args a = {.linear = qkv_of(b, l, b->x, T), .norm = l->norm, .eps = 1e-6f};
    run(b, OP_NORM_LINEAR, (op_args){.norm_linear = a});
}

static void run_add(bench *b, const weight *w, const float *in, int32_t T)
{
    op_linear_args a = linear_of(b->residual, b->m->D, in, w->cols, T);
    a.n_parts = 1;
    a.part[0].w = w;
    a.accumulate = true;
    run(b, OP_LINEAR, (op_args){.linear = a});
}

static void run_mlp(bench *b, const layer *l, int32_t T)
{
    int32_t D = b->m->D, F = b->m->F;
    op_linear_args both = linear_of(b->gate_up, 2 * F, b->normed, D, T);
    op_silu_mul_args silu = {b->gated, b->gate_up, b->gate_up + F, F, 2 * F, T, F};
    both.n_parts = 2;
    both.part[0].w = &l->gate;
    both.part[1] = (linear_part){.w = &l->up, .out_col = F};
    run_norm(b, l, T);
    run(b, OP_LINEAR, (op_args){.linear = both});
    run(b, OP_SILU_MUL, (op_args){.silu_mul = silu});
    run_add(b, &l->down, b->gated, T);
}

static void run_mlp_fused(bench *b, const layer *l, int32_t T)
{
    op_norm_linear_args a = {.norm = l->norm, .eps = 1e-6f, .gated = true};
    a.linear = linear_of(b->gated, b->m->F, b->x, b->m->D, T);
    a.linear.n_parts = 2;
    a.linear.part[0].w = &l->gate;
    a.linear.part[1].w = &l->up;
    run(b, OP_NORM_LINEAR, (op_args){.norm_linear = a});
    run_add(b, &l->down, b->gated, T);
}

static void run_o_add(bench *b, const layer *l, int32_t T)
{
    run_add(b, &l->o, b->attention, T);
}

typedef struct {
    const char *name, *form;
    void (*run)(bench *b, const layer *l, int32_t T);
} group;

static const group groups[] = {
    {"norm", "single", run_norm},         {"norm_qkv", "fused", run_norm_qkv_fused},
    {"norm_qkv", "single", run_norm_qkv}, {"mlp", "fused", run_mlp_fused},
    {"mlp", "single", run_mlp},           {"o_add", "fused", run_o_add},
};

/* ---- Measurement --------------------------------------------------------------------------------------------- */

/* Of the group's weights, and of its own inputs and outputs: what lies between its ops is not counted. */
static void work_of(const bench *b, const group *g, int32_t T, double *bytes, double *flops)
{
    const model_shape *m = b->m;
    double D = m->D, q = (double)m->H * m->C, all = q + 2.0 * m->K * m->C, F = m->F, elements, activations;
    switch (g->name[0]) {
    case 'm': elements = 3 * F * D, activations = 3 * D; break; /* in; the residual, read and written */
    case 'o': elements = q * D, activations = q + 2 * D; break;
    default: elements = g->name[4] ? all * D : 0; activations = g->name[4] ? D + all : 2 * D;
    }
    *bytes = elements * sizeof(uint16_t) + activations * T * sizeof(float);
    *flops = 2 * elements * T;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void replay(bench *b, int32_t key)
{
    if (!b->device->type->replay(b->device, key)) die("a recorded list is missing");
}

/* Microseconds per call of every round, sorted. */
static void time_group(bench *b, const group *g, int32_t T, int n_layers, int32_t key, double *us)
{
    const backend_type *type = b->device->type;
    nvllm_error err = {0};
    float word;
    type->record(b->device);
    for (int i = 0; i < CALLS; i++) g->run(b, &b->layers[i % n_layers], T);
    if (type->record_end(b->device, key, &err)) die(err.message);
    replay(b, key);
    for (int i = 0; i < ROUNDS; i++) {
        replay(b, key); /* keeps the device busy until the marked list is there */
        bool marked = type->mark(b->device, 0);
        replay(b, key);
        if (!marked || !type->mark(b->device, 1)) die("no memory for time marks");
        us[i] = type->between(b->device, 0, 1) / CALLS;
    }
    if (type->copy_out(b->device, &word, b->residual, sizeof word, &err)) die(err.message);
    qsort(us, ROUNDS, sizeof *us, by_value);
}

static void measure(bench *b, const group *g, int32_t T, bool hot, int32_t *key)
{
    double us[ROUNDS], bytes, flops;
    time_group(b, g, T, hot ? 1 : b->n_layers, ++*key, us);
    work_of(b, g, T, &bytes, &flops);
    printf(
        "{\"library\": \"nano-vllm\", \"device\": \"%s\", \"model\": \"%s\", \"op\": \"%s\", \"form\": "
        "\"%s\", "
        "\"weights\": \"%s\", \"T\": %d, \"us\": %.3f, \"us_min\": %.3f, \"us_max\": %.3f, \"gb_s\": %.1f, "
        "\"tflop_s\": %.2f}\n",
        b->device->isa, b->m->name, g->name, g->form, hot ? "hot" : "cold", T, us[ROUNDS / 2], us[0],
        us[ROUNDS - 1], bytes / us[ROUNDS / 2] * 1e-3, flops / us[ROUNDS / 2] * 1e-6);
    fflush(stdout);
}

int main(void)
{
    static const model_shape models[] = {{"Qwen3-0.6B", 1024, 16, 8, 128, 3072},
                                         {"Llama-3.2-1B", 2048, 32, 8, 64, 8192},
                                         {"Llama-3.1-8B", 4096, 32, 8, 128, 14336}};
    static bench b;
    backend *device;
    nvllm_error err = {0};
    int32_t key = 0;
    if (backend_open(&device, "cuda", &(backend_options){0}, &err)) die(err.message);
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        make_bench(&b, device, &models[m]);
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
            for (size_t t = 0; t < sizeof token_counts / sizeof *token_counts; t++)
                measure(&b, &groups[g], token_counts[t], false, &key);
            measure(&b, &groups[g], 1, true, &key);
        }
        free_bench(&b);
    }
    backend_close(device);
    return 0;
}
