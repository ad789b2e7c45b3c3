/* The table of weight roles and the binding of a file's tensors to them; see weights.h. */
#define _GNU_SOURCE
#include "model/weights.h"
#include "base/half.h"
#include "base/thread_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef enum { ALWAYS, IF_UNTIED, IF_Q_BIAS, IF_O_BIAS, IF_MLP_BIAS, IF_QK_NORM } condition;

/* Shapes in letters: V D F C as everywhere, Q = H*C, G = K*C; cols '1' marks a vector. */
typedef struct {
    const char *name, *hf, *gguf;
    char rows, cols;
    bool per_layer;
    condition when;
} role_row;

static const role_row roles[W_COUNT] = {
    [W_EMBED] = {"embed", "model.embed_tokens.weight", "token_embd.weight", 'V', 'D', false, ALWAYS},
    [W_FINAL_NORM] = {"final_norm", "model.norm.weight", "output_norm.weight", 'D', '1', false, ALWAYS},
    [W_LM_HEAD] = {"lm_head", "lm_head.weight", "output.weight", 'V', 'D', false, IF_UNTIED},
    [W_ATTN_NORM] = {"attn_norm", "input_layernorm.weight", "attn_norm.weight", 'D', '1', true, ALWAYS},
    [W_Q] = {"q", "self_attn.q_proj.weight", "attn_q.weight", 'Q', 'D', true, ALWAYS},
    [W_K] = {"k", "self_attn.k_proj.weight", "attn_k.weight", 'G', 'D', true, ALWAYS},
    [W_V] = {"v", "self_attn.v_proj.weight", "attn_v.weight", 'G', 'D', true, ALWAYS},
    [W_Q_BIAS] = {"q_bias", "self_attn.q_proj.bias", "attn_q.bias", 'Q', '1', true, IF_Q_BIAS},
    [W_K_BIAS] = {"k_bias", "self_attn.k_proj.bias", "attn_k.bias", 'G', '1', true, IF_Q_BIAS},
    [W_V_BIAS] = {"v_bias", "self_attn.v_proj.bias", "attn_v.bias", 'G', '1', true, IF_Q_BIAS},
    [W_Q_NORM] = {"q_norm", "self_attn.q_norm.weight", "attn_q_norm.weight", 'C', '1', true, IF_QK_NORM},
    [W_K_NORM] = {"k_norm", "self_attn.k_norm.weight", "attn_k_norm.weight", 'C', '1', true, IF_QK_NORM},
    [W_O] = {"o", "self_attn.o_proj.weight", "attn_output.weight", 'D', 'Q', true, ALWAYS},
    [W_O_BIAS] = {"o_bias", "self_attn.o_proj.bias", "attn_output.bias", 'D', '1', true, IF_O_BIAS},
    [W_MLP_NORM] = {"mlp_norm", "post_attention_layernorm.weight", "ffn_norm.weight", 'D', '1', true, ALWAYS},
    [W_GATE] = {"gate", "mlp.gate_proj.weight", "ffn_gate.weight", 'F', 'D', true, ALWAYS},
    [W_UP] = {"up", "mlp.up_proj.weight", "ffn_up.weight", 'F', 'D', true, ALWAYS},
    [W_GATE_BIAS] = {"gate_bias", "mlp.gate_proj.bias", "ffn_gate.bias", 'F', '1', true, IF_MLP_BIAS},
    [W_UP_BIAS] = {"up_bias", "mlp.up_proj.bias", "ffn_up.bias", 'F', '1', true, IF_MLP_BIAS},
    [W_DOWN] = {"down", "mlp.down_proj.weight", "ffn_down.weight", 'D', 'F', true, ALWAYS},
    [W_DOWN_BIAS] = {"down_bias", "mlp.down_proj.bias", "ffn_down.bias", 'D', '1', true, IF_MLP_BIAS},
};

static bool role_exists(const role_row *row, const model_config *c)
{
    switch (row->when) {
    case ALWAYS: return true;
    case IF_UNTIED: return !c->tied;
    case IF_Q_BIAS: return c->q_bias;
    case IF_O_BIAS: return c->o_bias;
    case IF_MLP_BIAS: return c->mlp_bias;
    case IF_QK_NORM: return c->qk_norm;
    }
    return false;
}

static int32_t size_of_letter(char letter, const model_config *c)
{
    switch (letter) {
    case 'V': return c->V;
    case 'D': return c->D;
    case 'F': return c->F;
    case 'C': return c->C;
    case 'Q': return c->H * c->C;
    case 'G': return c->K * c->C;
    default: return 1;
    }
}

