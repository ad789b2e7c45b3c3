/* binary16 as CUDA names it. */
#ifndef NVLLM_EMULATOR_CUDA_FP16_H
#define NVLLM_EMULATOR_CUDA_FP16_H

#include "base/half.h"
#include "cuda_runtime.h"

struct __half_raw {
    unsigned short x;
};
struct __half {
    uint16_t bits;
    __half() = default;
    __half(uint16_t bits) : bits(bits) {}
    explicit __half(__half_raw raw) : bits(raw.x) {}
};
struct __half2_raw {
    unsigned short x, y;
};
struct alignas(4) __half2 {
    __half x, y;
    __half2() = default;
    __half2(__half x, __half y) : x(x), y(y) {}
    explicit __half2(__half2_raw raw) : x{raw.x}, y{raw.y} {}
};

static inline float __half2float(__half v)
{
    return f16_to_float(v.bits);
}
static inline __half __float2half_rn(float v)
{
    return {f16_from_float(v)};
}
static inline __half2 __floats2half2_rn(float x, float y)
{
    return __half2({f16_from_float(x)}, {f16_from_float(y)});
}
static inline float2 __half22float2(__half2 v)
{
    return {__half2float(v.x), __half2float(v.y)};
}

#endif
