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

static bool is_auto(const char *name)
{
    return !name || strcmp(name, "auto") == 0;
}

/* The GPU where there is a usable one, else the CPU. */
static nvllm_status open_best(backend **out, const backend_options *options, nvllm_error *err)
{
    const backend_type *gpu = find_type("cuda", 4);
    nvllm_error why = {0};
    if (gpu && !options->isa && open_type(out, gpu, options, &why) == NVLLM_OK) return NVLLM_OK;
    nvllm_status st = open_type(out, &backend_cpu, options, err);
    if (st) return st;
    char *clause = (*out)->passed_over;
    size_t len = strcspn(why.message, ";"), most = BACKEND_CLAUSE - 1; /* what to do about it comes after */
    memcpy(clause, why.message, len < most ? len : most);
    return NVLLM_OK;
}

/* The type that `name` means, its number put into *options; NULL: none. */
static const backend_type *parse_name(backend_options *options, const char *name)
{
    size_t len = strcspn(name, ":");
    const backend_type *type = find_type(name, len);
    if (!name[len]) return type;
    if (name[len] != ':' || len != 4) return NULL;
    char *end;
    long device = strtol(name + len + 1, &end, 10);
    if (end == name + len + 1 || *end || device < 0 || device > 1023) return NULL;
    options->device = (int)device;
    return type;
}

void backend_prepare(const char *name)
{
    backend_options o = {0};
    const backend_type *type = parse_name(&o, is_auto(name) ? "cuda" : name);
    if (type && type->prepare) type->prepare(&o);
}

nvllm_status backend_open(backend **out, const char *name, const backend_options *options, nvllm_error *err)
{
    backend_options o = *options;
    if (is_auto(name)) return open_best(out, &o, err);
    const backend_type *type = parse_name(&o, name);
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

void backend_enter(backend *b)
{
    if (b->type->enter) b->type->enter(b);
}

nvllm_status backend_out_of_memory(backend *b, size_t bytes, const char *what, nvllm_error *err)
{
    size_t left = 0, total = 0;
    if (!b->type->memory) return error_memory(err, bytes, what);
    b->type->memory(b, &left, &total);
    return error_set(
        err, NVLLM_ERR_MEMORY,
        "out of memory on %s: %.3f GB for %s, and %.3f of %.3f GB are free: lower the context or the "
        "number of sequences, end what else uses the GPU, or use the CPU",
        b->isa, (double)bytes / 1e9, what, (double)left / 1e9, (double)total / 1e9);
}

backend_limits backend_measure(backend *b)
{
    return b->type->measure ? b->type->measure(b) : (backend_limits){0};
}
