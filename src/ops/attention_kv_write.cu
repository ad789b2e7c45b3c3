/* The write of new K and V into the paged cache on the GPU. One block per token; reads 8*K*C, writes 2*K*C*size bytes. */
#include "ops/attention.cuh"

template <class E> static __global__ void kv_write(op_kv_write_args a)
{
    kernel_begins();
    kernel_waits();
    int t = blockIdx.x, slot = a.slot[t];
    for (int i = threadIdx.x; i < a.kv.K * a.kv.C; i += blockDim.x) {
        size_t at = pool_index(a.kv, slot, i / a.kv.C) + i % a.kv.C;
        ((E *)a.kv.k_pool)[at] = narrow<E>(a.k[(size_t)t * a.stride + i]);
        ((E *)a.kv.v_pool)[at] = narrow<E>(a.v[(size_t)t * a.stride + i]);
    }
}

extern "C" void op_kv_write_cuda(const op_kv_write_args *a, const cuda_context *cuda)
{
    switch (a->kv.format) {
    case DTYPE_F32: launch(cuda, kv_write<float>, a->T, 256, 0, *a); break;
    case DTYPE_F16: launch(cuda, kv_write<__half>, a->T, 256, 0, *a); break;
    default: launch(cuda, kv_write<__nv_bfloat16>, a->T, 256, 0, *a); break;
    }
}
