/* A request's state; see sequence.h. */
#include "engine/sequence.h"
#include "engine/prefix_index.h"

#include <stdlib.h>
#include <string.h>

static bool has_penalties(const sample_params *p)
{
    return p->repetition_penalty != 1.0f || p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f;
}

static sample_count *count_of(sequence *s, int32_t token)
{
    uint32_t i = ((uint32_t)token * 2654435761u) & s->count_mask;
    while (s->count_index[i] >= 0 && s->counts[s->count_index[i]].token != token) i = (i + 1) & s->count_mask;
    if (s->count_index[i] < 0) {
        s->count_index[i] = s->n_counts;
        s->counts[s->n_counts++] = (sample_count){token, 0, 0};
    }
    return &s->counts[s->count_index[i]];
}

static bool counts_init(sequence *s, int32_t most)
{
    uint32_t capacity = 16;
    while (capacity < 2 * (uint32_t)most) capacity *= 2;
    s->counts = arena_calloc(&s->memory, (size_t)most, sizeof *s->counts);
    s->count_index = arena_calloc(&s->memory, capacity, sizeof *s->count_index);
    if (!s->counts || !s->count_index) return false;
    memset(s->count_index, 0xff, capacity * sizeof *s->count_index);
    s->count_mask = capacity - 1;
    for (int32_t i = 0; i < s->request.n_prompt; i++) count_of(s, s->tokens[i])->in_prompt++;
    return true;
}

/* A copy of `count` elements in the arena; NULL only when out of memory. */
static void *copy(arena *a, const void *data, int32_t count, size_t size)
{
    void *to = arena_calloc(a, (size_t)count + 1, size);
    if (to && count) memcpy(to, data, (size_t)count * size);
    return to;
}

static bool fill(sequence *s, const sequence_request *request, int32_t max_pages)
{
    int32_t most = request->n_prompt + request->max_tokens;
    s->request = *request;
    s->request.bias = copy(&s->memory, request->bias, request->n_bias, sizeof *request->bias);
    s->request.stop_ids = copy(&s->memory, request->stop_ids, request->n_stop_ids, sizeof *request->stop_ids);
    s->tokens = arena_calloc(&s->memory, (size_t)most, sizeof *s->tokens);
    s->pages = arena_calloc(&s->memory, (size_t)max_pages, sizeof *s->pages);
    if (!s->request.bias || !s->request.stop_ids || !s->tokens || !s->pages) return false;
    memcpy(s->tokens, request->prompt, (size_t)request->n_prompt * sizeof *s->tokens);
    s->request.prompt = s->tokens;
    s->n_tokens = request->n_prompt;
    s->listed_parent = PREFIX_ROOT;
    return !has_penalties(&request->sampling) || counts_init(s, most);
}

nvllm_status sequence_new(sequence **out, const sequence_request *request, uint64_t id, int32_t max_pages,
                          nvllm_error *err)
{
    sequence *s = calloc(1, sizeof *s);
    if (!s) return error_memory(err, sizeof *s, "a sequence");
    s->id = id;
    if (!fill(s, request, max_pages)) {
        sequence_free(s);
        return error_memory(err, (size_t)request->n_prompt * sizeof(int32_t), "a sequence");
    }
    *out = s;
    return NVLLM_OK;
}

void sequence_free(sequence *s)
{
    if (!s) return;
    arena_free(&s->memory);
    free(s);
}

void sequence_push(sequence *s, int32_t token)
{
    s->tokens[s->n_tokens++] = token;
    if (s->counts) count_of(s, token)->in_output++;
}

int32_t sequence_pending(const sequence *s)
{
    int32_t known = s->n_tokens - s->n_computed;
    if (known > 0 || s->draw_step == 0) return known;
    bool last = sequence_generated(s) + 1 >= s->request.max_tokens; /* the draw in flight */
    return last ? 0 : 1;
}

bool sequence_is_stop(const sequence *s, int32_t token)
{
    for (int32_t i = 0; i < s->request.n_stop_ids; i++)
        if (s->request.stop_ids[i] == token) return true;
    return false;
}