const char *weight_role_name(weight_role role)
{
    return role >= 0 && role < W_COUNT ? roles[role].name : "none";
}

bool weight_role_is_vector(weight_role role)
{
    return roles[role].cols == '1';
}

static weight *slot_of(const weights *w, weight_role role, int32_t layer)
{
    return &w->table[(size_t)(roles[role].per_layer ? layer : 0) * W_COUNT + (size_t)role];
}

const weight *weights_get(const weights *w, weight_role role, int32_t layer)
{
    if (role == W_NONE) return NULL;
    const weight *found = slot_of(w, role, layer);
    return found->data ? found : NULL;
}

static void tensor_name(char *out, size_t size, const role_row *row, int32_t layer, bool is_gguf)
{
    if (!row->per_layer)
        snprintf(out, size, "%s", is_gguf ? row->gguf : row->hf);
    else
        snprintf(out, size, is_gguf ? "blk.%d.%s" : "model.layers.%d.%s", layer,
                 is_gguf ? row->gguf : row->hf);
}

static nvllm_status check_shape(const tensor *t, int32_t rows, int32_t cols, bool vector, nvllm_error *err)
{
    if (vector && t->n_dims == 1 && t->shape[0] == rows) return NVLLM_OK;
    if (!vector && t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols) return NVLLM_OK;
    char have[96] = "";
    for (int i = 0, used = 0; i < t->n_dims && used < (int)sizeof have - 24; i++)
        used += snprintf(have + used, sizeof have - (size_t)used, "%s%lld", i ? ", " : "",
                         (long long)t->shape[i]);
    if (vector)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: tensor %s has shape [%s], expected [%d]", t->file,
                         t->name, have, rows);
    return error_set(err, NVLLM_ERR_FORMAT, "%s: tensor %s has shape [%s], expected [%d, %d]", t->file,
                     t->name, have, rows, cols);
}

/* Vectors are widened into the arena, so that ops need to know one format only. */
static nvllm_status bind_vector(weights *w, weight *slot, const tensor *t, int32_t n, nvllm_error *err)
{
    float *values = arena_calloc(&w->memory, (size_t)n, sizeof *values);
    if (!values) return error_memory(err, (size_t)n * sizeof *values, t->name);
    if (n % dtype_block(t->type))
        return error_set(err, NVLLM_ERR_FORMAT, "%s: tensor %s: %d elements in blocks of %d", t->file,
                         t->name, n, (int)dtype_block(t->type));
    dtype_to_float(values, t->data, t->type, n);
    *slot = (weight){DTYPE_F32, n, 1, values};
    return NVLLM_OK;
}

static nvllm_status bind_one(weights *w, const model_config *c, const tensor_store *store, weight_role role,
                             int32_t layer, nvllm_error *err)
{
    const role_row *row = &roles[role];
    char name[128];
    tensor_name(name, sizeof name, row, layer, tensor_store_gguf(store) != NULL);
    const tensor *t;
    nvllm_status st = tensor_store_get(&t, store, name, err);
    if (st) return st;
    bool vector = weight_role_is_vector(role);
    int32_t rows = size_of_letter(row->rows, c), cols = size_of_letter(row->cols, c);
    st = check_shape(t, rows, cols, vector, err);
    if (st) return st;
    if (vector) return bind_vector(w, slot_of(w, role, layer), t, rows, err);
    if (cols % dtype_block(t->type))
        return error_set(err, NVLLM_ERR_FORMAT, "%s: tensor %s: rows of %d elements in blocks of %d", t->file,
                         t->name, cols, (int)dtype_block(t->type));
    *slot_of(w, role, layer) = (weight){t->type, rows, cols, t->data};
    return NVLLM_OK;
}

static nvllm_status table_alloc(weights *w, const model_config *c, nvllm_error *err)
{
    *w = (weights){0};
    size_t count = (size_t)c->L * W_COUNT;
    w->table = arena_calloc(&w->memory, count, sizeof *w->table);
    return w->table ? NVLLM_OK : error_memory(err, count * sizeof *w->table, "the table of weights");
}

static void tie_head(weights *w, const model_config *c)
{
    if (c->tied) *slot_of(w, W_LM_HEAD, 0) = *slot_of(w, W_EMBED, 0);
}

nvllm_status weights_bind(weights *out, const model_config *c, const tensor_store *store, nvllm_error *err)
{
    weights w;
    nvllm_status st = table_alloc(&w, c, err);
    for (int32_t layer = 0; !st && layer < c->L; layer++)
        for (int role = 0; !st && role < W_COUNT; role++)
            if ((roles[role].per_layer || layer == 0) && role_exists(&roles[role], c))
                st = bind_one(&w, c, store, (weight_role)role, layer, err);
    if (st) {
        weights_free(&w);
        return st;
    }
    tie_head(&w, c);
    *out = w;
    return NVLLM_OK;
}

