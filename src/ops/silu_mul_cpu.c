/* Gated activation on the CPU. Element by element, so batch invariance is given; 12 bytes moved per element.
 * x / (1 + e^-x): for large negative x the exponential overflows to infinity and the quotient is -0, as wanted. */
#include "ops/silu_mul.h"
#include "ops/exp_simd.h"

#include <math.h>

#define GRAIN_ELEMENTS 16384 /* below this much work (~5 us) a join costs more than it saves */

typedef void silu_fn(float *out, const float *gate, const float *up, int32_t n);

static void silu_scalar(float *out, const float *gate, const float *up, int32_t n)
{
    for (int32_t i = 0; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

__attribute__((target("avx2,fma"))) static __m256 silu8(__m256 x, __m256 up)
{
    __m256 e = exp_avx2(_mm256_sub_ps(_mm256_setzero_ps(), x));
    return _mm256_mul_ps(_mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), up);
}

__attribute__((target("avx2,fma"))) static void silu_avx2(float *out, const float *gate, const float *up,
                                                          int32_t n)
{
    int32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, silu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i == n) return;
    float x[8] = {0}, y[8] = {0};
    for (int32_t j = i; j < n; j++) {
        x[j - i] = gate[j];
        y[j - i] = up[j];
    }
    _mm256_storeu_ps(x, silu8(_mm256_loadu_ps(x), _mm256_loadu_ps(y)));
    for (int32_t j = i; j < n; j++) out[j] = x[j - i];
}

__attribute__((target("avx512f"))) static void silu_avx512(float *out, const float *gate, const float *up,
                                                           int32_t n)
{
    __m512 one = _mm512_set1_ps(1.0f), zero = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += 16) {
        __mmask16 mask = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 e = exp_avx512(_mm512_sub_ps(zero, x));
        __m512 y =
            _mm512_mul_ps(_mm512_div_ps(x, _mm512_add_ps(one, e)), _mm512_maskz_loadu_ps(mask, up + i));
        _mm512_mask_storeu_ps(out + i, mask, y);
    }
}

static silu_fn *const kernels[ISA_COUNT] = {silu_scalar, silu_avx2, silu_avx512};

typedef struct {
    const op_silu_mul_args *args;
    silu_fn *silu;
    int64_t blocks; /* per token */
} silu_job;

#define BLOCK                                                                                                \
    4096 /* elements of one work item: a single wide token still splits; a multiple of every vector */

/* Item = t * blocks + block. */
static void silu_items(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const silu_job *job = arg;
    const op_silu_mul_args *a = job->args;
    for (int64_t item = begin; item < end; item++) {
        int64_t t = item / job->blocks, first = item % job->blocks * BLOCK;
        int32_t n = a->F - first < BLOCK ? (int32_t)(a->F - first) : BLOCK;
        int64_t in = t * a->in_stride + first;
        job->silu(a->out + t * a->out_stride + first, a->gate + in, a->up + in, n);
    }
}

void op_silu_mul_cpu(const op_silu_mul_args *a, const cpu_context *cpu)
{
    silu_job job = {a, kernels[cpu->isa], (a->F + BLOCK - 1) / BLOCK};
    int64_t item = a->F < BLOCK ? a->F : BLOCK;
    thread_pool_run(cpu->pool, a->T * job.blocks, GRAIN_ELEMENTS / item + 1, silu_items, &job);
}
