/* Recognises the op list that ops/persistent.cu runs as one kernel:
 *     rope_table, embed, L * { norm_linear(q, k, v), rope_attention, linear(o), norm_linear(gate, up), linear(down) },
 *     norm_linear(lm_head)
 * with bf16 matrices and cache. Any other list keeps its ops; which op or figure stands against it is said in a clause. */
#include "backend/cuda_chain.cuh"

extern "C" {
#include "backend/cuda.h"
}

#include <stdio.h>
#include <stdlib.h>

enum { AT_ROPE_TABLE, AT_EMBED, BEFORE_LAYERS, LAYER_OPS = 5 };

typedef struct {
    op_chain base;
    persistent_model model;
    persistent_layer *layers; /* on the device, as model.layers */
} cuda_chain;

/* ---- Recognising --------------------------------------------------------------------------------------------- */

/* A product of these rows, if it is like the others; NULL or what is wrong. */
static const char *take_product(persistent_product *out, const op_linear_args *l, const float *norm,
                                int32_t n_parts, int32_t cols)
{
    if (l->n_parts != n_parts) return "its products have other parts";
    for (int32_t p = 0; p < n_parts; p++) {
        const weight *w = l->part[p].w;
        if (w->format != DTYPE_BF16) return "its matrices are not all BF16";
        if (w->cols != cols || (uintptr_t)w->data % 16 != 0) return "its matrices have other shapes";
        out->w[p] = (const __nv_bfloat16 *)w->data;
        out->bias[p] = l->part[p].bias;
    }
    out->norm = norm;
    return (uintptr_t)norm % 16 == 0 ? NULL : "its norms are not aligned";
}

static bool has_rows(const op_linear_args *l, int32_t first, int32_t others)
{
    for (int32_t p = 0; p < l->n_parts; p++)
        if (l->part[p].w->rows != (p == 0 ? first : others)) return false;
    return true;
}

static const char *take_layer(persistent_layer *out, const persistent_model *m, const op_kind *kind,
                              const op_args *a)
{
    static const op_kind wanted[LAYER_OPS] = {OP_NORM_LINEAR, OP_ROPE_ATTENTION, OP_LINEAR, OP_NORM_LINEAR,
                                              OP_LINEAR};
    for (int i = 0; i < LAYER_OPS; i++)
        if (kind[i] != wanted[i]) return "its layers have other ops";
    const op_norm_linear_args *qkv = &a[0].norm_linear, *gate_up = &a[3].norm_linear;
    const op_rope_attention_args *t = &a[1].rope_attention;
    const op_linear_args *o = &a[2].linear, *down = &a[4].linear;
    const kv_layer *kv = &t->attention.kv;
    int32_t q = m->H * m->C;
    if (qkv->gated || qkv->row || !gate_up->gated || gate_up->row || !o->accumulate || !down->accumulate)
        return "its layers have other ops";
    if (kv->format != DTYPE_BF16) return "its KV cache is not BF16";
    if ((uintptr_t)kv->k_pool % 16 || (uintptr_t)kv->v_pool % 16) return "its KV cache is not aligned";
    const char *why = take_product(&out->product[PRODUCT_QKV], &qkv->linear, qkv->norm, 3, m->D);
    if (!why) why = take_product(&out->product[PRODUCT_OUT], o, NULL, 1, q);
    if (!why) why = take_product(&out->product[PRODUCT_GATE_UP], &gate_up->linear, gate_up->norm, 2, m->D);
    if (!why) why = take_product(&out->product[PRODUCT_DOWN], down, NULL, 1, m->F);
    if (why) return why;
    if (!has_rows(&qkv->linear, q, m->K * m->C) || !has_rows(o, m->D, 0) ||
        !has_rows(&gate_up->linear, m->F, m->F) || !has_rows(down, m->D, 0) || t->attention.H != m->H ||
        kv->K != m->K || kv->C != m->C)
        return "its layers have different shapes";
    out->q_norm = t->q_norm;
    out->k_norm = t->k_norm;
    out->k_pool = kv->k_pool;
    out->v_pool = kv->v_pool;
    out->window = (int32_t)t->attention.window;
    return NULL;
}

