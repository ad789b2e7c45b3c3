/* Names of the op kinds, as `inspect graph` and the profile print them. */
#include "ops/op.h"

#include <assert.h>

static const char *const names[OP_COUNT] = {
    [OP_EMBED] = "embed",
    [OP_ROPE_TABLE] = "rope_table",
    [OP_RMSNORM] = "rmsnorm",
    [OP_LINEAR] = "linear",
    [OP_ROPE] = "rope",
    [OP_KV_WRITE] = "kv_write",
    [OP_ATTENTION] = "attention",
    [OP_SILU_MUL] = "silu_mul",
    [OP_GATHER] = "gather",
    [OP_DRAW] = "draw",
    [OP_NORM_LINEAR] = "norm_linear",
    [OP_ROPE_ATTENTION] = "rope_attention",
};

const char *op_name(op_kind kind)
{
    assert(kind >= 0 && kind < OP_COUNT);
    return names[kind];
}
