/* The products of cuBLASLt (src/ops/cublaslt.cuh), played: the library itself would look for a real GPU. */
#include "ops/cublaslt.cuh"

struct cublaslt {
    int products;
};

cublaslt *cublaslt_open(int, const char *)
{
    return new cublaslt();
}

void cublaslt_close(cublaslt *l)
{
    delete l;
}

bool cublaslt_ready(const cublaslt *)
{
    return true;
}

void cublaslt_wait(cublaslt *) {}

static void multiply(const cublaslt_product &p)
{
    for (int t = 0; t < p.T; t++)
        for (int n = 0; n < p.N; n++) {
            float sum = p.bias ? p.bias[n] : 0, *out = p.out + (size_t)t * (size_t)p.out_stride + n;
            const __nv_bfloat16 *in = p.in + (size_t)t * (size_t)p.K, *w = p.w + (size_t)n * (size_t)p.K;
            for (int k = 0; k < p.K; k++) sum += __bfloat162float(in[k]) * __bfloat162float(w[k]);
            *out = p.accumulate ? *out + sum : sum;
        }
}

bool cublaslt_multiply(cublaslt *l, const cublaslt_product *p, cudaStream_t stream)
{
    if (p->N % 8 != 0) return false; /* the library has no kernel for some shapes */
    const cublaslt_product product = *p;
    l->products++;
    emulated_do(stream, [=] { multiply(product); });
    return true;
}
