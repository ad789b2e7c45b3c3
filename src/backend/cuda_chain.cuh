/* The op list of one token as one kernel (ops/persistent.cuh): recognised, and given what it needs. Part of the CUDA backend. */
#ifndef NVLLM_BACKEND_CUDA_CHAIN_CUH
#define NVLLM_BACKEND_CUDA_CHAIN_CUH

extern "C" {
#include "backend/backend.h"
}
#include "ops/persistent.cuh"

/* See backend.h. */
nvllm_status cuda_chain_open(op_chain **out, backend *b, const op_kind *kinds, const op_args *args, int32_t n,
                             char (*why_not)[BACKEND_CLAUSE], nvllm_error *err);
void cuda_chain_run(backend *b, const op_chain *chain, const op_args *args);
void cuda_chain_close(op_chain *chain);

#endif
