/* The table of backends and their opening; see backend.h. */
#include "backend/backend.h"

#include <string.h>

static const backend_type *const table[] = {&backend_cpu, &backend_reference};

static nvllm_status check_complete(const backend_type *type, nvllm_error *err)
{
    for (int kind = 0; kind < OP_COUNT; kind++)
        if (!type->op[kind])
            return error_set(err, NVLLM_ERR_UNSUPPORTED, "device %s has no op %s", type->name,
                             op_name((op_kind)kind));
    return NVLLM_OK;
}

nvllm_status backend_open(backend **out, const char *name, const backend_options *options, nvllm_error *err)
{
    if (!name || strcmp(name, "auto") == 0) name = "cpu";
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(table[i]->name, name) != 0) continue;
        nvllm_status st = check_complete(table[i], err);
        return st ? st : table[i]->open(out, options, err);
    }
    return error_set(err, NVLLM_ERR_USAGE, "unknown device \"%s\" (known: auto, cpu, reference)", name);
}

void backend_close(backend *b)
{
    if (b) b->type->close(b);
}

backend_limits backend_measure(backend *b)
{
    return b->type->measure ? b->type->measure(b) : (backend_limits){0};
}
