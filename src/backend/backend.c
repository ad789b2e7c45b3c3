/* The table of backends and their opening; see backend.h. */
#include "backend/backend.h"

#include <stdlib.h>
#include <string.h>

static const backend_type *const table[] = {
    &backend_cpu,
    &backend_reference,
#ifdef NVLLM_HAVE_CUDA
    &backend_cuda,
#endif
};

static nvllm_status check_complete(const backend_type *type, nvllm_error *err)
{
    for (int kind = 0; kind < OP_FIRST_FUSED; kind++)
        if (!type->op[kind])
            return error_set(err, NVLLM_ERR_UNSUPPORTED, "device %s has no op %s", type->name,
                             op_name((op_kind)kind));
    return NVLLM_OK;
}

static const backend_type *find_type(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i]->name) == len && strncmp(table[i]->name, name, len) == 0) return table[i];
    return NULL;
}

static nvllm_status open_type(backend **out, const backend_type *type, const backend_options *options,
                              nvllm_error *err)
{
    nvllm_status st = check_complete(type, err);
    return st ? st : type->open(out, options, err);
}

/* The GPU where there is a usable one, else the CPU. */
static nvllm_status open_best(backend **out, const backend_options *options, nvllm_error *err)
{
    const backend_type *gpu = find_type("cuda", 4);
    if (gpu && !options->isa && open_type(out, gpu, options, NULL) == NVLLM_OK) return NVLLM_OK;
    return open_type(out, &backend_cpu, options, err);
}

nvllm_status backend_open(backend **out, const char *name, const backend_options *options, nvllm_error *err)
{
    backend_options o = *options;
    if (!name || strcmp(name, "auto") == 0) return open_best(out, &o, err);
    size_t len = strcspn(name, ":");
    const backend_type *type = find_type(name, len);
    if (type && name[len] == ':' && len == 4) {
        char *end;
        long device = strtol(name + len + 1, &end, 10);
        if (end == name + len + 1 || *end || device < 0 || device > 1023) type = NULL;
        o.device = (int)device;
    } else if (name[len]) {
        type = NULL;
    }
    if (type) return open_type(out, type, &o, err);
    if (strncmp(name, "cuda", 4) == 0 && !find_type("cuda", 4))
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "device %s: this build has no CUDA backend", name);
    return error_set(err, NVLLM_ERR_USAGE,
                     "unknown device \"%s\" (known: auto, cpu, cuda, cuda:N, reference)", name);
}

void backend_close(backend *b)
{
    if (b) b->type->close(b);
}

backend_limits backend_measure(backend *b)
{
    return b->type->measure ? b->type->measure(b) : (backend_limits){0};
}
