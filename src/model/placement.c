/* Placing a model on a backend; see placement.h. */
#include "model/placement.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN 256 /* of every weight in the device block */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static size_t weight_size(const weight *w)
{
    return w->data ? (size_t)w->rows * dtype_row_bytes(w->format, w->cols) : 0;
}

/* A tied head shares the embedding's copy. */
static const weight *twin_of(const placement *p, const weight *table, size_t i)
{
    return i == W_LM_HEAD && table[W_LM_HEAD].data == table[W_EMBED].data ? &p->weights.table[W_EMBED] : NULL;
}

static nvllm_status copy_weights(placement *p, const model *m, size_t count, nvllm_error *err)
{
    const weight *from = m->weights.table;
    uint8_t *next = p->block;
    for (size_t i = 0; i < count; i++) {
        const weight *twin = twin_of(p, from, i);
        size_t bytes = weight_size(&from[i]);
        p->weights.table[i] = from[i];
        if (twin) p->weights.table[i].data = twin->data;
        if (twin || bytes == 0) continue;
        nvllm_status st = p->backend->type->copy_in(p->backend, next, from[i].data, bytes, err);
        if (st) return st;
        p->weights.table[i].data = next;
        next += aligned(bytes);
    }
    p->inv_freq = (const float *)next;
    return p->backend->type->copy_in(p->backend, next, m->inv_freq, (size_t)(m->config.C / 2) * sizeof(float),
                                     err);
}

static nvllm_status place_weights(placement *p, const model *m, nvllm_error *err)
{
    size_t count = (size_t)m->config.L * W_COUNT, bytes = aligned((size_t)(m->config.C / 2) * sizeof(float));
    p->weights.table = arena_calloc(&p->weights.memory, count, sizeof *p->weights.table);
    if (!p->weights.table) return error_memory(err, count * sizeof *p->weights.table, "the table of weights");
    for (size_t i = 0; i < count; i++)
        if (!twin_of(p, m->weights.table, i)) bytes += aligned(weight_size(&m->weights.table[i]));
    p->block = p->backend->type->alloc(p->backend, bytes);
    if (!p->block) return error_memory(err, bytes, "the weights on the device");
    p->block_bytes = bytes;
    return copy_weights(p, m, count, err);
}

static nvllm_status open_device(placement *p, const model *m, int32_t max_tokens, int32_t max_logits,
                                int32_t page_entries, nvllm_error *err)
{
    nvllm_status st = place_weights(p, m, err);
    if (st) return st;
    size_t rows = (size_t)max_tokens + 1, V = (size_t)m->config.V;
    p->step_bytes = (5 * rows + (size_t)page_entries + (size_t)max_logits) * sizeof(int32_t);
    p->step_ints = p->backend->type->alloc(p->backend, p->step_bytes);
    p->host_ints = malloc(p->step_bytes);
    p->host_logits = malloc((size_t)max_logits * V * sizeof(float));
    if (!p->step_ints || !p->host_ints || !p->host_logits)
        return error_memory(err, p->step_bytes + (size_t)max_logits * V * sizeof(float), "the step's arrays");
    return NVLLM_OK;
}

nvllm_status placement_open(placement *out, const model *m, backend *b, int32_t max_tokens,
                            int32_t max_logits, int32_t page_entries, nvllm_error *err)
{
    placement p = {.backend = b, .inv_freq = m->inv_freq};
    nvllm_status st = NVLLM_OK;
    p.weights.table = m->weights.table;
    if (b->type->copy_in) st = open_device(&p, m, max_tokens, max_logits, page_entries, err);
    if (st) {
        placement_close(&p);
        return st;
    }
    *out = p;
    return NVLLM_OK;
}

void placement_close(placement *p)
{
    if (p->backend && p->backend->type->copy_in) {
        p->backend->type->free(p->backend, p->block, p->block_bytes);
        p->backend->type->free(p->backend, p->step_ints, p->step_bytes);
    }
    free(p->host_ints);
    free(p->host_logits);
    arena_free(&p->weights.memory);
    *p = (placement){0};
}

/* Appends an array to the staging copy; returns where it will lie on the device. */
static const int32_t *stage(placement *p, size_t *used, const int32_t *from, size_t count)
{
    const int32_t *there = p->step_ints + *used;
    memcpy(p->host_ints + *used, from, count * sizeof *from);
    *used += count;
    return there;
}

/* The arrays keep their places while T, R and N stay the same, so that a recorded step can be replayed. */
nvllm_status placement_step(placement *p, batch *out, const batch *s, nvllm_error *err)
{
    *out = *s;
    if (!p->step_ints) return NVLLM_OK;
    size_t T = (size_t)s->T, R = (size_t)s->R, used = 0;
    out->tokens = stage(p, &used, s->tokens, T);
    out->pos = stage(p, &used, s->pos, T);
    out->slot = stage(p, &used, s->slot, T);
    out->row_start = stage(p, &used, s->row_start, R + 1);
    out->kv_len = stage(p, &used, s->kv_len, R);
    out->logit_row = stage(p, &used, s->logit_row, (size_t)s->N);
    out->pages = stage(p, &used, s->pages, R * (size_t)s->P);
    return p->backend->type->copy_in(p->backend, p->step_ints, p->host_ints, used * sizeof(int32_t), err);
}

nvllm_status placement_logits(placement *p, float **out, float *device, int32_t N, int32_t V,
                              nvllm_error *err)
{
    *out = p->step_ints ? p->host_logits : device;
    if (!p->step_ints) return NVLLM_OK;
    return p->backend->type->copy_out(p->backend, *out, device, (size_t)N * (size_t)V * sizeof(float), err);
}
