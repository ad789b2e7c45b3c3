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
                       .C = c->C,
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

static size_t step_bytes(const runner_options *o)
{
    int32_t pages_per_row = (o->max_context + o->page_slots - 1) / o->page_slots;
    return placement_step_bytes(o->max_tokens, o->max_logits, o->max_rows * pages_per_row) +
           (size_t)o->max_rows * sizeof(int32_t); /* the drawn tokens */
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
