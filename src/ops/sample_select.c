/* Radix selection over logits; see sample_select.h. Loops over the vocabulary are written so that the compiler
 * vectorises them; the exponential is one polynomial in plain C, so results do not depend on the instruction set. */
#include "ops/sample_select.h"
#include "base/half.h"

#include <math.h>
#include <stddef.h>

#define LANES       16
#define BINS        2048
#define BLOCK       256 /* logits whose largest is kept */
#define RADIX_STEPS 3

/* Bits of the key that each step looks at: highest first. */
static const struct {
    int shift, bits;
} radix[RADIX_STEPS] = {{21, 11}, {10, 11}, {0, 10}};

/* A threshold in the order of candidates: all with a larger key, and the first `ties` of those with this key. */
typedef struct {
    uint32_t key;
    int32_t ties;
} cut;

static int32_t blocks(int32_t V)
{
    return (V + BLOCK - 1) / BLOCK;
}

size_t select_scratch(int32_t V)
{
    size_t floats = 3 * (size_t)V + (size_t)blocks(V); /* id, x, w; block_max */
    return BINS * (sizeof(double) + sizeof(int32_t)) + floats * sizeof(float);
}

static float largest(const float *x, int32_t n)
{
    float lane[LANES], max = -INFINITY;
    int32_t i = 0;
    for (int j = 0; j < LANES; j++) lane[j] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (; i < n; i++) max = x[i] > max ? x[i] : max;
    for (int j = 0; j < LANES; j++) max = lane[j] > max ? lane[j] : max;
    return max;
}

static candidates open_candidates(void *scratch, const float *logits, int32_t V)
{
    candidates c = {.logits = logits, .V = V};
    c.mass = scratch;
    c.count = (int32_t *)(void *)(c.mass + BINS);
    c.id = c.count + BINS;
    c.x = (float *)(void *)(c.id + V);
    c.w = c.x + V;
    c.block_max = c.w + V;
    for (int32_t b = 0; b < blocks(V); b++)
        c.block_max[b] = largest(logits + b * BLOCK, V - b * BLOCK < BLOCK ? V - b * BLOCK : BLOCK);
    c.top = largest(c.block_max, blocks(V));
    return c;
}

int32_t select_argmax(const float *logits, int32_t V)
{
    float max = largest(logits, V);
    for (int32_t i = 0; i < V; i++)
        if (logits[i] == max) return i;
    return 0;
}

/* e^x for x <= 0 by Cephes' polynomial, 2 ulp; 0 below -87.3 and for NaN. Without a branch, so that loops over it
 * become vector code: what is computed for other x is masked out. Adding 1.5 * 2^23 rounds to an integer and leaves
 * it in the low bits. */
static inline float exp_negative(float x)
{
    float shifted = x * 1.44269504088896341f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    float power = float_from_bits((float_bits(shifted) + 127u) << 23);
    return float_from_bits(float_bits(p * power) & -(uint32_t)(x > -87.3365447f));
}

double select_sum(const float *w, int32_t n)
{
    double lane[8] = {0}, rest = 0;
    int32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) lane[j] += (double)w[i + j];
    for (; i < n; i++) rest += (double)w[i];
    for (int j = 0; j < 8; j++) rest += lane[j];
    return rest;
}

double select_mass(const float *logits, int32_t V, float max, float temperature)
{
    double total = 0;
    float e[BLOCK];
    for (int32_t first = 0; first < V; first += BLOCK) {
        int32_t n = V - first < BLOCK ? V - first : BLOCK;
        for (int32_t i = 0; i < n; i++) e[i] = exp_negative((logits[first + i] - max) / temperature);
        total += select_sum(e, n);
    }
    return total;
}

/* All ids with logit >= floor and > -infinity. */
static void take_above(candidates *c, float floor)
{
    int32_t n = 0;
    for (int32_t b = 0; b < blocks(c->V); b++) {
        if (c->block_max[b] < floor) continue;
        int32_t end = c->V - b * BLOCK < BLOCK ? c->V : (b + 1) * BLOCK;
        for (int32_t i = b * BLOCK; i < end; i++) {
            c->id[n] = i;
            c->x[n] = c->logits[i];
            n += (c->logits[i] >= floor) &
                 (c->logits[i] > -INFINITY); /* no branch: it would be mispredicted */
        }
    }
    c->n = n;
}

static void weigh(candidates *c, float temperature)
{
    for (int32_t i = 0; i < c->n; i++) c->w[i] = exp_negative((c->x[i] - c->top) / temperature);
}

