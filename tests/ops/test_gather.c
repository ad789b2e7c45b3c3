/* Picking rows: any order, repeats, none. */
#include "ops/op_check.h"
#include "ops/gather.h"

enum { T = 300, D = 513, N = 400 };

static void gather_picks_the_listed_rows_in_order(void **state)
{
    (void)state;
    uint64_t seed = 1;
    float *in = check_alloc(T * D * sizeof(float)), *out = check_alloc(N * D * sizeof(float));
    float *ref = check_alloc(N * D * sizeof(float));
    int32_t row[N];
    for (int32_t i = 0; i < T * D; i++) in[i] = (float)i;
    for (int32_t n = 0; n < N; n++) row[n] = (int32_t)(check_random(&seed) % T);
    for (int threads = 1; threads <= 2; threads++)
        for (int32_t count = 0; count <= N; count += count < 2 ? 1 : N - 2) {
            cpu_context cpu = check_open(cpu_isa_detect(), threads, 64);
            memset(out, 0xff, N * D * sizeof(float));
            memset(ref, 0xff, N * D * sizeof(float));
            op_gather_args a = {out, in, row, count, D}, want = {ref, in, row, count, D};
            op_gather_cpu(&a, &cpu);
            op_gather_ref(&want);
            assert_memory_equal(out, ref, N * D * sizeof(float));
            for (int32_t n = 0; n < count; n++)
                for (int32_t d = 0; d < D; d++) assert_true(out[n * D + d] == (float)(row[n] * D + d));
            check_close(&cpu);
        }
    free(in);
    free(out);
    free(ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gather_picks_the_listed_rows_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
