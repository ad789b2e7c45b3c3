/* Builds the flat arrays of a step; see step_batch.h. */
#include "engine/step_batch.h"

#include <string.h>

nvllm_status step_batch_open(step_batch *out, int32_t max_tokens, int32_t max_rows, int32_t max_logits,
                             int32_t pages_per_row, int32_t page_slots, nvllm_error *err)
{
    step_batch b = {.page_slots = page_slots, .batch = {.P = pages_per_row}};
    size_t T = (size_t)max_tokens, R = (size_t)max_rows, P = (size_t)pages_per_row;
    b.tokens = arena_calloc(&b.memory, T, sizeof(int32_t));
    b.pos = arena_calloc(&b.memory, T, sizeof(int32_t));
    b.slot = arena_calloc(&b.memory, T, sizeof(int32_t));
    b.row_start = arena_calloc(&b.memory, R + 1, sizeof(int32_t));
    b.kv_len = arena_calloc(&b.memory, R, sizeof(int32_t));
    b.pages = arena_calloc(&b.memory, R * P, sizeof(int32_t));
    b.logit_row = arena_calloc(&b.memory, (size_t)max_logits, sizeof(int32_t));
    if (!b.tokens || !b.pos || !b.slot || !b.row_start || !b.kv_len || !b.pages || !b.logit_row) {
        step_batch_close(&b);
        return error_memory(err, (3 * T + R * (P + 2)) * sizeof(int32_t), "the step's arrays");
    }
    *out = b;
    return NVLLM_OK;
}

void step_batch_close(step_batch *b)
{
    arena_free(&b->memory);
}

static void add_row(step_batch *b, step_row *row, int32_t r)
{
    batch *s = &b->batch;
    const sequence *q = row->sequence;
    for (int32_t i = 0; i < row->count; i++) {
        int32_t t = s->T + i, pos = q->n_computed + i;
        b->tokens[t] = q->tokens[pos];
        b->pos[t] = pos;
        b->slot[t] = q->pages[pos / b->page_slots] * b->page_slots + pos % b->page_slots;
    }
    s->T += row->count;
    b->row_start[r + 1] = s->T;
    b->kv_len[r] = q->n_computed + row->count;
    memcpy(b->pages + (size_t)r * (size_t)s->P, q->pages, (size_t)q->n_pages * sizeof *q->pages);
    row->first_logit = s->N;
    for (int32_t i = 0; i < row->logits; i++) b->logit_row[s->N++] = s->T - row->logits + i;
}

const batch *step_batch_build(step_batch *b, step_row *rows, int32_t n_rows)
{
    b->batch = (batch){.R = n_rows,
                       .P = b->batch.P,
                       .tokens = b->tokens,
                       .pos = b->pos,
                       .slot = b->slot,
                       .row_start = b->row_start,
                       .kv_len = b->kv_len,
                       .pages = b->pages,
                       .logit_row = b->logit_row};
    b->row_start[0] = 0;
    for (int32_t r = 0; r < n_rows; r++) add_row(b, &rows[r], r);
    return &b->batch;
}
