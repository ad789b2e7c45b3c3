/* Engine options; see engine_options.h. */
#include "api/engine_options.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CONTEXT     4096
#define DEFAULT_SEQUENCES   8
#define DEFAULT_STEP_TOKENS 128  /* a prompt's matrix products are at full speed on a CPU from about here */
#define DEVICE_STEP_TOKENS  2048 /* and on a GPU from here */
#define DEVICE_HEADROOM     ((size_t)512 << 20)
#define MOST_SEQUENCES      4096
#define MOST_STEP_TOKENS    65536
#define MOST_KV_TOKENS      (INT32_MAX / 16 * 16) /* slots are numbered in 32 bits */
#define KV_ROUNDING         16                    /* tokens: a page */

static size_t memory_installed(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (size_t)pages * (size_t)size : 0;
}

/* What this process could still get; 0: unknown. */
static size_t memory_available(void)
{
    char line[128];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1) break;
    if (f) fclose(f);
    if (kb) return (size_t)kb * 1024;
    return memory_installed();
}

/* ---- Memory ---------------------------------------------------------------------------------------------------- */

static nvllm_status take_int(int32_t *out, int32_t value, int32_t fallback, int32_t most, const char *name,
                             nvllm_error *err)
{
    if (value < 0 || value > most)
        return error_set(err, NVLLM_ERR_USAGE, "%s is %d, must be between 1 and %d", name, value, most);
    *out = value ? value : fallback;
    return NVLLM_OK;
}

/* Any number of tokens may be asked for. */
static size_t kv_bytes(const engine_options *o, const model *m)
{
    size_t per_token = model_kv_bytes_per_token(m, o->kv_type), tokens = (size_t)o->kv_tokens,
           most = SIZE_MAX / 4;
    return tokens > most / per_token ? most : tokens * per_token;
}

engine_memory engine_memory_of(const engine_options *o, const model *m, backend *b)
{
    engine_options without = *o;
    without.kv_tokens = 0;
    engine_memory memory = {.parts = engine_plan(m, b, &without)};
    memory.parts.kv = kv_bytes(o, m);
    if (b->type->memory) {
        b->type->memory(b, &memory.available, &memory.total);
        memory.headroom = memory.total / 16 < DEVICE_HEADROOM ? memory.total / 16 : DEVICE_HEADROOM;
    } else {
        memory.available = memory_available();
        memory.total = memory_installed();
        if (m->store)
            memory.parts.weights = weights_bytes(&m->weights, &m->config); /* random ones are there already */
    }
    return memory;
}

bool engine_memory_fits(const engine_memory *memory)
{
    return !memory->available || memory_plan_sum(&memory->parts) + memory->headroom <= memory->available;
}

nvllm_status engine_memory_check(const engine_options *o, const model *m, backend *b, nvllm_error *err)
{
    engine_memory memory = engine_memory_of(o, m, b);
    const memory_plan *p = &memory.parts;
    size_t workspace = p->activations + p->scratch;
    if (engine_memory_fits(&memory)) {
        if (o->kv_tokens <= MOST_KV_TOKENS) return NVLLM_OK;
        return error_set(err, NVLLM_ERR_LIMIT, "a KV cache of %lld tokens is beyond the limit of %d",
                         (long long)o->kv_tokens, MOST_KV_TOKENS);
    }
    bool device = b->type->memory != NULL, hopeless = p->weights + memory.headroom > memory.available;
    return error_set(
        err, NVLLM_ERR_MEMORY,
        "a KV cache of %lld tokens takes %.3f GB beside %.3f GB of weights and %.3f GB of workspace%s, and "
        "%.3f GB of memory are available%s%s: %s",
        (long long)o->kv_tokens, (double)p->kv / 1e9, (double)p->weights / 1e9, (double)workspace / 1e9,
        device ? " and a reserve for the driver" : "", (double)memory.available / 1e9, device ? " on " : "",
        device ? b->isa : "",
        hopeless ? "take a smaller model, one with quantised weights, or another device"
                 : "lower the context, the number of sequences or the KV cache's memory");
}

/* ---- Options --------------------------------------------------------------------------------------------------- */

/* Without a figure of the user's: all sequences at full length, or what fits: into the device's memory beside the
 * rest, or into half of this machine's free memory; but one sequence at least. */
static int64_t default_kv_tokens(const engine_options *o, const model *m, backend *b)
{
    int64_t all = (int64_t)o->context * o->max_sequences;
    if (all > MOST_KV_TOKENS) all = MOST_KV_TOKENS;
    engine_memory memory = engine_memory_of(o, m, b); /* o->kv_tokens is 0 */
    size_t rest = memory_plan_sum(&memory.parts) + memory.headroom, room = memory.available / 2;
    if (!memory.available) return all;
    if (b->type->memory) room = memory.available > rest ? memory.available - rest : 0;
    int64_t fit = (int64_t)(room / model_kv_bytes_per_token(m, o->kv_type)) / KV_ROUNDING * KV_ROUNDING;
    if (all <= fit) return all;
    return fit > o->context ? fit : o->context;
}

/* A prompt is read in steps of so many tokens: never more than could come at once, and enough that one makes progress
 * beside all others when they generate. */
static int32_t default_step_tokens(const engine_options *o, const backend *b)
{
    int64_t all = (int64_t)o->context * o->max_sequences;
    int64_t wanted = b->type->memory ? DEVICE_STEP_TOKENS : DEFAULT_STEP_TOKENS;
    if (wanted < 2 * (int64_t)o->max_sequences) wanted = 2 * (int64_t)o->max_sequences;
    return (int32_t)(b->type->memory && all < wanted ? all : wanted);
}

static nvllm_status take_kv(engine_options *o, const nvllm_engine_options *from, const model *m, backend *b,
                            nvllm_error *err)
{
    if (from->kv_tokens < 0 || from->kv_bytes < 0)
        return error_set(err, NVLLM_ERR_USAGE, "kv_tokens is %lld and kv_bytes %lld, must not be negative",
                         (long long)from->kv_tokens, (long long)from->kv_bytes);
    size_t per_token = model_kv_bytes_per_token(m, o->kv_type);
    int64_t tokens = from->kv_bytes / (int64_t)per_token;
    if (from->kv_bytes > 0 && tokens < KV_ROUNDING)
        return error_set(err, NVLLM_ERR_LIMIT,
                         "%lld bytes of KV cache hold %lld tokens of %zu bytes, and %d are needed",
                         (long long)from->kv_bytes, (long long)tokens, per_token, KV_ROUNDING);
    if (from->kv_bytes > 0)
        o->kv_tokens = tokens / KV_ROUNDING * KV_ROUNDING;
    else
        o->kv_tokens = from->kv_tokens > 0 ? from->kv_tokens : default_kv_tokens(o, m, b);
    return NVLLM_OK;
}

nvllm_status engine_options_resolve(engine_options *out, const nvllm_engine_options *from, const model *m,
                                    backend *b, nvllm_error *err)
{
    static const nvllm_engine_options defaults = {0};
    if (!from) from = &defaults;
    int32_t longest = m->config.max_context;
    engine_options o = {.kv_type = model_default_kv_type(m),
                        .no_prefix_cache = from->no_prefix_cache,
                        .fusion = (fusion_mode)from->fusion};
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
        st = take_int(&o.step_tokens, from->step_tokens, default_step_tokens(&o, b), MOST_STEP_TOKENS,
                      "step_tokens", err);
    if (!st) st = take_kv(&o, from, m, b, err);
    if (st) return st;
    *out = o;
    return NVLLM_OK;
}
