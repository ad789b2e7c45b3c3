/* Root-mean-square norm on the CPU.
 *
 * The sum of squares runs in a fixed number of float32 lanes (AVX-512: 64, element i in lane i % 64), then a fixed
 * tree: the order depends on the width and the instruction set alone, so a token's result does not depend on what
 * else is in the step.
 * Memory: reads and writes 4*width bytes per group; a token of width 1024 takes ~0.1 us and never joins threads. */
#include "ops/rmsnorm.h"

#include <immintrin.h>
#include <math.h>

#define GRAIN_ELEMENTS 32768 /* below this much work a join costs more than it saves */

typedef void norm_fn(float *out, const float *in, const float *w, int32_t width, float eps);

static float inverse_rms(float sum, int32_t width, float eps)
{
    return 1.0f / sqrtf(sum / (float)width + eps);
}

static void norm_scalar(float *out, const float *in, const float *w, int32_t width, float eps)
{
    float lane[4] = {0};
    int32_t i = 0;
    for (; i + 4 <= width; i += 4)
        for (int32_t j = 0; j < 4; j++) lane[j] += in[i + j] * in[i + j];
    for (int32_t j = 0; i < width; i++, j++) lane[j] += in[i] * in[i];
    float scale = inverse_rms((lane[0] + lane[2]) + (lane[1] + lane[3]), width, eps);
    for (i = 0; i < width; i++) out[i] = w[i] * (in[i] * scale);
}

__attribute__((target("avx2,fma"))) static float sum8(__m256 v)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

__attribute__((target("avx2,fma"))) static void norm_avx2(float *out, const float *in, const float *w,
                                                          int32_t width, float eps)
{
    __m256 lane[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    float rest = 0;
    int32_t i = 0;
    for (; i + 32 <= width; i += 32)
        for (int32_t j = 0; j < 4; j++) {
            __m256 x = _mm256_loadu_ps(in + i + 8 * j);
            lane[j] = _mm256_fmadd_ps(x, x, lane[j]);
        }
    for (; i < width; i++) rest += in[i] * in[i];
    __m256 all = _mm256_add_ps(_mm256_add_ps(lane[0], lane[1]), _mm256_add_ps(lane[2], lane[3]));
    float scale = inverse_rms(sum8(all) + rest, width, eps);
    __m256 scales = _mm256_set1_ps(scale);
    for (i = 0; i + 8 <= width; i += 8)
        _mm256_storeu_ps(
            out + i, _mm256_mul_ps(_mm256_loadu_ps(w + i), _mm256_mul_ps(_mm256_loadu_ps(in + i), scales)));
    for (; i < width; i++) out[i] = w[i] * (in[i] * scale);
}

__attribute__((target("avx512f"))) static void norm_avx512(float *out, const float *in, const float *w,
                                                           int32_t width, float eps)
{
    __m512 lane[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    int32_t i = 0;
    for (; i + 64 <= width; i += 64)
        for (int32_t j = 0; j < 4; j++) {
            __m512 x = _mm512_loadu_ps(in + i + 16 * j);
            lane[j] = _mm512_fmadd_ps(x, x, lane[j]);
        }
    for (int32_t j = 0; i < width; i += 16, j++) {
        __mmask16 mask = width - i >= 16 ? 0xffff : (__mmask16)((1u << (width - i)) - 1);
        __m512 x = _mm512_maskz_loadu_ps(mask, in + i);
        lane[j] = _mm512_fmadd_ps(x, x, lane[j]);
    }
    __m512 all = _mm512_add_ps(_mm512_add_ps(lane[0], lane[1]), _mm512_add_ps(lane[2], lane[3]));
    __m512 scale = _mm512_set1_ps(inverse_rms(_mm512_reduce_add_ps(all), width, eps));
    for (i = 0; i < width; i += 16) {
        __mmask16 mask = width - i >= 16 ? 0xffff : (__mmask16)((1u << (width - i)) - 1);
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, in + i), scale);
        _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, w + i), x));
    }
}

static norm_fn *const kernels[ISA_COUNT] = {norm_scalar, norm_avx2, norm_avx512};

typedef struct {
    const op_rmsnorm_args *args;
    norm_fn *norm;
} norm_job;

/* Item = t * groups + g. */
static void norm_items(void *arg, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const norm_job *job = arg;
    const op_rmsnorm_args *a = job->args;
    for (int64_t item = begin; item < end; item++) {
        int64_t t = item / a->groups, first = item % a->groups * a->width;
        job->norm(a->out + t * a->out_stride + first, a->in + t * a->in_stride + first, a->w, a->width,
                  a->eps);
    }
}

void op_rmsnorm_cpu(const op_rmsnorm_args *a, const cpu_context *cpu)
{
    norm_job job = {a, kernels[cpu->isa]};
    thread_pool_run(cpu->pool, (int64_t)a->T * a->groups, GRAIN_ELEMENTS / a->width + 1, norm_items, &job);
}
