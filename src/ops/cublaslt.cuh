/* cuBLASLt, loaded at run time: the matrix products of long prompts.
 *
 * Loading takes a few tenths of a second, so a thread does it while the model is read. Nothing of the library is needed
 * to build or to start: where it is missing, cublaslt_ready stays false and the own kernels go on doing the products.
 * One thread at a time may call cublaslt_multiply. */
#ifndef NVLLM_OPS_CUBLASLT_CUH
#define NVLLM_OPS_CUBLASLT_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define CUBLASLT_WORKSPACE ((size_t)32 << 20)

typedef struct cublaslt cublaslt;

/* out[t, n] (+)= bias[n] + sum_k in[t, k] * w[n, k], products summed in float32. */
typedef struct {
    float *out;
    int out_stride;
    const __nv_bfloat16 *in, *w; /* [T, K], [N, K] */
    const float *bias;           /* [N] or NULL */
    int T, N, K;
    bool accumulate;
    void *workspace; /* CUBLASLT_WORKSPACE bytes, 256-byte aligned */
} cublaslt_product;

/* Starts the thread. `folders`: where to look first, separated by colons; may be NULL. NULL: no thread. */
cublaslt *cublaslt_open(int device, const char *folders);
/* Waits for the thread. No recorded step that holds products may run afterwards. */
void cublaslt_close(cublaslt *l);
/* The library is loaded and warm; never blocks. */
bool cublaslt_ready(const cublaslt *l);
/* Blocks until the thread has ended: then cublaslt_ready does not change any more. */
void cublaslt_wait(cublaslt *l);

/* Launches on `stream`, which may be recording. false: nothing was done, because the library has no kernel for this
 * shape and alignment. The first call of a shape asks the library for its best kernel (some 50 us); later ones neither
 * allocate nor ask, and take the same kernel again. */
bool cublaslt_multiply(cublaslt *l, const cublaslt_product *p, cudaStream_t stream);

#endif
