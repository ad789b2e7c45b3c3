/* Speed of the matrix products, per format and instruction set: GB/s of weights for one token, GFLOP/s for many.
 * Shapes are those of Qwen3-0.6B. Every case is repeated in turn with the others, and the best time counts, because
 * neighbours on the machine only ever make a run slower.
 * Usage: bench_linear [threads [rounds [tokens [format [isa]]]]] */
#define _GNU_SOURCE
#include "ops/linear.h"
#include "ops/linear_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYERS = 14, MAX_T = 512, MAX_COLS = 3072, SHAPES = 4 };

static const struct {
    const char *name;
    int32_t rows[3], cols;
} shapes[SHAPES] = {{"qkv", {2048, 1024, 1024}, 1024},
                    {"o", {1024}, 2048},
                    {"gate_up", {3072, 3072}, 1024},
                    {"down", {1024}, 3072}};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct {
    const uint8_t *weights; /* all layers, one after the other */
    dtype format;
    float *in, *out;
    int32_t T;
} model;

static size_t shape_bytes(int s, dtype format)
{
    size_t rows = 0;
    for (int i = 0; i < 3; i++) rows += (size_t)shapes[s].rows[i];
    return rows * dtype_row_bytes(format, shapes[s].cols);
}

/* Runs shape s of every layer; returns its seconds. */
static double run_shape(const model *m, int s, size_t offset, size_t layer_bytes, const cpu_context *cpu)
{
    double start = seconds();
    for (int layer = 0; layer < LAYERS; layer++) {
        weight w[3];
        const uint8_t *data = m->weights + layer_bytes * (size_t)layer + offset;
        op_linear_args a = {.out = m->out, .in = m->in, .in_stride = shapes[s].cols, .T = m->T};
        for (int i = 0; i < 3 && shapes[s].rows[i]; i++) {
            w[i] = (weight){m->format, shapes[s].rows[i], shapes[s].cols, data};
            data += (size_t)w[i].rows * dtype_row_bytes(m->format, w[i].cols);
            a.part[a.n_parts++] = (linear_part){.w = &w[i], .out_col = a.out_stride};
            a.out_stride += w[i].rows;
        }
        op_linear_cpu(&a, cpu);
    }
    return seconds() - start;
}

static void bench(model *m, const cpu_context *cpu, int rounds)
{
    size_t layer_bytes = 0, offset = 0;
    double best[SHAPES], total = 0.0;
    for (int s = 0; s < SHAPES; s++) layer_bytes += shape_bytes(s, m->format);
    for (int r = 0; r < rounds; r++) {
        offset = 0;
        for (int s = 0; s < SHAPES; s++) {
            double t = run_shape(m, s, offset, layer_bytes, cpu);
            if (r == 0 || t < best[s]) best[s] = t;
            offset += shape_bytes(s, m->format);
        }
    }
    printf("%-6s %-4s T=%-3d", cpu_isa_name(cpu->isa), dtype_name(m->format), m->T);
    for (int s = 0; s < SHAPES; s++) {
        double bytes = (double)shape_bytes(s, m->format) * LAYERS;
        double elements = bytes / (double)dtype_row_bytes(m->format, 32) * 32.0;
        printf("  %s %.1f GB/s %.0f GFLOP/s", shapes[s].name, bytes / best[s] / 1e9,
               2.0 * elements * m->T / best[s] / 1e9);
        total += best[s];
    }
    double bytes = (double)layer_bytes * LAYERS,
           elements = bytes / (double)dtype_row_bytes(m->format, 32) * 32.0;
    printf("  | all %.1f GB/s %.0f GFLOP/s\n", bytes / total / 1e9, 2.0 * elements * m->T / total / 1e9);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : thread_count_default(), rounds = argc > 2 ? atoi(argv[2]) : 9;
    int32_t tokens = argc > 3 ? atoi(argv[3]) : 0;
    int only_format = argc > 4 ? atoi(argv[4]) : -1, only_isa = argc > 5 ? atoi(argv[5]) : -1;
    size_t layer_bytes = 0;
    for (int s = 0; s < SHAPES; s++) layer_bytes += shape_bytes(s, DTYPE_F32);
    uint8_t *weights = malloc(layer_bytes * LAYERS + 64);
    model m = {.weights = weights + 8,
               .in = calloc((size_t)MAX_T * MAX_COLS, sizeof(float)),
               .out = calloc((size_t)MAX_T * 8192, sizeof(float))};
    cpu_context cpu = {.scratch_bytes = op_linear_scratch(MAX_T, MAX_COLS, threads)};
    cpu.scratch = aligned_alloc(64, cpu.scratch_bytes);
    if (!weights || !m.in || !m.out || !cpu.scratch || thread_pool_open(&cpu.pool, threads, NULL)) return 1;
    memset(weights, 0x3c, layer_bytes * LAYERS + 64);
    for (int i = 0; i < MAX_T * MAX_COLS; i++) m.in[i] = (float)(i % 7) - 3.0f;
    for (int isa = (int)cpu_isa_detect(); isa >= 0; isa--)
        for (int format = 0; format < DTYPE_COUNT; format++) {
            if ((only_format >= 0 && format != only_format) || (only_isa >= 0 && isa != only_isa)) continue;
            cpu.isa = (cpu_isa)isa;
            m.format = (dtype)format;
            for (int i = 0; i < 2; i++) {
                if (tokens && i) break;
                m.T = tokens ? tokens : i ? 128 : 1;
                bench(&m, &cpu, m.T > 8 ? rounds / 3 + 1 : rounds);
            }
        }
    thread_pool_close(cpu.pool);
    free(weights);
    free(m.in);
    free(m.out);
    free(cpu.scratch);
    return 0;
}
