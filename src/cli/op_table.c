/* Profiles by op; see op_table.h. */
#define _GNU_SOURCE
#include "op_table.h"

#include <stdio.h>
#include <string.h>

/* ---- Adding up ----------------------------------------------------------------------------------------------- */

static double real_at(const json_t *list, size_t i)
{
    return json_number_value(json_array_get(list, i));
}

static json_int_t whole(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static op_group *group_of(op_table *t, const json_t *op)
{
    const char *name = json_string_value(json_object_get(op, "op"));
    const char *role = json_string_value(json_object_get(op, "role"));
    if (!name || !role) return NULL;
    for (int32_t i = 0; i < t->count; i++)
        if (strcmp(t->groups[i].op, name) == 0 && strcmp(t->groups[i].role, role) == 0) return &t->groups[i];
    if (t->count == OP_GROUPS_MAX) return NULL;
    op_group *g = &t->groups[t->count++];
    *g = (op_group){0};
    snprintf(g->op, sizeof g->op, "%s", name);
    snprintf(g->role, sizeof g->role, "%s", role);
    return g;
}

static void add_step(op_table *t, const json_t *profile, const json_t *step)
{
    const json_t *ops = json_object_get(profile, "ops"), *times = json_object_get(step, "times");
    size_t i;
    json_t *time;
    t->steps++;
    t->kv_tokens += (double)whole(step, "kv_tokens");
    json_array_foreach(times, i, time)
    {
        op_group *g = group_of(t, json_array_get(ops, (size_t)json_integer_value(json_array_get(time, 0))));
        t->us += real_at(time, 2);
        if (!g) continue;
        g->calls += 1;
        g->us += real_at(time, 2);
        g->bytes += real_at(time, 3);
        g->flops += real_at(time, 4);
    }
}

static void take_mean(op_table *t)
{
    double n = t->steps ? t->steps : 1;
    t->us /= n;
    t->kv_tokens /= n;
    for (int32_t i = 0; i < t->count; i++) {
        op_group *g = &t->groups[i];
        g->calls /= n;
        g->us /= n;
        g->bytes /= n;
        g->flops /= n;
    }
}

/* All steps of these sizes but the first `skip`. */
static void add_steps(op_table *out, const json_t *profile, json_int_t tokens, json_int_t rows, size_t skip)
{
    const json_t *steps = json_object_get(profile, "steps");
    size_t i, seen = 0;
    json_t *step;
    *out = (op_table){.tokens = (int32_t)tokens, .rows = (int32_t)rows};
    json_array_foreach(steps, i, step)
    {
        if (whole(step, "tokens") == tokens && whole(step, "rows") == rows && seen++ >= skip)
            add_step(out, profile, step);
    }
    take_mean(out);
}

void op_table_decode(op_table *out, const json_t *profile, int32_t rows)
{
    add_steps(out, profile, rows, rows, 1);
}

void op_table_prompt(op_table *out, const json_t *profile)
{
    const json_t *steps = json_object_get(profile, "steps"), *largest = NULL;
    size_t i;
    json_t *step;
    json_array_foreach(steps, i, step)
    {
        if (!largest || whole(step, "tokens") > whole(largest, "tokens")) largest = step;
    }
    *out = (op_table){0};
    if (largest) add_steps(out, profile, whole(largest, "tokens"), whole(largest, "rows"), 0);
}

/* ---- Showing ------------------------------------------------------------------------------------------------- */

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static double gb_per_s(const op_group *g)
{
    return g->us > 0 ? g->bytes / g->us * 1e-3 : 0;
}

static double gflops(const op_group *g)
{
    return g->us > 0 ? g->flops / g->us * 1e-3 : 0;
}

/* A rate and its share of the limit, or blanks where there is nothing to say. */
static void print_rate(double rate, double limit)
{
    if (rate > 0)
        printf("  %9.1f", rate);
    else
        printf("  %9s", "");
    if (rate > 0 && limit > 0)
        printf("  %5.1f %%", rate / limit * 100);
    else
        printf("  %7s", "");
}

void op_table_print(const op_table *t, const char *title, double step_us, const nvllm_limits *limits)
{
    if (t->steps == 0) return;
    printf("\n%s: %d tokens of %d sequences, %.0f tokens in the cache, mean of %d\n", title, (int)t->tokens,
           (int)t->rows, t->kv_tokens, (int)t->steps);
    printf("%-14s %-10s %6s  %9s  %7s  %9s  %7s  %9s  %7s\n", "op", "role", "calls", "us", "share", "GB/s",
           "limit", "GFLOP/s", "limit");
    for (int32_t i = 0; i < t->count; i++) {
        const op_group *g = &t->groups[i];
        printf("%-14s %-10s %6.0f  %9.2f  %5.1f %%", g->op, g->role, g->calls, g->us,
               share(g->us, t->us) * 100);
        print_rate(gb_per_s(g), limits->read_gb_per_s);
        print_rate(gflops(g), limits->bf16_gflops);
        putchar('\n');
    }
    printf("%-14s %-10s %6s  %9.2f", "sum", "", "", t->us);
    if (step_us > 0) printf("  (a step takes %.2f us; ops that are timed do not overlap)", step_us);
    putchar('\n');
}

json_t *op_table_json(const op_table *t, double step_us, const nvllm_limits *limits)
{
    json_t *ops = json_array();
    for (int32_t i = 0; i < t->count; i++) {
        const op_group *g = &t->groups[i];
        json_array_append_new(
            ops, json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "op", g->op, "role", g->role,
                           "calls", g->calls, "us", g->us, "share", share(g->us, t->us), "gb_per_s",
                           gb_per_s(g), "share_of_bandwidth", share(gb_per_s(g), limits->read_gb_per_s),
                           "gflops", gflops(g), "share_of_gflops", share(gflops(g), limits->bf16_gflops)));
    }
    return json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:o}", "steps", (int)t->steps, "tokens", (int)t->tokens,
                     "rows", (int)t->rows, "kv_tokens", t->kv_tokens, "sum_us", t->us, "step_us", step_us,
                     "ops", ops);
}
