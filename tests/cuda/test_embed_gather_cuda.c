/* Embedding and gather on the GPU against the reference: exact, all formats, tokens of the step before included. */
#include "support/device.h"

static device gpu;

static void embed_reads_rows_and_drawn_tokens(void **state)
{
    (void)state;
    enum { V = 37, D = 72, T = 5 };
    uint64_t random = 11;
    float table[V * D], want[T * D], got[T * D];
    int32_t tokens[T] = {3, -2, 36, 0, -1}, drawn[2] = {7, 30};
    check_fill(table, V * D, 1, &random);
    weight host = {DTYPE_F32, V, D, table}, there = host;
    op_embed_args a = {want, &host, tokens, drawn, T}, b = a;
    op_embed_ref(&a);
    there.data = device_copy(&gpu, table, sizeof table);
    b.table = &there;
    b.tokens = device_copy(&gpu, tokens, sizeof tokens);
    b.drawn = device_copy(&gpu, drawn, sizeof drawn);
    b.out = device_alloc(&gpu, sizeof got);
    device_run(&gpu, OP_EMBED, &(op_args){.embed = b});
    device_read(&gpu, got, b.out, sizeof got);
    assert_memory_equal(got, want, sizeof got);
    device_release(&gpu);
}

/* Rows that lie further apart there than they are long. */
static void embed_reads_rows_of_q8(void **state)
{
    (void)state;
    enum { V = 37, D = 96, T = 5, BYTES = D / Q8_0_BLOCK * Q8_0_BLOCK_BYTES };
    uint64_t random = 13;
    uint8_t table[V * BYTES];
    float want[T * D], got[T * D];
    int32_t tokens[T] = {3, 0, 36, 1, 17};
    for (int i = 0; i < V * BYTES; i++) table[i] = (uint8_t)(check_random(&random) % 100); /* scales too */
    weight host = {DTYPE_Q8_0, V, D, table, 0}, there = device_weight(&gpu, &host);
    op_embed_args a = {want, &host, tokens, NULL, T}, b = a;
    op_embed_ref(&a);
    b.table = &there;
    b.tokens = device_copy(&gpu, tokens, sizeof tokens);
    b.out = device_alloc(&gpu, sizeof got);
    assert_true(there.row_bytes > BYTES);
    device_run(&gpu, OP_EMBED, &(op_args){.embed = b});
    device_read(&gpu, got, b.out, sizeof got);
    assert_memory_equal(got, want, sizeof got);
    device_release(&gpu);
}

static void gather_picks_rows(void **state)
{
    (void)state;
    enum { T = 9, D = 130, N = 4 };
    uint64_t random = 12;
    float in[T * D], want[N * D], got[N * D];
    int32_t row[N] = {8, 0, 3, 3};
    check_fill(in, T * D, 1, &random);
    op_gather_args a = {want, in, row, N, D}, b = a;
    op_gather_ref(&a);
    b.in = device_copy(&gpu, in, sizeof in);
    b.row = device_copy(&gpu, row, sizeof row);
    b.out = device_alloc(&gpu, sizeof got);
    device_run(&gpu, OP_GATHER, &(op_args){.gather = b});
    device_read(&gpu, got, b.out, sizeof got);
    assert_memory_equal(got, want, sizeof got);
    device_release(&gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(embed_reads_rows_and_drawn_tokens),
                                       cmocka_unit_test(embed_reads_rows_of_q8),
                                       cmocka_unit_test(gather_picks_rows)};
    if (!device_open(&gpu)) return 77;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
