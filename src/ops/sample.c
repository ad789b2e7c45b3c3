/* The sampler: penalties, choice of candidates, draw. See sample.h for the order of the rules; sample_select.c finds
 * the candidates without sorting the vocabulary.
 *
 * Random numbers are counter-based: u(seed, step) = mix(mix(seed) + (step + 1) * 0x9e3779b97f4a7c15) >> 11, times 2^-53,
 * with splitmix64's mix (Steele, Lea, Flood 2014). No state, so a sequence may be preempted and go on.
 * Candidates are drawn in the order of their ids: the smallest id at which the running mass exceeds u * total. */
#include "ops/sample.h"
#include "ops/sample_select.h"

#include <math.h>
#include <stdbool.h>

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Uniform in [0, 1). */
static double uniform(uint64_t seed, uint64_t step)
{
    return (double)(mix(mix(seed) + (step + 1) * 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}

/* Token ids of biases and bans come from users: those outside the vocabulary are passed over. */
static void apply_bias(const sample_args *a)
{
    for (int32_t i = 0; i < a->n_bias; i++)
        if (a->bias[i].token >= 0 && a->bias[i].token < a->V) a->logits[a->bias[i].token] += a->bias[i].bias;
}

static void apply_penalties(const sample_args *a)
{
    const sample_params *p = a->params;
    if (p->repetition_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0) return;
    for (int32_t i = 0; i < a->n_counts; i++) {
        const sample_count *seen = &a->counts[i];
        if (seen->token < 0 || seen->token >= a->V) continue;
        float x = a->logits[seen->token];
        if (seen->in_prompt > 0 || seen->in_output > 0)
            x = x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty;
        if (seen->in_output > 0) x -= p->frequency_penalty * (float)seen->in_output + p->presence_penalty;
        a->logits[seen->token] = x;
    }
}

static void apply_bans(const sample_args *a)
{
    for (int32_t i = 0; i < a->n_banned; i++)
        if (a->banned[i] >= 0 && a->banned[i] < a->V) a->logits[a->banned[i]] = -INFINITY;
}

#define DRAW_BLOCK 256

/* The first candidate at which the running mass exceeds u * total: block by block, then within the block. The last one
 * with any mass stands in for rounding. */
static int32_t draw(const candidates *c, double u)
{
    double wanted = u * select_sum(c->w, c->n), mass = 0;
    int32_t first = 0, chosen = c->id[0];
    for (; first + DRAW_BLOCK < c->n; first += DRAW_BLOCK) {
        double block = select_sum(c->w + first, DRAW_BLOCK);
        if (mass + block > wanted) break;
        mass += block;
    }
    for (int32_t i = first; i < c->n; i++) {
        if (c->w[i] == 0) continue;
        chosen = c->id[i];
        mass += (double)c->w[i];
        if (mass > wanted) break;
    }
    return chosen;
}

int32_t sample_token(const sample_args *a)
{
    apply_bias(a);
    apply_penalties(a);
    apply_bans(a);
    int32_t best = select_argmax(a->logits, a->V);
    bool finite = a->logits[best] > -INFINITY && a->logits[best] < INFINITY;
    if (a->params->temperature == 0 || !finite) return best;
    candidates c = select_candidates(a->scratch, a->logits, a->V, a->params);
    return draw(&c, uniform(a->params->seed, a->step));
}

size_t sample_scratch(int32_t V)
{
    return select_scratch(V);
}

/* Puts (token, logit) in its place among the first *n of `top`, the largest first; ties keep the lower id in front. */
static void insert(sample_logprob *top, int32_t *n, int32_t limit, int32_t token, float logit)
{
    int32_t i = *n < limit ? (*n)++ : limit - 1;
    for (; i > 0 && top[i - 1].logprob < logit; i--) top[i] = top[i - 1];
    top[i] = (sample_logprob){token, logit};
}

float sample_logprobs(const float *logits, int32_t V, int32_t token, sample_logprob *top, int32_t n_top)
{
    float max = logits[select_argmax(logits, V)];
    double log_total = (double)max + log(select_mass(logits, V, max, 1));
    int32_t n = 0, limit = n_top < V ? n_top : V;
    for (int32_t i = 0; i < V && limit > 0; i++) {
        float x = isnan(logits[i]) ? -INFINITY : logits[i];
        if (n < limit || x > top[limit - 1].logprob) insert(top, &n, limit, i, x);
    }
    for (int32_t i = 0; i < n; i++) top[i].logprob = (float)((double)top[i].logprob - log_total);
    return (float)((isnan(logits[token]) ? -INFINITY : (double)logits[token]) - log_total);
}
