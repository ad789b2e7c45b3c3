/* A backend is one const struct of function pointers: memory, and a function for every kind of op.
 *
 * A missing op is reported when the backend is opened, by name, never at step 1,000. Backends compiled into this
 * binary stand in the one table of backend.c. "reference" runs the plain formulas and is the oracle for the others. */
#ifndef NVLLM_BACKEND_BACKEND_H
#define NVLLM_BACKEND_BACKEND_H

#include "base/error.h"
#include "ops/attention.h"
#include "ops/draw.h"
#include "ops/embed.h"
#include "ops/gather.h"
#include "ops/linear.h"
#include "ops/norm_linear.h"
#include "ops/op.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"
#include "ops/rope_attention.h"
#include "ops/silu_mul.h"

#include <stdbool.h>

#define BACKEND_MAX_RECORDED 256 /* keys of recorded op lists are 1 .. this */

typedef struct backend backend;

typedef union {
    op_embed_args embed;
    op_rope_table_args rope_table;
    op_rmsnorm_args rmsnorm;
    op_linear_args linear;
    op_rope_args rope;
    op_kv_write_args kv_write;
    op_attention_args attention;
    op_silu_mul_args silu_mul;
    op_gather_args gather;
    op_draw_args draw;
    op_norm_linear_args norm_linear;
    op_rope_attention_args rope_attention;
} op_args;

typedef struct {
    int threads;     /* CPU: 0: one per physical core */
    const char *isa; /* CPU: "scalar", "avx2", "avx512"; NULL: the best this machine runs */
    int device;      /* CUDA: number of the GPU; set by backend_open from "cuda:N" */
} backend_options;

/* The largest step. */
typedef struct {
    int32_t max_tokens, max_logits;
    int32_t widest_input; /* columns of the widest input of a matrix product */
    int32_t max_rows;
    int32_t H, K, C, D, F, V, max_context;
} backend_shape;

typedef struct {
    double read_bytes_per_s; /* sustained, of the device's memory */
    double bf16_flops;       /* of bf16 products with float32 sums */
} backend_limits;

typedef struct {
    const char *name;
    nvllm_status (*open)(backend **out, const backend_options *options, nvllm_error *err);
    void (*close)(backend *b);
    /* Zeroed memory that ops may use, 64-byte aligned; NULL: not available. */
    void *(*alloc)(backend *b, size_t bytes);
    void (*free)(backend *b, void *memory, size_t bytes);
    /* Makes the scratch available that the ops need for steps of this shape. */
    nvllm_status (*reserve_scratch)(backend *b, const backend_shape *shape, nvllm_error *err);
    /* A device of its own memory has these; for the others they are NULL, and ops read the host's pointers.
     * copy_in is ordered before the ops that follow and has read `from` when it returns; copy_out waits for all ops
     * before it and reports what went wrong in any of them. */
    nvllm_status (*copy_in)(backend *b, void *to, const void *from, size_t bytes, nvllm_error *err);
    nvllm_status (*copy_out)(backend *b, void *to, const void *from, size_t bytes, nvllm_error *err);
    /* The host's memory that ops of the device read and write in place, zeroed; copy_in from it does not wait for the
     * copy. wait: until *flag, there, is `value`; fails when the device does. */
    void *(*host_alloc)(backend *b, size_t bytes);
    void (*host_free)(backend *b, void *memory);
    nvllm_status (*wait)(backend *b, const volatile int32_t *flag, int32_t value, nvllm_error *err);
    /* Recorded op lists, or NULL: replay runs the list recorded under `key`, false: there is none. Between record and
     * record_end ops are recorded, not run. */
    bool (*replay)(backend *b, int32_t key);
    void (*record)(backend *b);
    nvllm_status (*record_end)(backend *b, int32_t key, nvllm_error *err);
    void (*op[OP_COUNT])(backend *b, const op_args *args); /* fused ones may be NULL */
    backend_limits (*measure)(backend *b); /* NULL: nothing to measure */
} backend_type;

struct backend {
    const backend_type *type;
    int threads;
    const char *isa; /* what runs: "avx512", ...; "plain" for the reference */
};

/* `name`: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1" or "reference". Fails by name for unknown devices and for ops that a backend lacks. */
nvllm_status backend_open(backend **out, const char *name, const backend_options *options, nvllm_error *err);
void backend_close(backend *b);

/* Measures the device for about a second; zeros where there is nothing to measure against. */
backend_limits backend_measure(backend *b);

extern const backend_type backend_cpu, backend_reference, backend_cuda;

#endif
