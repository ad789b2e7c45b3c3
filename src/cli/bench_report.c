/* bench: the figures, each beside the limit that this machine's memory or arithmetic sets.
 *
 * Bytes per step: the weights once, and the KV cache of every sequence at the middle of the timed stretch.
 * Operations per prompt token: the matrix products, and attention over all tokens before it; where a window hides some
 * of them, that is more than was done. */
#define _GNU_SOURCE
#include "bench.h"

#include <jansson.h>
#include <stdio.h>

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* Scores and sums: 4 operations per head, element and position seen, (n + 1) / 2 of them on average. */
static double prompt_flops_per_token(const bench_result *r)
{
    const nvllm_model_info *m = &r->model;
    return (double)m->flops_per_token +
           2.0 * m->layers * m->heads * m->head_dim * (double)(r->shape.prompt + 1);
}

bench_derived bench_derive(const bench_result *r)
{
    double steps = r->gen_rate.median / r->shape.batch;
    double kv_tokens = (r->shape.context + r->shape.gen / 2.0) * r->shape.batch;
    double bytes = (double)r->model.bytes_per_token + kv_tokens * (double)r->engine.kv_bytes_per_token;
    bench_derived d = {.step_ms = steps > 0 ? 1e3 / steps : 0,
                       .gb_per_s = bytes * steps / 1e9,
                       .gflops = prompt_flops_per_token(r) * r->prompt_rate.median / 1e9};
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

void bench_print_model(const bench_result *r)
{
    printf("model     %s: %s, %d layers, %.1f M parameters, %.1f MB\n",
           r->model.source ? r->model.source : "random weights", r->model.architecture, (int)r->model.layers,
           (double)r->model.parameters / 1e6, (double)r->model.weight_bytes / 1e6);
}

void bench_print_machine(const bench_result *r)
{
    printf("machine   %s %s, %d threads; measured%s: reads %.1f GB/s, bf16 products %.0f GFLOP/s\n",
           r->engine.device, r->engine.isa ? r->engine.isa : "", (int)r->engine.threads,
           r->limits_kept ? " before" : "", r->limits.read_gb_per_s, r->limits.bf16_gflops);
}

static void print_profiles(const bench_result *r, const bench_derived *d)
{
    double prompt_us = r->prompt_rate.median > 0 ? 1e6 * r->prompt.tokens / r->prompt_rate.median : 0;
    op_table_print(&r->prompt, "prompt step", prompt_us, &r->limits);
    op_table_print(&r->decode, "generation step", d->step_ms * 1e3, &r->limits);
}

void bench_print_table(const bench_result *r)
{
    bench_derived d = bench_derive(r);
    bench_print_model(r);
    bench_print_machine(r);
    printf("start-up  model %.1f ms, engine %.1f ms, first token %.1f ms after the start\n", r->open_ms,
           r->engine_ms, r->first_token_ms);
    printf("memory    peak resident %.1f MB, KV cache %.1f MB, workspace %.1f MB\n",
           (double)r->peak_rss / 1e6, (double)r->engine.kv_bytes / 1e6,
           (double)r->engine.workspace_bytes / 1e6);
    if (r->engine.unchained) printf("kernels   a token's ops are not one: %s\n", r->engine.unchained);
    printf("runs      batch of %d, %d tokens in the cache before generation, steps of up to %d tokens, "
           "median of "
           "%d\n\n",
           (int)r->shape.batch, (int)r->shape.context, (int)r->engine.step_tokens, (int)r->shape.reps);
    printf("%-10s %6s  %10s  %10s  %10s\n", "", "tokens", "tok/s", "least", "most");
    print_row("prompt", r->shape.prompt, &r->prompt_rate);
    printf("  %.1f GFLOP/s", d.gflops);
    print_share(d.gflops_share);
    print_row("generate", r->shape.gen, &r->gen_rate);
    printf("  %.3f ms per step", d.step_ms);
    if (r->engine.kernels_per_step) printf(" of %d kernels", (int)r->engine.kernels_per_step);
    printf(", %.1f GB/s", d.gb_per_s);
    print_share(d.gb_share);
    print_profiles(r, &d);
}

json_t *bench_spread_json(const spread *s)
{
    return json_pack("{s:f, s:f, s:f}", "median", s->median, "min", s->least, "max", s->most);
}

json_t *bench_model_json(const bench_result *r)
{
    const nvllm_model_info *m = &r->model;
    return json_pack("{s:s?, s:s?, s:i, s:I, s:I, s:I, s:I}", "source", m->source, "architecture",
                     m->architecture, "layers", (int)m->layers, "parameters", (json_int_t)m->parameters,
                     "weight_bytes", (json_int_t)m->weight_bytes, "bytes_per_token",
                     (json_int_t)m->bytes_per_token, "flops_per_token", (json_int_t)m->flops_per_token);
}

json_t *bench_machine_json(const bench_result *r)
{
    return json_pack("{s:s?, s:s?, s:s?, s:i, s:i, s:f, s:f, s:b}", "device", r->engine.device, "isa",
                     r->engine.isa, "device_id", r->engine.device_id, "threads", (int)r->engine.threads,
                     "step_tokens", (int)r->engine.step_tokens, "read_gb_per_s", r->limits.read_gb_per_s,
                     "bf16_gflops", r->limits.bf16_gflops, "limits_kept", (int)r->limits_kept);
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

static void add_profiles(json_t *document, const bench_result *r, const bench_derived *d)
{
    double prompt_us = r->prompt_rate.median > 0 ? 1e6 * r->prompt.tokens / r->prompt_rate.median : 0;
    if (r->decode.steps == 0 && r->prompt.steps == 0) return;
    json_object_set_new(document, "profile",
                        json_pack("{s:o, s:o}", "prompt", op_table_json(&r->prompt, prompt_us, &r->limits),
                                  "generate", op_table_json(&r->decode, d->step_ms * 1e3, &r->limits)));
}

void bench_print_json(const bench_result *r)
{
    bench_derived d = bench_derive(r);
    json_t *document = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:i, s:f}", "version", nvllm_version(),
        "model", bench_model_json(r), "machine", bench_machine_json(r), "shape", shape_json(&r->shape),
        "cost", cost_json(r), "prompt_tokens_per_second", bench_spread_json(&r->prompt_rate),
        "generated_tokens_per_second", bench_spread_json(&r->gen_rate), "ms_per_step", d.step_ms, "gb_per_s",
        d.gb_per_s, "share_of_bandwidth", d.gb_share, "prompt_gflops", d.gflops, "share_of_gflops",
        d.gflops_share, "kernels_per_step", (int)r->engine.kernels_per_step, "fill_tokens_per_second",
        r->fill_rate);
    add_profiles(document, r, &d);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(document);
}
