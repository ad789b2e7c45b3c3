/* The time of every op of every step, taken from a runner while it works.
 *
 * Steps then run op by op with a mark after each (backend.h), not as recorded lists, so they are slower, and a GPU's
 * kernels do not overlap: what is measured is each op alone. A GPU pauses before each step until its ops have been
 * started, or the gaps between them would be measured. Marks are read when the profile is read, not between
 * steps. All times are microseconds since profile_open; those of the device and of the host meet to some 20 us. */
#ifndef NVLLM_MODEL_PROFILE_H
#define NVLLM_MODEL_PROFILE_H

#include "model/runner.h"

#define PROFILE_MAX_OPS (1 << 18) /* timed in all; steps beyond are not recorded */

typedef struct {
    int32_t op; /* index in runner_graph */
    double start, took;
} profile_op;

typedef struct {
    int32_t T, R, N;
    int64_t kv_tokens;    /* tokens in the cache that the step's rows see, this step's included */
    int32_t first, count; /* in profile_ops */
    double begin, end;    /* host: the whole step */
    double launch,
        launched; /* host: before the first op, after the last; on the CPU the ops have run by then */
} profile_step;

typedef struct profile profile;

/* Takes the runner's hook. r and b are borrowed until profile_close, which gives the hook back. */
nvllm_status profile_open(profile **out, runner *r, backend *b, nvllm_error *err);
void profile_close(profile *p);

/* Around every step. held: tokens in the cache of the running sequences before it. */
void profile_begin(profile *p, int64_t held);
void profile_end(profile *p);

/* Reads the marks; then the arrays below are filled, until profile_close. */
void profile_read(profile *p);
int32_t profile_steps(const profile *p, const profile_step **steps);
const profile_op *profile_ops(const profile *p);
int64_t profile_dropped(const profile *p); /* steps that were not recorded: too many ops, or no memory */

/* Bytes that an op must at least move in this step: its weights, and what it reads and writes of the KV cache. */
int64_t profile_op_bytes(const model *m, dtype kv_type, const graph_op *op, const profile_step *step);
/* Operations (a multiply and an add are two) of its matrix products, and of the scores and sums of attention. Rows of
 * different lengths are taken as equally long. */
int64_t profile_op_flops(const model *m, const graph_op *op, const profile_step *step);

#endif
