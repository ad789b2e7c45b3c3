/* RMSNorm with the products that read it, on the GPU: which kernel does it. Few tokens in one kernel, many in a norm
 * that writes rounded inputs, the products, and the gate. */
#include "ops/linear_few.cuh"
#include "ops/linear_rows.cuh"

/* The backend's can_fuse lets only weights of one format through. */
extern "C" void op_norm_linear_cuda(const op_norm_linear_args *a, const cuda_context *cuda)
{
    if (norm_linear_few_cuda(a, cuda) || op_norm_linear_many_cuda(a, cuda)) return;
    linear_by_rows_cuda(a, a->linear.part[0].w->format, cuda);
}
