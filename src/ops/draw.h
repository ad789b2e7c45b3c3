/* The next tokens: one draw per order, by sample.h's rules, as an op, so that it runs where the logits are.
 *     result[i] = token, log-probabilities;  drawn[i] = token
 * An order names a row of logits and the ranges of its penalties, biases and bans in shared arrays. Tokens whose id is
 * -1-i in the next step's batch are drawn[i] (embed.h): the host need not have read them. */
#ifndef NVLLM_OPS_DRAW_H
#define NVLLM_OPS_DRAW_H

#include "ops/op.h"
#include "ops/sample.h"

#include <stdbool.h>

#define DRAW_MAX_TOP 20 /* log-probabilities of the best tokens, per draw */

typedef struct {
    sample_params params;
    uint64_t step;                  /* tokens the sequence has generated so far */
    int32_t logit;                  /* row of logits; changed in place by penalties, biases and bans */
    int32_t n_top;                  /* -1: no log-probabilities; K: of the token and of the K best */
    int32_t first_count, n_counts;  /* in `counts` */
    int32_t first_bias, n_bias;     /* in `bias` */
    int32_t first_banned, n_banned; /* in `banned` */
    int32_t result;                 /* where the result goes in `result` */
    int32_t epoch;                  /* copied into the result, last of all */
} draw_order;

typedef struct {
    int32_t token;
    int32_t failed; /* 1: no logit is a number, or all are excluded; token is no answer */
    float logprob;  /* of the model's own distribution, before penalties; with n_top >= 0 */
    int32_t n_top;
    sample_logprob top[DRAW_MAX_TOP]; /* [n_top], best first, ties: lower id first */
    int32_t epoch;
} draw_result;

typedef struct {
    float *logits; /* [rows, V] */
    int32_t V, N;  /* N orders */
    bool
        greedy; /* draws_are_greedy of all orders: a device needs to know it on the host; false is always right */
    const draw_order *order;
    const sample_count *counts;
    const sample_bias *bias;
    const int32_t *banned;
    draw_result *result;
    int32_t *drawn; /* [N] */
    void *scratch;  /* CPU: draw_scratch(V) bytes, 8-byte aligned; others: unused */
} op_draw_args;

/* Whether all n are greedy and want no log-probabilities. */
bool draws_are_greedy(const draw_order *orders, int32_t n);

void op_draw_ref(const op_draw_args *a);
size_t draw_scratch(int32_t V);

#endif
