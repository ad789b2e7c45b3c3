/* Placing a model on a backend; see placement.h. */
#include "model/placement.h"
#include "model/upload.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN     256 /* of every weight in the device block */
#define ROW_ALIGN 16  /* of every row of Q8_0 there */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* From row to row on the device. Kernels read 16 bytes at a time, and a row of Q8_0 is any multiple of 34. */
static size_t row_bytes(const weight *w)
{
    size_t bytes = dtype_row_bytes(w->format, w->cols);
    return w->format == DTYPE_Q8_0 ? (bytes + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN : bytes;
}

static size_t weight_size(const weight *w)
{
    return w->data ? (size_t)w->rows * row_bytes(w) : 0;
}

/* A tied head shares the embedding's copy. */
static bool is_twin(const weight *table, size_t i)
{
    return i == W_LM_HEAD && table[W_LM_HEAD].data && table[W_LM_HEAD].data == table[W_EMBED].data;
}

static size_t frequencies_size(const model *m)
{
    return (size_t)(m->config.C / 2) * sizeof(float);
}

size_t placement_weight_bytes(const model *m, const backend *b)
{
    const weight *table = m->weights.table;
    size_t bytes = aligned(frequencies_size(m)), count = (size_t)m->config.L * W_COUNT;
    if (!b->type->copy_in) return 0;
    for (size_t i = 0; i < count; i++)
        if (!is_twin(table, i)) bytes += aligned(weight_size(&table[i]));
    return bytes;
}

/* Gives every weight its place in the block; parts: [count + 1], what to bring there. Returns the number of parts. */
static size_t lay_out(placement *p, upload_part *parts, const model *m, size_t count)
{
    const weight *from = m->weights.table;
    size_t n = 0, offset = 0, bytes;
    for (size_t i = 0; i < count; i++) {
        bytes = weight_size(&from[i]);
        weight *to = &p->weights.table[i];
        *to = from[i];
        to->row_bytes = row_bytes(&from[i]);
        if (is_twin(from, i)) to->data = p->weights.table[W_EMBED].data;
        if (is_twin(from, i) || bytes == 0) continue;
        to->data = (uint8_t *)p->block + offset;
        parts[n++] = (upload_part){from[i].data,
                                   offset,
                                   bytes,
                                   dtype_row_bytes(from[i].format, from[i].cols),
                                   to->row_bytes,
                                   weight_role_name((weight_role)(i % W_COUNT)),
                                   (int32_t)(i / W_COUNT)};
        offset += aligned(bytes);
    }
    p->inv_freq = (const float *)(const void *)((uint8_t *)p->block + offset);
    bytes = frequencies_size(m);
    parts[n] = (upload_part){m->inv_freq, offset, bytes, bytes, bytes, "rope_frequencies", 0};
    return n + 1;
}

static nvllm_status place_weights(placement *p, const model *m, nvllm_error *err)
{
    size_t count = (size_t)m->config.L * W_COUNT, bytes = placement_weight_bytes(m, p->backend);
    upload_part *parts = calloc(count + 1, sizeof *parts);
    p->weights.table = arena_calloc(&p->weights.memory, count, sizeof *p->weights.table);
    p->block = p->backend->type->alloc(p->backend, bytes);
    p->block_bytes = bytes;
    nvllm_status st = NVLLM_OK;
    if (!parts || !p->weights.table)
        st = error_memory(err, count * sizeof *parts, "the table of weights");
    else if (!p->block)
        st = backend_out_of_memory(p->backend, bytes, "the weights", err);
    if (!st)
        st = upload_parts(p->backend, p->block, bytes, parts, lay_out(p, parts, m, count), m->store, 0, err);
    free(parts);
    return st;
}

/* The orders of draws come first: they hold 8-byte numbers. */
size_t placement_step_bytes(int32_t max_tokens, int32_t max_logits, int32_t page_entries)
{
    size_t rows = (size_t)max_tokens + 1;
    return (5 * rows + (size_t)page_entries + (size_t)max_logits) * sizeof(int32_t) +
           rows * sizeof(draw_order);
}

static nvllm_status open_device(placement *p, const model *m, int32_t max_tokens, int32_t max_logits,
                                int32_t page_entries, nvllm_error *err)
{
    nvllm_status st = place_weights(p, m, err);
    if (st) return st;
    size_t V = (size_t)m->config.V;
    p->step_bytes = placement_step_bytes(max_tokens, max_logits, page_entries);
    p->step_ints = p->backend->type->alloc(p->backend, p->step_bytes);
    p->host_ints = malloc(p->step_bytes);
    p->host_logits = malloc((size_t)max_logits * V * sizeof(float));
    if (!p->step_ints) return backend_out_of_memory(p->backend, p->step_bytes, "the step's arrays", err);
    if (!p->host_ints || !p->host_logits)
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
        p->backend->type->free(p->backend, p->edits, p->edit_bytes);
    }
    free(p->host_ints);
    free(p->host_logits);
    arena_free(&p->weights.memory);
    *p = (placement){0};
}

/* The staging copy of a step's arrays, as it grows. */
typedef struct {
    placement *p;
    size_t used; /* elements */
} stager;

