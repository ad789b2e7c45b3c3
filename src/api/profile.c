/* Profile to JSON; the shape of the document is in nanovllm.h. */
#include "api/profile.h"

#include <jansson.h>

/* "qkv", "gate_up", "down", "lm_head", "q_norm": by the op's first weight; "" for ops without weights. */
static const char *role_of(const graph_op *op)
{
    if (op->w[0] == W_Q && op->n_parts == 3) return "qkv";
    if (op->w[0] == W_GATE && op->n_parts == 2) return "gate_up";
    return op->w[0] == W_NONE || op->n_parts == 0 ? "" : weight_role_name(op->w[0]);
}

static json_t *list_json(const graph *g)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < g->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:i}", "op", op_name(g->ops[i].kind), "role",
                                              role_of(&g->ops[i]), "layer", (int)g->ops[i].layer));
    return list;
}

static json_t *times_json(const profile_op *ops, const profile_step *step, const graph *g, const model *m,
                          dtype kv_type)
{
    json_t *list = json_array();
    for (int32_t i = step->first; i < step->first + step->count; i++) {
        const graph_op *op = &g->ops[ops[i].op];
        json_array_append_new(list, json_pack("[i, f, f, I, I]", (int)ops[i].op, ops[i].start, ops[i].took,
                                              (json_int_t)profile_op_bytes(m, kv_type, op, step),
                                              (json_int_t)profile_op_flops(m, op, step)));
    }
    return list;
}

static json_t *step_json(const profile_step *s, json_t *times)
{
    return json_pack("{s:i, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:o}", "tokens", (int)s->T, "rows", (int)s->R,
                     "logits", (int)s->N, "kv_tokens", (json_int_t)s->kv_tokens, "begin_us", s->begin,
                     "launch_us", s->launch, "launched_us", s->launched, "end_us", s->end, "times", times);
}

char *profile_json(const profile *p, const runner *r, const model *m, dtype kv_type)
{
    const profile_step *steps;
    int32_t n = profile_steps(p, &steps);
    const graph *g = runner_graph(r);
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++)
        json_array_append_new(list,
                              step_json(&steps[i], times_json(profile_ops(p), &steps[i], g, m, kv_type)));
    json_t *document = json_pack("{s:o, s:o, s:I}", "ops", list_json(g), "steps", list, "dropped_steps",
                                 (json_int_t)profile_dropped(p));
    char *text = document ? json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(document);
    return text;
}
