/* A profile (nvllm_profile_stop) by op: the mean step of those that carry the same number of tokens, its ops of the
 * same kind and role added up. */
#ifndef NVLLM_CLI_OP_TABLE_H
#define NVLLM_CLI_OP_TABLE_H

#include "cli.h"

#include <jansson.h>

enum { OP_GROUPS_MAX = 64, OP_NAME = 32 };

typedef struct {
    char op[OP_NAME], role[OP_NAME]; /* "linear", "gate_up" */
    double calls, us, bytes, flops;  /* per step */
} op_group;

/* steps 0: there was no such step. */
typedef struct {
    int32_t steps, tokens, rows; /* averaged over; tokens and rows of each */
    double kv_tokens, us;        /* mean of the steps; us: the sum of all ops */
    op_group groups[OP_GROUPS_MAX];
    int32_t count;
} op_table;

/* The steps of single tokens with `rows` rows, but for the first; and the steps with the most tokens. */
void op_table_decode(op_table *out, const json_t *profile, int32_t rows);
void op_table_prompt(op_table *out, const json_t *profile);

/* step_us: how long such a step takes when ops are not timed; 0: unknown. */
void op_table_print(const op_table *t, const char *title, double step_us, const nvllm_limits *limits);
json_t *op_table_json(const op_table *t, double step_us, const nvllm_limits *limits);

#endif