/* Room for an array; *there: where it will lie on the device. */
static int32_t *room(stager *s, const int32_t **there, size_t count)
{
    int32_t *here = s->p->host_ints + s->used;
    *there = s->p->step_ints + s->used;
    s->used += count;
    return here;
}

/* `count` elements, then the last of them up to `total`. */
static const int32_t *stage(stager *s, const int32_t *from, int32_t count, int32_t total)
{
    const int32_t *there;
    int32_t *here = room(s, &there, (size_t)total);
    if (count) memcpy(here, from, (size_t)count * sizeof *from);
    for (int32_t i = count; i < total; i++) here[i] = from[count - 1];
    return there;
}

/* The same, then counting on from the last. */
static const int32_t *stage_counting(stager *s, const int32_t *from, int32_t count, int32_t total)
{
    const int32_t *there = stage(s, from, count, total);
    int32_t *here = s->p->host_ints + (there - s->p->step_ints);
    for (int32_t i = count; i < total; i++) here[i] = here[i - 1] + 1;
    return there;
}

/* Draws of rows past the last read their own logits and leave their own results. */
static draw_order *stage_draws(stager *s, const batch *from, int32_t total)
{
    const int32_t *there;
    draw_order *here = (draw_order *)room(s, &there, (size_t)total * sizeof *here / sizeof(int32_t));
    for (int32_t i = 0; i < total; i++) {
        bool own = i < from->n_draws;
        here[i] = from->draws[own ? i : from->n_draws - 1];
        if (own) continue;
        here[i].logit = i;
        here[i].result += i - (from->n_draws - 1);
    }
    return (draw_order *)there;
}

/* The first `columns` of each row's page table. */
static const int32_t *stage_pages(stager *s, const batch *from, int32_t rows, int32_t columns)
{
    const int32_t *there;
    int32_t *here = room(s, &there, (size_t)rows * (size_t)columns);
    for (int32_t r = 0; r < rows; r++) {
        size_t row = (size_t)(r < from->R ? r : from->R - 1);
        memcpy(here + (size_t)r * (size_t)columns, from->pages + row * (size_t)from->P,
               (size_t)columns * sizeof *here);
    }
    return there;
}

/* Penalties, biases and bans have no bound known beforehand: a block of their own, that grows. */
static nvllm_status place_edits(placement *p, batch *out, const batch *s, nvllm_error *err)
{
    const backend_type *type = p->backend->type;
    size_t counts = (size_t)s->n_counts * sizeof *s->counts, bias = (size_t)s->n_bias * sizeof *s->bias,
           banned = (size_t)s->n_banned * sizeof *s->banned, bytes = counts + bias + banned;
    if (bytes == 0) return NVLLM_OK;
    if (bytes > p->edit_bytes) {
        type->free(p->backend, p->edits, p->edit_bytes);
        p->edit_bytes = 0;
        p->edits = type->alloc(p->backend, 2 * bytes);
        if (!p->edits) return backend_out_of_memory(p->backend, 2 * bytes, "penalties and biases", err);
        p->edit_bytes = 2 * bytes;
    }
    uint8_t *at = p->edits;
    out->counts = (const sample_count *)at;
    out->bias = (const sample_bias *)(at + counts);
    out->banned = (const int32_t *)(at + counts + bias);
    nvllm_status st = counts ? type->copy_in(p->backend, at, s->counts, counts, err) : NVLLM_OK;
    if (!st && bias) st = type->copy_in(p->backend, at + counts, s->bias, bias, err);
    if (!st && banned) st = type->copy_in(p->backend, at + counts + bias, s->banned, banned, err);
    return st;
}

/* The arrays keep their places while T, R, N and P stay the same, so that a recorded step can be replayed. */
nvllm_status placement_step(placement *p, batch *out, const batch *step, int32_t rows, int32_t columns,
                            nvllm_error *err)
{
    *out = *step;
    if (!p->step_ints) return NVLLM_OK;
    stager s = {p, 0};
    int32_t more = rows - step->R; /* rows, each of one token with a draw */
    out->T = step->T + more;
    out->R = rows;
    out->N = step->N + more;
    out->n_draws = step->n_draws + more;
    out->P = columns;
    out->draws = stage_draws(&s, step, out->n_draws);
    out->tokens = stage(&s, step->tokens, step->T, out->T);
    out->pos = stage(&s, step->pos, step->T, out->T);
    out->slot = stage(&s, step->slot, step->T, out->T);
    out->row_start = stage_counting(&s, step->row_start, step->R + 1, rows + 1);
    out->kv_len = stage(&s, step->kv_len, step->R, rows);
    out->logit_row = stage_counting(&s, step->logit_row, step->N, out->N);
    out->pages = stage_pages(&s, step, rows, columns);
    nvllm_status st =
        p->backend->type->copy_in(p->backend, p->step_ints, p->host_ints, s.used * sizeof(int32_t), err);
    return st ? st : place_edits(p, out, step, err);
}

nvllm_status placement_logits(placement *p, float **out, float *device, int32_t N, int32_t V,
                              nvllm_error *err)
{
    *out = p->step_ints ? p->host_logits : device;
    if (!p->step_ints) return NVLLM_OK;
    return p->backend->type->copy_out(p->backend, *out, device, (size_t)N * (size_t)V * sizeof(float), err);
}