void weights_free(weights *w)
{
    if (!w) return;
    if (w->random) munmap(w->random, w->random_bytes);
    arena_free(&w->memory);
    *w = (weights){0};
}

/* Sums `measure` over the stored weights, a tied head once. */
static int64_t sum_stored(const weights *w, const model_config *c, int64_t (*measure)(const weight *))
{
    int64_t sum = 0;
    for (int32_t layer = 0; layer < c->L; layer++)
        for (int role = 0; role < W_COUNT; role++) {
            if (!role_exists(&roles[role], c) || (!roles[role].per_layer && layer > 0)) continue;
            sum += measure(slot_of(w, (weight_role)role, layer));
        }
    return sum;
}

static int64_t count_elements(const weight *w)
{
    return (int64_t)w->rows * w->cols;
}

static int64_t count_bytes(const weight *w)
{
    return (int64_t)w->rows * (int64_t)dtype_row_bytes(w->format, w->cols);
}

int64_t weights_parameters(const weights *w, const model_config *c)
{
    return sum_stored(w, c, count_elements);
}

size_t weights_bytes(const weights *w, const model_config *c)
{
    return (size_t)sum_stored(w, c, count_bytes);
}

/* ---- Random weights ---------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Uniform in [-1, 1). */
static float uniform(uint64_t *state)
{
    return (float)(int64_t)(mix((*state)++) >> 40) * 0x1p-23f - 1.0f;
}

#define PALETTE 4096

/* Matrices are filled from a palette of values in the wanted format. */
typedef struct {
    uint16_t half[PALETTE]; /* bf16 or f16 */
    float wide[PALETTE];
} palette;

static void palette_make(palette *p, dtype format, float amplitude, uint64_t seed)
{
    for (int i = 0; i < PALETTE; i++) {
        p->wide[i] = amplitude * uniform(&seed);
        p->half[i] = format == DTYPE_F16 ? f16_from_float(p->wide[i]) : bf16_from_float(p->wide[i]);
    }
}

/* A stretch of a matrix, of the pieces that one number of the generator gives: so any stretch can be made alone. */
enum {
    PIECE = 5,        /* elements of f32, f16, bf16: 12 bits each */
    STRETCH = 1 << 18 /* elements, about; a thread's work */
};

static void fill_q8_0(uint8_t *out, int64_t first, int64_t blocks, float amplitude, uint64_t state)
{
    uint16_t scale = f16_from_float(amplitude / 127.0f);
    state += (uint64_t)first * (Q8_0_BLOCK / 8);
    out += first * Q8_0_BLOCK_BYTES;
    for (int64_t b = 0; b < blocks; b++, out += Q8_0_BLOCK_BYTES) {
        memcpy(out, &scale, sizeof scale);
        for (int i = 0; i < Q8_0_BLOCK; i += 8) {
            uint64_t bits = mix(state++);
            for (int j = 0; j < 8; j++, bits >>= 8) /* -127..127, as a quantiser makes them */
                out[2 + i + j] = (uint8_t)(int8_t)((bits & 0xff) == 0x80 ? 0 : bits & 0xff);
        }
    }
}

static void fill_half(uint16_t *out, const palette *p, int64_t i, int64_t end, uint64_t state)
{
    for (state += (uint64_t)(i / PIECE); i < end;) {
        uint64_t bits = mix(state++);
        for (int j = 0; j < PIECE && i < end; j++, i++, bits >>= 12) out[i] = p->half[bits % PALETTE];
    }
}

static void fill_wide(float *out, const palette *p, int64_t i, int64_t end, uint64_t state)
{
    for (state += (uint64_t)(i / PIECE); i < end;) {
        uint64_t bits = mix(state++);
        for (int j = 0; j < PIECE && i < end; j++, i++, bits >>= 12) out[i] = p->wide[bits % PALETTE];
    }
}

typedef struct {
    void *out;
    const weight *w;
    const palette *p;
    float amplitude;
    uint64_t state;
} matrix_fill;

/* Units [begin, end): blocks of q8_0, pieces of the other formats. */
static void fill_units(void *arg, int64_t begin, int64_t end, int worker)
{
    const matrix_fill *f = arg;
    (void)worker;
    if (f->w->format == DTYPE_Q8_0) {
        fill_q8_0(f->out, begin, end - begin, f->amplitude, f->state);
        return;
    }
    int64_t n = (int64_t)f->w->rows * f->w->cols, stop = end * PIECE < n ? end * PIECE : n;
    if (f->w->format == DTYPE_F32)
        fill_wide(f->out, f->p, begin * PIECE, stop, f->state);
    else
        fill_half(f->out, f->p, begin * PIECE, stop, f->state);
}

