/* The reference of norm_linear is the single ops' references one after the other, to the bit: gather, rmsnorm, linear,
 * silu_mul over all tokens at once. */
#include "base/half.h"
#include "ops/op_check.h"
#include "ops/gather.h"
#include "ops/norm_linear.h"
#include "ops/rmsnorm.h"
#include "ops/silu_mul.h"

enum { T = 5, D = 96, IN_ROWS = 8, EDGE = 3 };

static uint64_t random_state;

typedef struct {
    weight w[LINEAR_MAX_PARTS];
    float *bias[LINEAR_MAX_PARTS];
    float in[IN_ROWS * D], norm[D];
    int32_t row[T], n_parts;
} parts;

static void *make_rows(dtype format, int32_t rows)
{
    uint8_t *data = check_alloc(dtype_row_bytes(format, D) * (size_t)rows);
    for (int32_t i = 0; i < rows * D; i++) {
        float f = check_uniform(&random_state, 0.3f);
        uint16_t half = bf16_from_float(f), scale = f16_from_float(0.002f);
        uint8_t *block = data + i / Q8_0_BLOCK * Q8_0_BLOCK_BYTES;
        if (format == DTYPE_F32) memcpy(data + 4 * i, &f, 4);
        if (format == DTYPE_BF16) memcpy(data + 2 * i, &half, 2);
        if (format != DTYPE_Q8_0) continue;
        if (i % Q8_0_BLOCK == 0) memcpy(block, &scale, 2);
        block[2 + i % Q8_0_BLOCK] = (uint8_t)(int8_t)(f * 400);
    }
    return data;
}

static void make_parts(parts *p, int32_t n_parts, const int32_t *rows, const dtype *format)
{
    *p = (parts){.n_parts = n_parts, .row = {6, 0, 7, 7, 2}};
    random_state = 5;
    check_fill(p->in, IN_ROWS * D, 4, &random_state);
    check_fill(p->norm, D, 1, &random_state);
    p->norm[17] = 96.5f;
    for (int i = 0; i < n_parts; i++) {
        p->w[i] = (weight){format[i], rows[i], D, make_rows(format[i], rows[i])};
        p->bias[i] = check_alloc((size_t)rows[i] * sizeof(float));
        check_fill(p->bias[i], (size_t)rows[i], 1, &random_state);
    }
}

static void free_parts(parts *p)
{
    for (int i = 0; i < p->n_parts; i++) {
        free((void *)p->w[i].data);
        free(p->bias[i]);
    }
}

/* n[t] = rmsnorm(in[row[t]]) for all tokens, by the single ops. */
static void normalized(float *out, const parts *p, bool by_row)
{
    float picked[T * D];
    memcpy(picked, p->in, sizeof picked);
    if (by_row) op_gather_ref(&(op_gather_args){.out = picked, .in = p->in, .row = p->row, .N = T, .D = D});
    op_rmsnorm_ref(&(op_rmsnorm_args){.out = out,
                                      .out_stride = D,
                                      .in = picked,
                                      .in_stride = D,
                                      .w = p->norm,
                                      .T = T,
                                      .groups = 1,
                                      .width = D,
                                      .eps = 1e-5f});
}

static op_norm_linear_args fused_args(const parts *p, bool by_row, float *out, int32_t out_stride)
{
    op_norm_linear_args a = {.norm = p->norm, .eps = 1e-5f, .row = by_row ? p->row : NULL};
    a.linear = (op_linear_args){
        .out = out, .out_stride = out_stride, .in = p->in, .in_stride = D, .T = T, .n_parts = p->n_parts};
    return a;
}

static void norm_linear_of_mixed_parts_is_the_single_ops_to_the_bit(void **state)
{
    (void)state;
    parts p;
    make_parts(&p, 3, (const int32_t[]){40, 9, 1}, (const dtype[]){DTYPE_BF16, DTYPE_Q8_0, DTYPE_F32});
    enum { WIDTH = 40 + 9 + 1 + 4 * EDGE };
    for (int by_row = 0; by_row < 2; by_row++) {
        float n[T * D], want[T * WIDTH], got[T * WIDTH];
        for (int i = 0; i < T * WIDTH; i++) want[i] = got[i] = -7;
        op_norm_linear_args a = fused_args(&p, by_row, got, WIDTH);
        for (int i = 0, col = EDGE; i < 3; col += p.w[i++].rows + EDGE)
            a.linear.part[i] = (linear_part){.w = &p.w[i], .bias = i == 1 ? NULL : p.bias[i], .out_col = col};
        op_linear_args single = a.linear;
        normalized(n, &p, by_row);
        single.in = n;
        single.out = want;
        op_linear_ref(&single);
        op_norm_linear_ref(&a);
        assert_memory_equal(got, want, sizeof got); /* the columns around the parts too */
    }
    free_parts(&p);
}

static void norm_linear_gated_is_linear_and_silu_mul_to_the_bit(void **state)
{
    (void)state;
    parts p;
    enum { F = 37, WIDTH = F + EDGE };
    make_parts(&p, 2, (const int32_t[]){F, F}, (const dtype[]){DTYPE_BF16, DTYPE_BF16});
    for (int variant = 0; variant < 4; variant++) {
        float n[T * D], both[T * 2 * F], want[T * WIDTH], got[T * WIDTH];
        for (int i = 0; i < T * WIDTH; i++) want[i] = got[i] = -7;
        op_norm_linear_args a = fused_args(&p, variant % 2, got, WIDTH);
        a.gated = true;
        for (int i = 0; i < 2; i++)
            a.linear.part[i] = (linear_part){.w = &p.w[i], .bias = variant / 2 ? p.bias[i] : NULL};
        op_linear_args single = a.linear;
        normalized(n, &p, variant % 2);
        single.in = n;
        single.out = both;
        single.out_stride = 2 * F;
        single.part[1].out_col = F;
        op_linear_ref(&single);
        op_silu_mul_ref(&(op_silu_mul_args){.out = want,
                                            .gate = both,
                                            .up = both + F,
                                            .out_stride = WIDTH,
                                            .in_stride = 2 * F,
                                            .T = T,
                                            .F = F});
        op_norm_linear_ref(&a);
        assert_memory_equal(got, want, sizeof got);
    }
    free_parts(&p);
}

/* By hand: rms(3, 4) = sqrt(12.5). */
static void norm_linear_of_a_known_row_is_its_formula(void **state)
{
    (void)state;
    float in[2] = {3, 4}, norm[2] = {1, 2}, w[2] = {1, 1}, bias[1] = {0.5f}, out[1];
    weight matrix = {DTYPE_F32, 1, 2, w};
    op_norm_linear_args a = {.norm = norm, .eps = 0};
    a.linear = (op_linear_args){.out = out, .out_stride = 1, .in = in, .in_stride = 2, .T = 1, .n_parts = 1};
    a.linear.part[0] = (linear_part){.w = &matrix, .bias = bias};
    op_norm_linear_ref(&a);
    assert_true(fabs(out[0] - ((3 + 2 * 4) / sqrt(12.5) + 0.5)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_linear_of_mixed_parts_is_the_single_ops_to_the_bit),
        cmocka_unit_test(norm_linear_gated_is_linear_and_silu_mul_to_the_bit),
        cmocka_unit_test(norm_linear_of_a_known_row_is_its_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
