/* Memory from shapes; see memory_plan.h. */
#include "model/memory_plan.h"
#include "model/placement.h"

backend_shape memory_plan_shape(const model *m, const runner_options *o)
{
    const model_config *c = &m->config;
    backend_shape s = {.max_tokens = o->max_tokens,
                       .max_logits = o->max_logits,
                       .max_rows = o->max_rows,
                       .max_context = o->max_context,
                       .H = c->H,
                       .K = c->K,
                       .C = c->C,
                       .D = c->D,
                       .F = c->F,
                       .V = c->V};
    for (int32_t i = 0; i < m->graph.count; i++) {
        const graph_op *op = &m->graph.ops[i];
        if (op->kind == OP_LINEAR && op->in.cols > s.widest_input) s.widest_input = op->in.cols;
    }
    return s;
}

static size_t buffer_bytes(const model *m, const runner_options *o)
{
    size_t sum = 0;
    for (int i = 0; i < BUF_COUNT; i++) {
        int32_t rows = i == BUF_LAST || i == BUF_LOGITS ? o->max_logits : o->max_tokens;
        sum += (size_t)rows * (size_t)m->graph.width[i] * sizeof(float);
    }
    return sum;
}

/* tokens, pos, slot; row_start, kv_len, a draw's order; logit_row; the page table. */
static size_t step_bytes(const runner_options *o)
{
    size_t T = (size_t)o->max_tokens, R = (size_t)o->max_rows, N = (size_t)o->max_logits;
    size_t P = ((size_t)o->max_context + (size_t)o->page_slots - 1) / (size_t)o->page_slots;
    return (3 * T + 2 * R + 1 + N + R * P) * sizeof(int32_t) + R * sizeof(draw_order);
}

memory_plan memory_plan_of(const model *m, backend *b, const runner_options *o)
{
    const model_config *c = &m->config;
    backend_shape shape = memory_plan_shape(m, o);
    size_t page = (size_t)c->K * (size_t)o->page_slots * dtype_row_bytes(o->kv_type, c->C);
    return (memory_plan){.weights = placement_weight_bytes(m, b),
                         .kv = 2 * (size_t)c->L * (size_t)o->pages * page,
                         .activations = buffer_bytes(m, o) + (b->type->copy_in ? step_bytes(o) : 0),
                         .scratch = b->type->scratch_bytes(b, &shape)};
}

size_t memory_plan_sum(const memory_plan *p)
{
    return p->weights + p->kv + p->activations + p->scratch;
}
