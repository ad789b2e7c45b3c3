/* Builds the flat arrays of a step; see step_batch.h. */
#include "engine/step_batch.h"

#include <stdlib.h>
#include <string.h>

#define LIST_ELEMENTS 4096 /* room from the start: most steps have fewer */

static bool reserve(step_list *list, size_t size)
{
    list->data = malloc(LIST_ELEMENTS * size);
    list->capacity = list->data ? LIST_ELEMENTS : 0;
    return list->data;
}

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
    b.draws = arena_calloc(&b.memory, R, sizeof *b.draws);
    bool lists = reserve(&b.counts, sizeof *b.batch.counts) && reserve(&b.bias, sizeof *b.batch.bias) &&
                 reserve(&b.banned, sizeof *b.batch.banned);
    if (!lists || !b.tokens || !b.pos || !b.slot || !b.row_start || !b.kv_len || !b.pages || !b.logit_row ||
        !b.draws) {
        step_batch_close(&b);
        return error_memory(err, (3 * T + R * (P + 2)) * sizeof(int32_t), "the step's arrays");
    }
    *out = b;
    return NVLLM_OK;
}

void step_batch_close(step_batch *b)
{
    free(b->counts.data);
    free(b->bias.data);
    free(b->banned.data);
    arena_free(&b->memory);
}

static void add_row(step_batch *b, step_row *row, int32_t r)
{
    batch *s = &b->batch;
    const sequence *q = row->sequence;
    for (int32_t i = 0; i < row->count; i++) {
        int32_t t = s->T + i, pos = q->n_computed + i;
        b->tokens[t] = pos < q->n_tokens ? q->tokens[pos] : -1 - q->draw;
        b->pos[t] = pos;
        b->slot[t] = q->pages[pos / b->page_slots] * b->page_slots + pos % b->page_slots;
    }
    s->T += row->count;
    row->start = q->n_computed;
    b->row_start[r + 1] = s->T;
    b->kv_len[r] = q->n_computed + row->count;
    memcpy(b->pages + (size_t)r * (size_t)s->P, q->pages, (size_t)q->n_pages * sizeof *q->pages);
    row->first_logit = s->N;
    for (int32_t i = 0; i < row->logits; i++) b->logit_row[s->N++] = s->T - row->logits + i;
}

/* Appends `n` elements; *first: where they begin in the list. */
static bool append(step_list *list, int32_t *first, const void *from, int32_t n, size_t size)
{
    *first = list->n;
    if (n == 0) return true;
    if (list->n + n > list->capacity) {
        int32_t capacity = 2 * (list->n + n);
        void *more = realloc(list->data, (size_t)capacity * size);
        if (!more) return false;
        list->data = more;
        list->capacity = capacity;
    }
    memcpy((char *)list->data + (size_t)list->n * size, from, (size_t)n * size);
    list->n += n;
    return true;
}

/* The row's next token is drawn once all its tokens are computed. `step` counts generated tokens, those of draws in flight
 * included; so does min_tokens. */
static bool add_draw(step_batch *b, step_row *row)
{
    const sequence *q = row->sequence;
    const sequence_request *request = &q->request;
    int32_t end = row->start + row->count, generated = end - request->n_prompt;
    row->draw = -1;
    if (row->logits == 0 || request->max_tokens == 0 || end < q->n_tokens) return true;
    row->draw = b->batch.n_draws++;
    draw_order *o = &b->draws[row->draw];
    *o = (draw_order){.params = request->sampling,
                      .step = (uint64_t)generated,
                      .logit = row->first_logit + row->logits - 1,
                      .n_top = request->top_logprobs < DRAW_MAX_TOP ? request->top_logprobs : DRAW_MAX_TOP,
                      .n_counts = q->n_counts,
                      .n_bias = request->n_bias,
                      .n_banned = generated < request->min_tokens ? request->n_stop_ids : 0};
    return append(&b->counts, &o->first_count, q->counts, o->n_counts, sizeof *q->counts) &&
           append(&b->bias, &o->first_bias, request->bias, o->n_bias, sizeof *request->bias) &&
           append(&b->banned, &o->first_banned, request->stop_ids, o->n_banned, sizeof *request->stop_ids);
}

const batch *step_batch_build(step_batch *b, step_row *rows, int32_t n_rows, nvllm_error *err)
{
    b->batch = (batch){.R = n_rows,
                       .P = b->batch.P,
                       .tokens = b->tokens,
                       .pos = b->pos,
                       .slot = b->slot,
                       .row_start = b->row_start,
                       .kv_len = b->kv_len,
                       .pages = b->pages,
                       .logit_row = b->logit_row,
                       .draws = b->draws};
    b->row_start[0] = 0;
    b->counts.n = b->bias.n = b->banned.n = 0;
    for (int32_t r = 0; r < n_rows; r++) {
        add_row(b, &rows[r], r);
        if (!add_draw(b, &rows[r])) {
            error_set(err, NVLLM_ERR_MEMORY, "out of memory for a step's penalties and biases");
            return NULL;
        }
    }
    b->batch.counts = b->counts.data;
    b->batch.bias = b->bias.data;
    b->batch.banned = b->banned.data;
    b->batch.n_counts = b->counts.n;
    b->batch.n_bias = b->bias.n;
    b->batch.n_banned = b->banned.n;
    return &b->batch;
}
