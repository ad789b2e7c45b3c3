/* What comes out of a step: scores of prompt tokens, the next token of each row, and the end of sequences. */
#include "engine/state.h"

#include <math.h>
#include <string.h>

static int32_t top_wanted(const sequence *s)
{
    int32_t k = s->request.top_logprobs;
    return k > ENGINE_MAX_TOP_LOGPROBS ? ENGINE_MAX_TOP_LOGPROBS : k;
}

static void add_logprobs(engine *e, engine_event *event, const sequence *s, int32_t row)
{
    sample_logprob *top = e->top + (size_t)row * ENGINE_MAX_TOP_LOGPROBS;
    event->n_top = top_wanted(s);
    event->logprob = sample_logprobs(e->raw_logits, e->model->config.V, event->token, top, event->n_top);
    event->top = top;
}

static int32_t draw(engine *e, const sequence *s, float *logits)
{
    const sequence_request *q = &s->request;
    bool too_short = sequence_generated(s) < q->min_tokens;
    return sample_token(&(sample_args){.logits = logits,
                                       .V = e->model->config.V,
                                       .params = &q->sampling,
                                       .step = (uint64_t)sequence_generated(s),
                                       .counts = s->counts,
                                       .n_counts = s->n_counts,
                                       .bias = q->bias,
                                       .n_bias = q->n_bias,
                                       .banned = q->stop_ids,
                                       .n_banned = too_short ? q->n_stop_ids : 0,
                                       .scratch = e->sample_scratch});
}

/* Log-probabilities of the prompt tokens that follow the row's tokens, and with score_top the best ones there. */
static void score_row(engine *e, const step_row *row, const float *logits)
{
    sequence *s = row->sequence;
    int32_t V = e->model->config.V, first = s->n_computed - row->count, k = top_wanted(s);
    for (int32_t i = 0; i < row->count; i++) {
        int32_t next = first + i + 1;
        if (next >= s->request.n_prompt) break;
        sample_logprob *top = s->request.score_top ? s->request.score_top + (size_t)next * (size_t)k : NULL;
        s->request.score[next] =
            sample_logprobs(logits + (size_t)i * (size_t)V, V, s->tokens[next], top, top ? k : 0);
    }
    s->scored = s->n_computed >= s->request.n_prompt;
    if (s->scored) engine_emit(e, s, ENGINE_SCORED, -1);
    s->ended = s->scored && s->request.max_tokens == 0;
}

/* Draws the row's next token from its last logits. Penalties change them in place, and log-probabilities are of the
 * model's own distribution: so a copy is kept for those who ask. */
static void sample_row(engine *e, const step_row *row, int32_t index, float *logits)
{
    sequence *s = row->sequence;
    bool wants_logprobs = s->request.top_logprobs >= 0;
    if (wants_logprobs) memcpy(e->raw_logits, logits, (size_t)e->model->config.V * sizeof *logits);
    int32_t token = draw(e, s, logits);
    if (!(logits[token] > -INFINITY)) { /* all are NaN or excluded: the best of them is no answer */
        engine_emit(e, s, ENGINE_FAILED, -1);
        s->ended = true;
        return;
    }
    sequence_push(s, token);
    e->counts.generated_tokens++;
    bool stop = sequence_is_stop(s, token), full = sequence_generated(s) >= s->request.max_tokens;
    engine_event *event = engine_emit(e, s, stop ? ENGINE_STOP : full ? ENGINE_LENGTH : ENGINE_TOKEN, token);
    if (wants_logprobs) add_logprobs(e, event, s, index);
    s->ended = stop || full;
}

static void count_prompt(engine *e, const step_row *row)
{
    int32_t left = row->sequence->request.n_prompt - row->sequence->n_computed;
    if (left > 0) e->counts.prompt_tokens += (uint64_t)(row->count < left ? row->count : left);
}

void finish_rows(engine *e, int32_t n_rows, float *logits)
{
    size_t V = (size_t)e->model->config.V;
    for (int32_t r = 0; r < n_rows; r++) {
        step_row *row = &e->rows[r];
        sequence *s = row->sequence;
        count_prompt(e, row);
        s->n_computed += row->count;
        if (row->logits == 0) continue;
        float *first = logits + (size_t)row->first_logit * V;
        if (s->request.score && !s->scored) score_row(e, row, first);
        bool caught_up = s->n_computed == s->n_tokens;
        if (!s->ended && caught_up) sample_row(e, row, r, first + (size_t)(row->logits - 1) * V);
    }
}
