/* The fusion pass; see fusion.h. Blocks of the op list have a fixed order (graph.c), so a group is found by looking at
 * the next few ops. */
#include "model/fusion.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const graph *from;
    const weights *weights;
    const backend_type *type;
    fusion_report *report;
} fusion;

static const graph_op *op_at(const fusion *f, int32_t i, op_kind kind)
{
    return i < f->from->count && f->from->ops[i].kind == kind ? &f->from->ops[i] : NULL;
}

static bool same_view(graph_view a, graph_view b)
{
    return a.buffer == b.buffer && a.col == b.col && a.cols == b.cols;
}

/* Keeps why an op was refused: by the formats of its weights, one or two that differ. */
static void explain(const fusion *f, const graph_op *op, const weight *const *parts)
{
    char formats[32] = "these";
    if (op->n_parts > 0) snprintf(formats, sizeof formats, "%s", dtype_name(parts[0]->format));
    for (int32_t p = 1; p < op->n_parts; p++)
        if (parts[p]->format != parts[0]->format)
            snprintf(formats, sizeof formats, "%s beside %s", dtype_name(parts[0]->format),
                     dtype_name(parts[p]->format));
    snprintf(f->report->reason, sizeof f->report->reason, "%s has no %s for %s weights", f->type->name,
             op_name(op->kind), formats);
}

/* The backend's word on the op's weights. */
static bool allowed(const fusion *f, const graph_op *op)
{
    const weight *parts[3];
    for (int32_t p = 0; p < op->n_parts; p++) parts[p] = weights_get(f->weights, op->w[p], op->layer);
    if (f->type->can_fuse && f->type->can_fuse(op->kind, parts, op->n_parts)) {
        f->report->fused++;
        return true;
    }
    if (f->report->refused++ == 0) explain(f, op, parts);
    return false;
}

/* Both return how many ops of the list the group has, 0: there is none at i. */
static int32_t norm_group(const fusion *f, int32_t i, graph_op *out)
{
    const graph_op *gather = op_at(f, i, OP_GATHER);
    int32_t n = gather ? 1 : 0;
    const graph_op *norm = op_at(f, i + n, OP_RMSNORM), *linear = op_at(f, i + n + 1, OP_LINEAR);
    if (!norm || !linear || norm->groups != 1 || linear->accumulate || !same_view(linear->in, norm->out))
        return 0;
    if (gather && !same_view(norm->in, gather->out)) return 0;
    n += 2;
    *out = *linear;
    out->kind = OP_NORM_LINEAR;
    out->in = gather ? gather->in : norm->in;
    out->norm[0] = norm->w[0];
    const graph_op *gate = op_at(f, i + n, OP_SILU_MUL);
    if (!gate || out->n_parts != 2 || !same_view(gate->in, linear->out)) return n;
    out->gated = true;
    out->out = gate->out;
    return n + 1;
}

static int32_t attention_group(const fusion *f, int32_t i, graph_op *out)
{
    const graph_op *q = op_at(f, i, OP_RMSNORM), *k = op_at(f, i + 1, OP_RMSNORM);
    bool normed = q && k && q->in.buffer == BUF_QKV && k->in.buffer == BUF_QKV;
    int32_t n = normed ? 2 : 0;
    const graph_op *rope = op_at(f, i + n, OP_ROPE), *write = op_at(f, i + n + 1, OP_KV_WRITE),
                   *attention = op_at(f, i + n + 2, OP_ATTENTION);
    if (!rope || !write || !attention) return 0;
    *out = *attention;
    out->kind = OP_ROPE_ATTENTION;
    out->in = (graph_view){BUF_QKV, 0, f->from->width[BUF_QKV]};
    if (normed) {
        out->norm[0] = q->w[0];
        out->norm[1] = k->w[0];
    }
    return n + 3;
}

nvllm_status graph_fuse(graph *out, const graph *from, const weights *w, const backend_type *type,
                        fusion_report *report, nvllm_error *err)
{
    fusion f = {from, w, type, report};
    graph g = *from;
    *report = (fusion_report){0};
    g.capacity = from->count;
    g.ops = calloc((size_t)g.capacity, sizeof *g.ops);
    if (!g.ops) return error_memory(err, (size_t)g.capacity * sizeof *g.ops, "the op list");
    g.count = 0;
    for (int32_t i = 0; i < from->count;) {
        graph_op fused;
        int32_t n = norm_group(&f, i, &fused);
        if (n == 0) n = attention_group(&f, i, &fused);
        bool group = n > 0;
        if (!group) n = 1;
        if (group && type->op[fused.kind] && allowed(&f, &fused))
            g.ops[g.count++] = fused;
        else /* a group stays whole: its ops begin no other */
            for (int32_t op = i; op < i + n; op++) g.ops[g.count++] = from->ops[op];
        i += n;
    }
    *out = g;
    return NVLLM_OK;
}