static void fill_matrix(thread_pool *pool, const matrix_fill *f)
{
    int64_t unit = f->w->format == DTYPE_Q8_0 ? Q8_0_BLOCK : PIECE, n = (int64_t)f->w->rows * f->w->cols;
    thread_pool_run(pool, (n + unit - 1) / unit, STRETCH / unit, fill_units, (void *)(uintptr_t)f);
}

static nvllm_status random_vector(weights *w, weight_role role, int32_t layer, int32_t n, uint64_t state,
                                  nvllm_error *err)
{
    float *values = arena_calloc(&w->memory, (size_t)n, sizeof *values);
    if (!values) return error_memory(err, (size_t)n * sizeof *values, "random weights");
    bool norm = strstr(roles[role].name, "norm") != NULL;
    for (int32_t i = 0; i < n; i++) values[i] = (norm ? 1.0f : 0.0f) + 0.05f * uniform(&state);
    *slot_of(w, role, layer) = (weight){DTYPE_F32, n, 1, values};
    return NVLLM_OK;
}

static nvllm_status plan_random(weights *w, const model_config *c, dtype format, uint64_t seed,
                                nvllm_error *err)
{
    size_t offset = 0;
    for (int32_t layer = 0; layer < c->L; layer++)
        for (int role = 0; role < W_COUNT; role++) {
            const role_row *row = &roles[role];
            if (!role_exists(row, c) || (!row->per_layer && layer > 0)) continue;
            int32_t rows = size_of_letter(row->rows, c), cols = size_of_letter(row->cols, c);
            if (weight_role_is_vector((weight_role)role)) {
                uint64_t state = mix(seed ^ mix((uint64_t)layer * W_COUNT + (uint64_t)role));
                nvllm_status st = random_vector(w, (weight_role)role, layer, rows, state, err);
                if (st) return st;
                continue;
            }
            if (cols % dtype_block(format))
                return error_set(err, NVLLM_ERR_UNSUPPORTED,
                                 "weight %s: rows of %d elements do not fit %s's blocks of %d", row->name,
                                 cols, dtype_name(format), (int)dtype_block(format));
            *slot_of(w, (weight_role)role, layer) = (weight){format, rows, cols, NULL};
            offset += ((size_t)rows * dtype_row_bytes(format, cols) + 63) & ~(size_t)63;
        }
    w->random_bytes = offset;
    return NVLLM_OK;
}

static void fill_random(weights *w, const model_config *c, const palette *p, float amplitude, uint64_t seed,
                        thread_pool *pool)
{
    uint8_t *next = w->random;
    for (int32_t layer = 0; layer < c->L; layer++)
        for (int role = 0; role < W_COUNT; role++) {
            weight *slot = slot_of(w, (weight_role)role, layer);
            if (!slot->rows || slot->data || (!roles[role].per_layer && layer > 0)) continue;
            uint64_t state = mix(seed + 1 + (uint64_t)layer * W_COUNT + (uint64_t)role);
            fill_matrix(pool, &(matrix_fill){next, slot, p, amplitude, state});
            slot->data = next;
            next += ((size_t)slot->rows * dtype_row_bytes(slot->format, slot->cols) + 63) & ~(size_t)63;
        }
}

nvllm_status weights_random(weights *out, const model_config *c, dtype format, uint64_t seed,
                            nvllm_error *err)
{
    weights w;
    const float amplitude = 0.035f; /* uniform with the usual standard deviation of 0.02 */
    nvllm_status st = table_alloc(&w, c, err);
    if (st) return st;
    st = plan_random(&w, c, format, seed, err);
    thread_pool *pool = NULL;
    palette *p = st ? NULL : malloc(sizeof *p);
    if (!st && !p) st = error_memory(err, sizeof *p, "random weights");
    if (!st) st = thread_pool_open(&pool, thread_count_default(), err);
    if (st) goto fail;
    w.random = mmap(NULL, w.random_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (w.random == MAP_FAILED) {
        w.random = NULL;
        st = error_memory(err, w.random_bytes, "random weights");
        goto fail;
    }
    palette_make(p, format, amplitude, seed);
    fill_random(&w, c, p, amplitude, seed, pool);
    thread_pool_close(pool);
    free(p);
    tie_head(&w, c);
    *out = w;
    return NVLLM_OK;
fail:
    thread_pool_close(pool);
    free(p);
    weights_free(&w);
    return st;
}
