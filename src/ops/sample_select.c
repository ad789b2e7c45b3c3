/* Radix selection over logits; see sample_select.h. Loops over the vocabulary are written so that the compiler
 * vectorises them; the exponential is one polynomial in plain C, so results do not depend on the instruction set. */
#include "ops/sample_select.h"
#include "base/half.h"

#include <math.h>
#include <stddef.h>

#define LANES       16
#define BINS        2048
#define HEADER      (BINS * (sizeof(double) + sizeof(int32_t)))
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

candidates select_open(void *scratch, int32_t V)
{
    candidates c = {.n = 0};
    c.mass = scratch;
    c.count = (int32_t *)(void *)(c.mass + BINS);
    c.id = c.count + BINS;
    c.x = (float *)(void *)(c.id + V);
    c.w = c.x + V;
    return c;
}

size_t select_scratch(int32_t V)
{
    return HEADER + (size_t)V * (sizeof(int32_t) + 2 * sizeof(float));
}

int32_t select_argmax(const float *logits, int32_t V)
{
    float lane[LANES], max = -INFINITY;
    int32_t i = 0;
    for (int j = 0; j < LANES; j++) lane[j] = -INFINITY;
    for (; i + LANES <= V; i += LANES)
        for (int j = 0; j < LANES; j++) lane[j] = logits[i + j] > lane[j] ? logits[i + j] : lane[j];
    for (; i < V; i++) max = logits[i] > max ? logits[i] : max;
    for (int j = 0; j < LANES; j++) max = lane[j] > max ? lane[j] : max;
    for (i = 0; i < V; i++)
        if (logits[i] == max) return i;
    return 0;
}

/* e^x for x <= 0 by Cephes' polynomial, 2 ulp; 0 below -87.3 and for NaN. */
static inline float exp_negative(float x)
{
    float clamped = x > -87.3365447f ? x : -87.3365447f;
    float shifted = clamped * 1.44269504088896341f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    float power = float_from_bits((uint32_t)(((int32_t)n + 127) << 23));
    return x > -87.3365447f ? p * power : 0.0f;
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

double select_mass(const float *logits, int32_t V, float max)
{
    double total = 0;
    float e[256];
    for (int32_t first = 0; first < V; first += 256) {
        int32_t n = V - first < 256 ? V - first : 256;
        for (int32_t i = 0; i < n; i++) e[i] = exp_negative(logits[first + i] - max);
        total += select_sum(e, n);
    }
    return total;
}

void select_above(candidates *c, const float *logits, int32_t V, float floor)
{
    int32_t n = 0;
    for (int32_t i = 0; i < V; i++) {
        c->id[n] = i;
        c->x[n] = logits[i];
        n += (logits[i] >= floor) &
             (logits[i] > -INFINITY); /* without a branch: half of them are mispredicted */
    }
    c->n = n;
}

void select_weights(candidates *c, float max, float temperature)
{
    for (int32_t i = 0; i < c->n; i++) c->w[i] = exp_negative((c->x[i] - max) / temperature);
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

void select_top_k(candidates *c, int32_t k)
{
    keep(c, cut_at_count(c, k), NULL);
}

/* Those with w <= (1-p) * total / n have at most (1-p) * total together, so the others reach p * total: they can be
 * dropped before the histograms, and of a real vocabulary nearly all are. (The factor leaves room for rounding.) */
void select_top_p(candidates *c, double p)
{
    double total = select_sum(c->w, c->n);
    float small = (float)(0.999 * (1 - p) * total / c->n);
    int32_t n = 0;
    for (int32_t i = 0; i < c->n; i++) {
        float x = c->x[i], w = c->w[i];
        c->id[n] = c->id[i];
        c->x[n] = x;
        c->w[n] = w;
        n += w > small;
    }
    c->n = n;
    keep(c, cut_at_mass(c, p * total), c->w);
}
