/* bench: the figures, each beside the limit that this machine's memory or arithmetic sets.
 *
 * Bytes per step: the weights once, and the KV cache of every sequence at the middle of the timed stretch.
 * Operations per prompt token: the matrix products; attention's are left out, so the share is a lower bound. */
#define _GNU_SOURCE
#include "bench.h"

#include <jansson.h>
#include <stdio.h>

typedef struct {
    double step_ms; /* one token of every sequence */
    double gb_per_s, gb_share;
    double gflops, gflops_share;
} derived;

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static derived derive(const bench_result *r)
{
    double steps = r->gen_rate.median / r->shape.batch;
    double kv_tokens = (r->shape.context + r->shape.gen / 2.0) * r->shape.batch;
    double bytes = (double)r->model.bytes_per_token + kv_tokens * (double)r->engine.kv_bytes_per_token;
    derived d = {.step_ms = steps > 0 ? 1e3 / steps : 0,
                 .gb_per_s = bytes * steps / 1e9,
                 .gflops = (double)r->model.flops_per_token * r->prompt_rate.median / 1e9};
    d.gb_share = share(d.gb_per_s, r->limits.read_gb_per_s);
    d.gflops_share = share(d.gflops, r->limits.bf16_gflops);
    return d;
}

static void print_row(const char *what, int tokens, const spread *s)
{
    printf("%-10s %6d  %10.1f  %10.1f  %10.1f", what, tokens, s->median, s->least, s->most);
}

/* Nothing where the device measured no limit. */
static void print_share(double share)
{
    if (share > 0) printf(", %.0f %% of the measured limit", share * 100);
    putchar('\n');
}

void bench_print_table(const bench_result *r)
{
    derived d = derive(r);
    printf("model     %s: %s, %d layers, %.1f M parameters, %.1f MB\n",
           r->model.source ? r->model.source : "random weights", r->model.architecture, (int)r->model.layers,
           (double)r->model.parameters / 1e6, (double)r->model.weight_bytes / 1e6);
    printf("machine   %s %s, %d threads; measured: reads %.1f GB/s, bf16 products %.0f GFLOP/s\n",
           r->engine.device, r->engine.isa ? r->engine.isa : "", (int)r->engine.threads,
           r->limits.read_gb_per_s, r->limits.bf16_gflops);
    printf("start-up  model %.1f ms, engine %.1f ms, first token %.1f ms after the start\n", r->open_ms,
           r->engine_ms, r->first_token_ms);
    printf("memory    peak resident %.1f MB, KV cache %.1f MB, workspace %.1f MB\n",
           (double)r->peak_rss / 1e6, (double)r->engine.kv_bytes / 1e6,
           (double)r->engine.workspace_bytes / 1e6);
    printf("runs      batch of %d, %d tokens in the cache before generation, median of %d\n\n",
           (int)r->shape.batch, (int)r->shape.context, (int)r->shape.reps);
    printf("%-10s %6s  %10s  %10s  %10s\n", "", "tokens", "tok/s", "least", "most");
    print_row("prompt", r->shape.prompt, &r->prompt_rate);
    printf("  %.1f GFLOP/s", d.gflops);
    print_share(d.gflops_share);
    print_row("generate", r->shape.gen, &r->gen_rate);
    printf("  %.3f ms per step, %.1f GB/s", d.step_ms, d.gb_per_s);
    print_share(d.gb_share);
}

static json_t *spread_json(const spread *s)
{
    return json_pack("{s:f, s:f, s:f}", "median", s->median, "min", s->least, "max", s->most);
}

static json_t *model_json(const bench_result *r)
{
    const nvllm_model_info *m = &r->model;
    return json_pack("{s:s?, s:s?, s:i, s:I, s:I, s:I, s:I}", "source", m->source, "architecture",
                     m->architecture, "layers", (int)m->layers, "parameters", (json_int_t)m->parameters,
                     "weight_bytes", (json_int_t)m->weight_bytes, "bytes_per_token",
                     (json_int_t)m->bytes_per_token, "flops_per_token", (json_int_t)m->flops_per_token);
}

static json_t *machine_json(const bench_result *r)
{
    return json_pack("{s:s?, s:s?, s:i, s:f, s:f}", "device", r->engine.device, "isa", r->engine.isa,
                     "threads", (int)r->engine.threads, "read_gb_per_s", r->limits.read_gb_per_s,
                     "bf16_gflops", r->limits.bf16_gflops);
}

static json_t *shape_json(const bench_shape *s)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i}", "prompt_tokens", (int)s->prompt, "gen_tokens", (int)s->gen,
                     "batch", (int)s->batch, "context", (int)s->context, "reps", (int)s->reps);
}

static json_t *cost_json(const bench_result *r)
{
    return json_pack("{s:f, s:f, s:f, s:I, s:I, s:I}", "model_open_ms", r->open_ms, "engine_open_ms",
                     r->engine_ms, "first_token_ms", r->first_token_ms, "peak_rss_bytes",
                     (json_int_t)r->peak_rss, "kv_bytes", (json_int_t)r->engine.kv_bytes, "workspace_bytes",
                     (json_int_t)r->engine.workspace_bytes);
}

void bench_print_json(const bench_result *r)
{
    derived d = derive(r);
    json_t *document = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f}", "version", nvllm_version(), "model",
        model_json(r), "machine", machine_json(r), "shape", shape_json(&r->shape), "cost", cost_json(r),
        "prompt_tokens_per_second", spread_json(&r->prompt_rate), "generated_tokens_per_second",
        spread_json(&r->gen_rate), "ms_per_step", d.step_ms, "gb_per_s", d.gb_per_s, "share_of_bandwidth",
        d.gb_share, "prompt_gflops", d.gflops, "share_of_gflops", d.gflops_share);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(document);
}