/* Bits of x as an integer in the order of x; -0 and 0 are one value. */
static inline uint32_t ordered(float x)
{
    uint32_t bits = float_bits(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Keeps what the cut keeps. Stable, in place; w moves along when it is there. */
static void keep(candidates *c, cut at, const float *w)
{
    int32_t n = 0;
    for (int32_t i = 0; i < c->n; i++) {
        uint32_t key = ordered(c->x[i]);
        if (key < at.key || (key == at.key && at.ties-- <= 0)) continue;
        c->id[n] = c->id[i];
        c->x[n] = c->x[i];
        if (w) c->w[n] = w[i];
        n++;
    }
    c->n = n;
}

/* Candidates whose key agrees with `prefix` above `shift + bits`, counted and weighed by the next bits. */
static void histogram(const candidates *c, uint32_t prefix, int shift, int bits, const float *w)
{
    uint32_t mask = (1u << bits) - 1;
    for (uint32_t b = 0; b <= mask; b++) {
        c->count[b] = 0;
        c->mass[b] = 0;
    }
    for (int32_t i = 0; i < c->n; i++) {
        uint32_t key = ordered(c->x[i]);
        if (shift + bits < 32 && key >> (shift + bits) != prefix) continue;
        c->count[key >> shift & mask]++;
        if (w) c->mass[key >> shift & mask] += (double)w[i];
    }
}

/* The cut at which the count reaches k. */
static cut cut_at_count(const candidates *c, int32_t k)
{
    uint32_t prefix = 0;
    for (int step = 0; step < RADIX_STEPS; step++) {
        histogram(c, prefix, radix[step].shift, radix[step].bits, NULL);
        uint32_t b = (1u << radix[step].bits) - 1;
        for (; b > 0 && c->count[b] < k; b--) k -= c->count[b];
        prefix = prefix << radix[step].bits | b;
    }
    return (cut){prefix, k};
}

/* The cut at which the mass reaches `wanted`, which is above 0. In the last bin all have the same logit, hence the
 * same weight. */
static cut cut_at_mass(const candidates *c, double wanted)
{
    uint32_t prefix = 0, b = 0;
    for (int step = 0; step < RADIX_STEPS; step++) {
        histogram(c, prefix, radix[step].shift, radix[step].bits, c->w);
        uint32_t lowest = 0;
        while (c->count[lowest] == 0) lowest++;
        b = (1u << radix[step].bits) - 1;
        for (; b > lowest && c->mass[b] < wanted; b--) wanted -= c->mass[b];
        prefix = prefix << radix[step].bits | b;
    }
    double ties = ceil(wanted * c->count[b] / c->mass[b]);
    if (!(ties >= 1)) ties = 1;
    return (cut){prefix, ties < c->count[b] ? (int32_t)ties : c->count[b]};
}

/* 0 < k < n */
static void keep_top_k(candidates *c, int32_t k)
{
    keep(c, cut_at_count(c, k), NULL);
}

/* The smallest prefix whose weights reach `wanted`; never empty. */
static void keep_top_p(candidates *c, double wanted)
{
    keep(c, cut_at_mass(c, wanted), c->w);
}

/* k blocks have a logit of at least the k-th largest block_max, so the k-th largest logit is no smaller. */
static float floor_of_top_k(candidates *c, int32_t k)
{
    if (k > blocks(c->V)) return -INFINITY;
    candidates maxima = *c;
    maxima.x = c->block_max;
    maxima.n = blocks(c->V);
    uint32_t key = cut_at_count(&maxima, k).key;
    return float_from_bits(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* Those with w <= (1-p) * total / V have at most (1-p) * total together, so the others reach p * total. The factor
 * leaves room for the rounding of w and of the floor. */
static float floor_of_top_p(const candidates *c, double p, double total, float temperature)
{
    return (float)((double)c->top + (double)temperature * log(0.9 * (1 - p) * total / c->V));
}

/* The smallest float logit that min-p leaves: p >= min_p * largest p means x >= top + temperature * ln min_p. */
static float min_p_floor(float top, const sample_params *p)
{
    if (p->min_p <= 0) return -INFINITY;
    if (p->min_p >= 1) return top;
    double floor = (double)top + (double)p->temperature * log((double)p->min_p);
    return (double)(float)floor < floor ? nextafterf((float)floor, INFINITY) : (float)floor;
}

candidates select_candidates(void *scratch, const float *logits, int32_t V, const sample_params *p)
{
    candidates c = open_candidates(scratch, logits, V);
    float floor = min_p_floor(c.top, p);
    double total = -1;
    if (p->top_k > 0)
        floor = fmaxf(floor, floor_of_top_k(&c, p->top_k));
    else if (p->top_p < 1 && p->min_p <= 0) {
        total = select_mass(logits, V, c.top, p->temperature);
        floor = floor_of_top_p(&c, (double)p->top_p, total, p->temperature);
    }
    take_above(&c, floor);
    if (p->top_k > 0 && p->top_k < c.n) keep_top_k(&c, p->top_k);
    weigh(&c, p->temperature);
    if (p->top_p < 1) keep_top_p(&c, (double)p->top_p * (total < 0 ? select_sum(c.w, c.n) : total));
    return c;
}
