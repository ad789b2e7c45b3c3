/* The reference of the fused op against the single references, one after the other on copies: the same bits. */
#include "ops/op_check.h"
#include "ops/rmsnorm.h"
#include "ops/rope_attention.h"

enum {
    H = 4,
    K = 2,
    C = 8,
    S = 4,
    PAGES = 4,
    T = 3,
    R = 2,
    STRIDE = (H + 2 * K) * C + 2,
    POOL = PAGES * K * S * C
};

typedef struct {
    float x[T * STRIDE], out[T * H * C], k_pool[POOL], v_pool[POOL];
} buffers;

static const int32_t row_start[R + 1] = {0, 2, 3}, kv_len[R] = {6, 3}, pages[R * 2] = {2, 0, 3, 1},
                                   slot[T] = {0 * S + 0, 0 * S + 1, 3 * S + 2};

static void run_single(buffers *b, const op_rope_attention_args *a)
{
    float *x[] = {b->x, b->x + H * C};
    const float *w[] = {a->q_norm, a->k_norm};
    int32_t heads[] = {H, K};
    for (int i = 0; i < 2; i++) {
        if (w[i])
            op_rmsnorm_ref(&(op_rmsnorm_args){.out = x[i],
                                              .out_stride = STRIDE,
                                              .in = x[i],
                                              .in_stride = STRIDE,
                                              .w = w[i],
                                              .T = T,
                                              .groups = heads[i],
                                              .width = C,
                                              .eps = a->eps});
        op_rope_ref(&(op_rope_args){.x = x[i],
                                    .stride = STRIDE,
                                    .T = T,
                                    .heads = heads[i],
                                    .C = C,
                                    .cos = a->cos,
                                    .sin = a->sin,
                                    .pairing = a->pairing});
    }
    op_attention_args t = a->attention;
    t.out = b->out;
    t.q = b->x;
    t.kv.k_pool = b->k_pool;
    t.kv.v_pool = b->v_pool;
    op_kv_write_ref(&(op_kv_write_args){
        .kv = t.kv, .k = b->x + H * C, .v = b->x + (H + K) * C, .stride = STRIDE, .slot = slot, .T = T});
    op_attention_ref(&t);
}

static void compare(dtype format, bool norm, rope_pairing pairing)
{
    uint64_t seed = 4;
    static buffers fused, single;
    float w[2][C], cosine[T * C / 2], sine[T * C / 2];
    check_fill(fused.x, T * STRIDE, 2, &seed);
    check_fill(fused.k_pool, POOL, 1, &seed);
    check_fill(fused.v_pool, POOL, 1, &seed);
    check_fill(w[0], C, 1, &seed);
    check_fill(w[1], C, 96.5f, &seed);
    for (int i = 0; i < T * C / 2; i++) {
        double angle = check_uniform(&seed, 3);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    if (format != DTYPE_F32) /* any bits but NaN and infinity */
        for (size_t i = 0; i < sizeof fused.k_pool; i++) {
            ((unsigned char *)fused.k_pool)[i] &= 0x3f;
            ((unsigned char *)fused.v_pool)[i] &= 0x3f;
        }
    memset(fused.out, 0, sizeof fused.out);
    memcpy(&single, &fused, sizeof single);
    op_rope_attention_args a = {.attention = {.out = fused.out,
                                              .out_stride = H * C,
                                              .q = fused.x,
                                              .q_stride = STRIDE,
                                              .kv = {fused.k_pool, fused.v_pool, format, K, S, C},
                                              .row_start = row_start,
                                              .kv_len = kv_len,
                                              .pages = pages,
                                              .T = T,
                                              .R = R,
                                              .P = 2,
                                              .H = H,
                                              .scale = 0.35f},
                                .q = fused.x,
                                .k = fused.x + H * C,
                                .v = fused.x + (H + K) * C,
                                .slot = slot,
                                .q_norm = norm ? w[0] : NULL,
                                .k_norm = norm ? w[1] : NULL,
                                .eps = 1e-6f,
                                .cos = cosine,
                                .sin = sine,
                                .pairing = pairing};
    op_rope_attention_ref(&a);
    run_single(&single, &a);
    assert_memory_equal(fused.out, single.out, sizeof fused.out);
    assert_memory_equal(fused.k_pool, single.k_pool, sizeof fused.k_pool);
    assert_memory_equal(fused.v_pool, single.v_pool, sizeof fused.v_pool);
    assert_memory_equal(fused.x + (H + K) * C, single.x + (H + K) * C,
                        K * C * sizeof(float)); /* v as it was */
}

static void fused_reference_gives_the_bits_of_the_single_ones(void **state)
{
    (void)state;
    for (dtype format = DTYPE_F32; format <= DTYPE_BF16; format++)
        for (int norm = 0; norm < 2; norm++) {
            compare(format, norm != 0, ROPE_HALVES);
            compare(format, norm != 0, ROPE_PAIRS);
        }
}

/* One position, one head: the softmax is 1, so v comes back rounded to the cache's format, and k lies there turned. */
static void a_first_token_returns_its_value_and_leaves_k_turned(void **state)
{
    (void)state;
    float x[6] = {1, 2, 3, 4, 0.5f, 1.0009765625f}, out[2], k_pool[1] = {0}, v_pool[1] = {0};
    float cosine = 0, sine = 1; /* a quarter turn: (3, 4) becomes (-4, 3) */
    int32_t start[2] = {0, 1}, length = 1, zero = 0;
    op_rope_attention_args a = {
        .attention =
            {out, 2, x, 6, {k_pool, v_pool, DTYPE_BF16, 1, 1, 2}, start, &length, &zero, 1, 1, 1, 1, 0, 1},
        .q = x,
        .k = x + 2,
        .v = x + 4,
        .slot = &zero,
        .cos = &cosine,
        .sin = &sine};
    const uint16_t turned[2] = {0xc080, 0x4040};
    op_rope_attention_ref(&a);
    assert_memory_equal(k_pool, turned, sizeof turned);
    assert_true(out[0] == 0.5f && out[1] == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fused_reference_gives_the_bits_of_the_single_ones),
                                       cmocka_unit_test(a_first_token_returns_its_value_and_leaves_k_turned)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