/* Sizes and what is there once; the list is long enough. */
static const char *take_model(persistent_model *m, const op_kind *kind, const op_args *a, int32_t ops)
{
    const op_args *layer = a + BEFORE_LAYERS;
    if (kind[AT_EMBED] != OP_EMBED || kind[AT_ROPE_TABLE] != OP_ROPE_TABLE || kind[2] != OP_NORM_LINEAR ||
        kind[3] != OP_ROPE_ATTENTION || kind[5] != OP_NORM_LINEAR || kind[ops - 1] != OP_NORM_LINEAR)
        return "its op list is another one";
    const weight *table = a[AT_EMBED].embed.table;
    const op_rope_attention_args *t = &layer[1].rope_attention;
    const op_norm_linear_args *head = &a[ops - 1].norm_linear;
    m->L = (ops - BEFORE_LAYERS - 1) / LAYER_OPS;
    m->D = table->cols;
    m->F = layer[3].norm_linear.linear.part[0].w->rows;
    m->V = head->linear.part[0].w->rows;
    m->H = t->attention.H;
    m->K = t->attention.kv.K;
    m->C = t->attention.kv.C;
    m->eps = head->eps;
    m->embedding = table->data;
    m->embedding_format = table->format;
    m->embedding_row = weight_row_bytes(table);
    m->inv_freq = a[AT_ROPE_TABLE].rope_table.inv_freq;
    m->rope_scale = a[AT_ROPE_TABLE].rope_table.scale;
    m->pairing = t->pairing;
    m->page_slots = t->attention.kv.S;
    if (head->gated || head->linear.accumulate || !head->row) return "its op list is another one";
    return take_product(&m->head, &head->linear, head->norm, 1, m->D);
}

/* How many of the ops the list would have: those before the draw. */
static int32_t leading_ops(const op_kind *kinds, int32_t n)
{
    int32_t ops = 0;
    while (ops < n && kinds[ops] != OP_DRAW) ops++;
    return ops;
}

static const char *recognise(persistent_model *m, persistent_layer *layers, const op_kind *kinds,
                             const op_args *args, int32_t ops, const cuda_context *cuda)
{
    const char *why = take_model(m, kinds, args, ops);
    for (int32_t l = 0; !why && l < m->L; l++) {
        int32_t at = BEFORE_LAYERS + l * LAYER_OPS;
        why = take_layer(&layers[l], m, kinds + at, args + at);
    }
    return why ? why : persistent_refuses(m, cuda);
}

/* ---- A chain ------------------------------------------------------------------------------------------------- */

static nvllm_status place(cuda_chain *c, backend *b, const persistent_layer *layers, nvllm_error *err)
{
    size_t bytes = (size_t)c->model.L * sizeof *layers,
           words = persistent_words(&c->model, cuda_context_of(b)) * sizeof(uint64_t);
    c->layers = (persistent_layer *)b->type->alloc(b, bytes);
    c->model.words = (uint64_t *)b->type->alloc(b, words);
    c->model.layers = c->layers;
    if (!c->layers || !c->model.words)
        return backend_out_of_memory(b, bytes + words, "a step's exchange", err);
    return b->type->copy_in(b, c->layers, layers, bytes, err);
}

void cuda_chain_close(op_chain *chain)
{
    cuda_chain *c = (cuda_chain *)chain;
    if (!c) return;
    cudaFree(c->layers);
    cudaFree(c->model.words);
    free(c);
}

nvllm_status cuda_chain_open(op_chain **out, backend *b, const op_kind *kinds, const op_args *args, int32_t n,
                             char (*why_not)[BACKEND_CLAUSE], nvllm_error *err)
{
    int32_t ops = leading_ops(kinds, n), layers_there = (ops - BEFORE_LAYERS - 1) / LAYER_OPS;
    *out = NULL;
    if (layers_there < 1 || ops != BEFORE_LAYERS + layers_there * LAYER_OPS + 1) {
        snprintf(*why_not, sizeof *why_not, "its op list is another one");
        return NVLLM_OK;
    }
    cuda_chain *c = (cuda_chain *)calloc(1, sizeof *c);
    persistent_layer *layers = (persistent_layer *)calloc((size_t)layers_there, sizeof *layers);
    nvllm_status st = c && layers ? NVLLM_OK : error_memory(err, sizeof *c, "a chain of ops");
    const char *why = st ? NULL : recognise(&c->model, layers, kinds, args, ops, cuda_context_of(b));
    if (!st && !why) st = place(c, b, layers, err);
    free(layers);
    if (st || why) {
        if (why) snprintf(*why_not, sizeof *why_not, "%s", why);
        cuda_chain_close(&c->base);
        return st;
    }
    c->base.ops = ops;
    *out = &c->base;
    return NVLLM_OK;
}

void cuda_chain_run(backend *b, const op_chain *chain, const op_args *args)
{
    const cuda_chain *c = (const cuda_chain *)chain;
    const op_rope_attention_args *t = &args[BEFORE_LAYERS + 1].rope_attention;
    persistent_step s = {};
    s.tokens = args[AT_EMBED].embed.tokens;
    s.drawn = args[AT_EMBED].embed.drawn;
    s.pos = args[AT_ROPE_TABLE].rope_table.pos;
    s.slot = t->slot;
    s.kv_len = t->attention.kv_len;
    s.pages = t->attention.pages;
    s.P = t->attention.P;
    s.max_len = t->attention.max_len;
    s.logits = args[chain->ops - 1].norm_linear.linear.out;
    persistent_run(&c->model, &s, cuda_context_of(b));
}
