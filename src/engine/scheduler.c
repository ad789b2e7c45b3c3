/* Plans a step; see scheduler.h. */
#include "engine/scheduler.h"

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static bool wants_scores(const sequence *s)
{
    return s->request.score && !s->scored;
}

/* How many of the row's tokens want logits: the last one when the row catches up; all while a prompt is scored. */
static int32_t logits_wanted(const sequence *s, int32_t count)
{
    if (wants_scores(s)) return count;
    return count == sequence_pending(s) ? 1 : 0;
}

int32_t scheduler_plan(step_row *rows, sequence *const *running, int32_t n_running, const step_budget *budget)
{
    int32_t n_rows = 0, tokens = budget->step_tokens, logits = budget->max_logits;
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t i = 0; i < n_running && tokens > 0; i++) {
            sequence *s = running[i];
            bool decode = sequence_pending(s) == 1;
            if (decode != (pass == 0)) continue;
            int32_t count = smaller(smaller(sequence_pending(s), budget->row_tokens), tokens);
            if (wants_scores(s)) count = smaller(count, logits);
            int32_t wanted = logits_wanted(s, count);
            if (count == 0 || wanted > logits) continue;
            rows[n_rows++] = (step_row){.sequence = s, .count = count, .logits = wanted};
            tokens -= count;
            logits -= wanted;
        }
    }
    return n_rows;
}
