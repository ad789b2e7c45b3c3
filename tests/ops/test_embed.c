/* Embedding lookup: every format, many and few tokens, against values known by construction. */
#include "ops/op_check.h"
#include "ops/embed.h"
#include "base/half.h"

enum { V = 50, D = 96, T = 700 };

/* Element (v, d) of the table: a small integer, exact in every format but Q8_0. */
static float element(int32_t v, int32_t d)
{
    return (float)((v * 7 + d * 3) % 128 - 64);
}

/* Q8_0 with scale 0.5 * (block + 1): quant q stands for q * scale. */
static void fill_table(uint8_t *table, dtype format)
{
    for (int32_t v = 0; v < V; v++)
        for (int32_t d = 0; d < D; d++) {
            size_t i = (size_t)(v * D + d);
            if (format == DTYPE_F32) ((float *)(void *)table)[i] = element(v, d);
            if (format == DTYPE_BF16) ((uint16_t *)(void *)table)[i] = bf16_from_float(element(v, d));
            if (format == DTYPE_F16) ((uint16_t *)(void *)table)[i] = f16_from_float(element(v, d));
            if (format != DTYPE_Q8_0) continue;
            uint8_t *block = table + i / Q8_0_BLOCK * Q8_0_BLOCK_BYTES;
            uint16_t scale = f16_from_float(0.5f * (float)(d / Q8_0_BLOCK + 1));
            memcpy(block, &scale, sizeof scale);
            block[2 + i % Q8_0_BLOCK] = (uint8_t)(int8_t)element(v, d);
        }
}

static void embed_of_every_format_widens_the_row_of_the_token(void **state)
{
    (void)state;
    uint8_t *table = check_alloc(V * D * sizeof(float));
    int32_t tokens[T];
    float *out = check_alloc((T + 1) * D * sizeof(float)), *ref = check_alloc(T * D * sizeof(float));
    for (int32_t t = 0; t < T; t++) tokens[t] = (t * 31 + 49) % V;
    for (dtype format = DTYPE_F32; format < DTYPE_COUNT; format++) {
        fill_table(table, format);
        weight w = {format, V, D, table};
        op_embed_args a = {out, &w, tokens, NULL, T}, want = {ref, &w, tokens, NULL, T};
        op_embed_ref(&want);
        for (int threads = 1; threads <= 2; threads++) {
            cpu_context cpu = check_open(cpu_isa_detect(), threads, 64);
            memset(out, 0x7f, (T + 1) * D * sizeof(float));
            op_embed_cpu(&a, &cpu);
            assert_memory_equal(out, ref, T * D * sizeof(float));
            for (int32_t i = 0; i < T * D; i++) {
                float scale = format == DTYPE_Q8_0 ? 0.5f * (float)(i % D / Q8_0_BLOCK + 1) : 1;
                assert_true(out[i] == scale * element(tokens[i / D], i % D));
            }
            uint32_t after;
            memcpy(&after, out + T * D, sizeof after);
            assert_int_equal(after, 0x7f7f7f7f);
            check_close(&cpu);
        }
    }
    free(table);
    free(out);
    free(ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(embed_of_every_format_widens_the_row_of_the_token)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
