/* Which instruction set the CPU kernels may use. __builtin_cpu_supports also asks the operating system whether it
 * saves the wide registers; F16C has no name in every compiler, so it is read from CPUID (it needs no more
 * registers than AVX2 does). */
#include "ops/op.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include <cpuid.h>

static const char *const names[ISA_COUNT] = {
    [ISA_SCALAR] = "scalar", [ISA_AVX2] = "avx2", [ISA_AVX512] = "avx512"};

static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

cpu_isa cpu_isa_detect(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return ISA_SCALAR;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512bf16"))
        return ISA_AVX512;
    return ISA_AVX2;
}

const char *cpu_isa_name(cpu_isa isa)
{
    assert(isa >= 0 && isa < ISA_COUNT);
    return names[isa];
}

int cpu_isa_parse(const char *name)
{
    for (int i = 0; i < ISA_COUNT; i++)
        if (strcmp(name, names[i]) == 0) return i;
    return -1;
}
