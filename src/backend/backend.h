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

#define BACKEND_MAX_RECORDED 8192 /* keys of recorded op lists are 1 .. this */
#define BACKEND_KEPT_LISTS   128  /* at once: a recorded list takes memory of the device */
#define BACKEND_FENCES       16
#define BACKEND_CLAUSE       256

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

/* The first `ops` ops of a step of one token, which the device runs as one kernel. */
typedef struct {
    int32_t ops;
} op_chain;

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
    int32_t H, C, F, V, max_context;
} backend_shape;

typedef struct {
    double read_bytes_per_s; /* sustained, of the device's memory */
    double bf16_flops;       /* of bf16 products with float32 sums */
} backend_limits;

typedef struct {
    const char *name;
    /* Makes the driver ready for open, which takes a few tenths of a second the first time; any thread. NULL: nothing
     * takes long. What fails here fails again, with its sentence, in open. */
    void (*prepare)(const backend_options *options);
    nvllm_status (*open)(backend **out, const backend_options *options, nvllm_error *err);
    /* The calling thread uses the device from now on. NULL: any thread may. */
    void (*enter)(backend *b);
    void (*close)(backend *b);
    /* Zeroed memory that ops may use, 64-byte aligned; NULL: not available. */
    void *(*alloc)(backend *b, size_t bytes);
    void (*free)(backend *b, void *memory, size_t bytes);
    /* Bytes of scratch that the ops need for steps of this shape, and making them available. */
    size_t (*scratch_bytes)(backend *b, const backend_shape *shape);
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
    /* fence: stands as number i (0 .. BACKEND_FENCES - 1; again: anew) behind all copies asked for so far. fence_wait:
     * until those are done and their memory on the host may be written again; reports what went wrong in them. */
    nvllm_status (*fence)(backend *b, int i, nvllm_error *err);
    nvllm_status (*fence_wait)(backend *b, int i, nvllm_error *err);
    /* Bytes of the device's own memory: free now, and in all. NULL: it shares the host's. */
    void (*memory)(backend *b, size_t *free, size_t *total);
    nvllm_status (*wait)(backend *b, const volatile int32_t *flag, int32_t value, nvllm_error *err);
    /* Recorded op lists, or NULL: replay runs the list recorded under `key`, false: there is none, or it has made room for
     * others. Between record and record_end ops are recorded, not run. */
    bool (*replay)(backend *b, int32_t key);
    void (*record)(backend *b);
    nvllm_status (*record_end)(backend *b, int32_t key, nvllm_error *err);
    void (*op[OP_COUNT])(backend *b, const op_args *args); /* fused ones may be NULL */
    /* Does the fused op take these weights? NULL: there are no fused ops. */
    bool (*can_fuse)(op_kind kind, const weight *const *parts, int32_t n_parts);
    /* Chains, or NULL. chain_open looks at the list (fused ops) and at its args in a step of one token, of which a chain keeps all
     * but the addresses of the step's arrays; *out NULL: there is none, and why_not, a clause, says why. chain_run: args of the
     * chain's ops in this step. */
    nvllm_status (*chain_open)(op_chain **out, backend *b, const op_kind *kinds, const op_args *args,
                               int32_t n, char (*why_not)[BACKEND_CLAUSE], nvllm_error *err);
    void (*chain_run)(backend *b, const op_chain *chain, const op_args *args);
    void (*chain_close)(op_chain *chain);
    backend_limits (*measure)(backend *b); /* NULL: nothing to measure */
    /* The time of ops. mark: notes as number i (0, 1, ... below 2^30; again: anew) the moment at which everything before it has
     * ended; false: no memory. between: microseconds from mark i to mark j, both set before; waits for mark j.
     * Not while ops are recorded; between two marks ops do not overlap, so their times add up to more than a step's. */
    bool (*mark)(backend *b, int32_t i);
    double (*between)(backend *b, int32_t i, int32_t j);
    /* The device does nothing for so long: what is started meanwhile then runs without gaps, and its marks show no
     * waiting for the host. NULL: ops run while they are started. */
    void (*pause)(backend *b, double us);
} backend_type;

struct backend {
    const backend_type *type;
    char passed_over
        [BACKEND_CLAUSE]; /* why "auto" did not take the GPU, a clause; "": it did, or was not asked */
    int threads;
    const char *isa; /* what runs: "avx512", ...; "plain" for the reference; the GPU's name */
    const char *id;  /* names this very device, on any day ("GPU-4f1c..."); NULL: it has no such name */
    int32_t recorded_kernels; /* in the op list recorded last; 0: none was */
};

/* `name`: "auto" (the GPU where there is one), "cpu", "cuda", "cuda:1" or "reference". Fails by name for unknown devices and for ops that a backend lacks. */
nvllm_status backend_open(backend **out, const char *name, const backend_options *options, nvllm_error *err);
void backend_close(backend *b);

/* type->prepare of the device that `name` means, as in backend_open. */
void backend_prepare(const char *name);
/* type->enter, where there is one. */
void backend_enter(backend *b);
/* The sentence for an allocation of `bytes` that the device refused: how much is free, and what to change. */
nvllm_status backend_out_of_memory(backend *b, size_t bytes, const char *what, nvllm_error *err);

/* Measures the device for about a second; zeros where there is nothing to measure against. */
backend_limits backend_measure(backend *b);

extern const backend_type backend_cpu, backend_reference, backend_cuda;

#endif
