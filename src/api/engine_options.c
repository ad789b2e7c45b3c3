/* Engine options; see engine_options.h. */
#include "api/engine_options.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CONTEXT     4096
#define DEFAULT_SEQUENCES   8
#define DEFAULT_STEP_TOKENS 128 /* a prompt's matrix products are at full speed from about here */
#define MOST_SEQUENCES      4096
#define MOST_STEP_TOKENS    65536

size_t memory_available(void)
{
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1) break;
    if (f) fclose(f);
    if (kb) return (size_t)kb * 1024;
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (size_t)pages * (size_t)size : 0;
}

static nvllm_status take_int(int32_t *out, int32_t value, int32_t fallback, int32_t most, const char *name,
                             nvllm_error *err)
{
    if (value < 0 || value > most)
        return error_set(err, NVLLM_ERR_USAGE, "%s is %d, must be between 1 and %d", name, value, most);
    *out = value ? value : fallback;
    return NVLLM_OK;
}

static nvllm_status check_memory(const engine_options *o, const model *m, nvllm_error *err)
{
    size_t per_token = model_kv_bytes_per_token(m, o->kv_type), kv = per_token * (size_t)o->kv_tokens;
    size_t mapped =
        m->store ? weights_bytes(&m->weights, &m->config) : 0; /* random weights are already there */
    size_t available = memory_available();
    if (!available || kv + mapped <= available) return NVLLM_OK;
    return error_set(
        err, NVLLM_ERR_MEMORY,
        "a KV cache of %lld tokens takes %.1f GB beside %.1f GB of weights, and %.1f GB of memory are "
        "available: lower the context or the number of sequences",
        (long long)o->kv_tokens, (double)kv / 1e9, (double)mapped / 1e9, (double)available / 1e9);
}

/* Without a figure of the user's: all sequences at full length, or what fits into half of the free memory. */
static int64_t default_kv_tokens(const engine_options *o, const model *m)
{
    int64_t all = (int64_t)o->context * o->max_sequences;
    int64_t fit = (int64_t)(memory_available() / 2 / model_kv_bytes_per_token(m, o->kv_type));
    if (fit == 0 || all <= fit) return all;
    return fit > o->context ? fit : o->context;
}

nvllm_status engine_options_resolve(engine_options *out, const nvllm_engine_options *from, const model *m,
                                    nvllm_error *err)
{
    static const nvllm_engine_options defaults = {0};
    if (!from) from = &defaults;
    int32_t longest = m->config.max_context;
    engine_options o = {.kv_type = model_default_kv_type(m), .no_prefix_cache = from->no_prefix_cache};
    nvllm_status st = NVLLM_OK;
    if (from->context > longest)
        return error_set(err, NVLLM_ERR_LIMIT, "context is %d, and the model was made for at most %d tokens",
                         from->context, longest);
    st = take_int(&o.context, from->context, longest < DEFAULT_CONTEXT ? longest : DEFAULT_CONTEXT, longest,
                  "context", err);
    if (!st)
        st = take_int(&o.max_sequences, from->max_sequences, DEFAULT_SEQUENCES, MOST_SEQUENCES,
                      "max_sequences", err);
    if (!st)
        st = take_int(&o.step_tokens, from->step_tokens, DEFAULT_STEP_TOKENS, MOST_STEP_TOKENS, "step_tokens",
                      err);
    if (!st && from->kv_tokens < 0)
        st = error_set(err, NVLLM_ERR_USAGE, "kv_tokens is %lld, must not be negative",
                       (long long)from->kv_tokens);
    if (st) return st;
    o.kv_tokens = from->kv_tokens ? from->kv_tokens : default_kv_tokens(&o, m);
    *out = o;
    return check_memory(&o, m, err);
}
