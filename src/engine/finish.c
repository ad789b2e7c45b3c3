/* What comes out of a step: scores of prompt tokens, the drawn tokens, and the end of sequences. */
#include "engine/state.h"

static int32_t top_wanted(const sequence *s)
{
    int32_t k = s->request.top_logprobs;
    return k > ENGINE_MAX_TOP_LOGPROBS ? ENGINE_MAX_TOP_LOGPROBS : k;
}

/* Log-probabilities of the prompt tokens that follow the row's tokens, and with score_top the best ones there. */
static void score_row(engine *e, const step_row *row, const float *logits)
{
    sequence *s = row->sequence;
    int32_t V = e->model->config.V, first = row->start, k = top_wanted(s);
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

static void take_draw(engine *e, sequence *s, const draw_result *draw)
{
    if (draw->failed) { /* all logits are NaN or excluded: the best of them is no answer */
        engine_emit(e, s, ENGINE_FAILED, -1);
        s->ended = true;
        return;
    }
    sequence_push(s, draw->token);
    e->counts.generated_tokens++;
    bool stop = sequence_is_stop(s, draw->token), full = sequence_generated(s) >= s->request.max_tokens;
    engine_event *event = engine_emit(e, s,
                                      stop   ? ENGINE_STOP
                                      : full ? ENGINE_LENGTH
                                             : ENGINE_TOKEN,
                                      draw->token);
    event->logprob = draw->logprob;
    event->top = draw->top;
    event->n_top = draw->n_top;
    s->ended = stop || full;
}

static void count_prompt(engine *e, const step_row *row)
{
    int32_t left = row->sequence->request.n_prompt - row->start;
    if (left > 0) e->counts.prompt_tokens += (uint64_t)(row->count < left ? row->count : left);
}

void finish_rows(engine *e, const flight *f, const draw_result *draws, const float *logits)
{
    size_t V = (size_t)e->model->config.V;
    for (int32_t r = 0; r < f->n_rows; r++) {
        const step_row *row = &f->rows[r];
        sequence *s = row->sequence;
        if (!s) continue;
        count_prompt(e, row);
        if (s->draw_step == f->number) s->draw_step = 0;
        if (s->request.score && !s->scored && row->logits > 0)
            score_row(e, row, logits + (size_t)row->first_logit * V);
        if (row->draw >= 0 && !s->ended) take_draw(e, s, &draws[row->draw]);
    }
}
