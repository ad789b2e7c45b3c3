/* The small ops on the GPU against their references: rmsnorm, rope and its table, silu_mul, kv_write. Sizes of real
 * models and odd ones, tokens with gaps between them, in place where the op's header allows it. */
#include "support/device.h"
#include "ops/attention.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"
#include "ops/silu_mul.h"

enum { GAP = 5 }; /* elements between tokens, which must stay as they are */

static device gpu;
static uint64_t random_state = 3;

static float *floats(size_t n, float range)
{
    float *x = check_alloc(n * sizeof *x);
    check_fill(x, n, range, &random_state);
    return x;
}

static float *copy_of(const float *x, size_t n)
{
    float *y = check_alloc(n * sizeof *y);
    memcpy(y, x, n * sizeof *x);
    return y;
}

/* Reads back n floats, compares the ones of each token with the reference and the gaps to the bit. */
static void check_tokens(const float *there, const float *want, int32_t T, int32_t width, int32_t stride,
                         double bound, const char *what)
{
    size_t n = (size_t)T * (size_t)stride;
    float *got = check_alloc(n * sizeof *got);
    device_read(&gpu, got, there, n * sizeof *got);
    for (int32_t t = 0; t < T; t++) {
        size_t first = (size_t)t * (size_t)stride;
        char where[200];
        snprintf(where, sizeof where, "%s, token %d", what, t);
        device_check(got + first, want + first, (size_t)width, bound, where);
        if (memcmp(got + first + width, want + first + width, (size_t)(stride - width) * sizeof *got) != 0)
            fail_msg("%s: the elements behind the token were written over", where);
    }
    free(got);
}

/* ---- rmsnorm ------------------------------------------------------------------------------------------------- */

static void check_rmsnorm(int32_t T, int32_t groups, int32_t width, bool in_place)
{
    char what[200];
    int32_t stride = groups * width + GAP;
    size_t n = (size_t)T * (size_t)stride;
    float *in = floats(n, 40), *want = in_place ? copy_of(in, n) : floats(n, 1),
          *w = floats((size_t)width, 2);
    w[width / 3] = 96.5f;
    for (int32_t i = 0; i < groups * width && T > 1; i++) in[stride + i] *= 1e-4f; /* eps counts in token 1 */
    if (in_place) memcpy(want, in, n * sizeof *in);
    op_rmsnorm_args host = {.out = want,
                            .out_stride = stride,
                            .in = in_place ? want : in,
                            .in_stride = stride,
                            .w = w,
                            .T = T,
                            .groups = groups,
                            .width = width,
                            .eps = 1e-6f};
    op_rmsnorm_args there = host;
    there.out = device_copy(&gpu, want, n * sizeof *want);
    there.in = in_place ? there.out : device_copy(&gpu, in, n * sizeof *in);
    there.w = device_copy(&gpu, w, (size_t)width * sizeof *w);
    op_rmsnorm_ref(&host);
    device_run(&gpu, OP_RMSNORM, &(op_args){.rmsnorm = there});
    snprintf(what, sizeof what, "rmsnorm T %d groups %d width %d%s", T, groups, width,
             in_place ? " in place" : "");
    check_tokens(there.out, want, T, groups * width, stride, 2e-6, what);
    free(in);
    free(want);
    free(w);
    device_release(&gpu);
}

static void rmsnorm_of_rows_and_heads_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t tokens[] = {1, 3, 40}, rows[] = {64, 896, 1000, 1024, 4096, 8192},
                  heads[] = {64, 80, 128, 256};
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++)
        for (int in_place = 0; in_place < 2; in_place++) {
            for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                check_rmsnorm(tokens[t], 1, rows[i], in_place);
            for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
                check_rmsnorm(tokens[t], 16, heads[i], in_place);
                check_rmsnorm(tokens[t], 3, heads[i], in_place);
            }
        }
}

/* ---- rope ---------------------------------------------------------------------------------------------------- */

static void check_rope(int32_t T, int32_t heads, int32_t C, rope_pairing pairing)
{
    char what[200];
    int32_t stride = heads * C + GAP, half = C / 2;
    size_t n = (size_t)T * (size_t)stride, angles = (size_t)T * (size_t)half;
    float *x = floats(n, 500), *cosine = floats(angles, 3.1f), *sine = copy_of(cosine, angles);
    for (size_t i = 0; i < angles; i++) cosine[i] = cosf(cosine[i]), sine[i] = sinf(sine[i]);
    op_rope_args host = {x, stride, T, heads, C, cosine, sine, pairing}, there = host;
    there.x = device_copy(&gpu, x, n * sizeof *x);
    there.cos = device_copy(&gpu, cosine, angles * sizeof *x);
    there.sin = device_copy(&gpu, sine, angles * sizeof *x);
    op_rope_ref(&host);
    device_run(&gpu, OP_ROPE, &(op_args){.rope = there});
    snprintf(what, sizeof what, "rope T %d heads %d C %d %s", T, heads, C,
             pairing == ROPE_PAIRS ? "pairs" : "halves");
    check_tokens(there.x, x, T, heads * C, stride, 4e-7, what);
    free(x);
    free(cosine);
    free(sine);
    device_release(&gpu);
}

static void rope_of_both_pairings_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t dims[] = {2, 10, 64, 80, 128, 256};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (int32_t T = 1; T <= 33; T += 16) {
            check_rope(T, 16, dims[i], ROPE_HALVES);
            check_rope(T, 16, dims[i], ROPE_PAIRS);
            check_rope(T, 1, dims[i], ROPE_HALVES);
            check_rope(T, 3, dims[i], ROPE_PAIRS);
        }
}

static void check_rope_table(int32_t C, double theta, float scale)
{
    enum { T = 300 };
    char what[200];
    int32_t half = C / 2, pos[T];
    size_t n = (size_t)T * (size_t)half;
    float *inv_freq = floats((size_t)half, 1), *cosine = floats(n, 1), *sine = floats(n, 1);
    for (int32_t i = 0; i < half; i++) inv_freq[i] = (float)pow(theta, -2.0 * i / C);
    for (int32_t t = 0; t < T; t++)
        pos[t] = t < 4 ? t : t < 100 ? 131071 - (t - 4) : (int32_t)((uint32_t)t * 2654435761u % 131072u);
    op_rope_table_args host = {cosine, sine, inv_freq, pos, T, C, scale}, there = host;
    there.cos = device_alloc(&gpu, n * sizeof *cosine);
    there.sin = device_alloc(&gpu, n * sizeof *sine);
    there.inv_freq = device_copy(&gpu, inv_freq, (size_t)half * sizeof *inv_freq);
    there.pos = device_copy(&gpu, pos, sizeof pos);
    op_rope_table_ref(&host);
    device_run(&gpu, OP_ROPE_TABLE, &(op_args){.rope_table = there});
    float *got = check_alloc(n * sizeof *got);
    snprintf(what, sizeof what, "cosines of C %d theta %g scale %g", C, theta, (double)scale);
    device_read(&gpu, got, there.cos, n * sizeof *got);
    check_near(got, cosine, n, 0, 2e-7 * (double)scale, what);
    snprintf(what, sizeof what, "sines of C %d theta %g scale %g", C, theta, (double)scale);
    device_read(&gpu, got, there.sin, n * sizeof *got);
    check_near(got, sine, n, 0, 2e-7 * (double)scale, what);
    free(inv_freq);
    free(cosine);
    free(sine);
    free(got);
    device_release(&gpu);
}

static void rope_table_up_to_position_131071_is_exact(void **state)
{
    (void)state;
    check_rope_table(128, 1e6, 1);
    check_rope_table(64, 5e5, 1);
    check_rope_table(80, 1e4, 1);
    check_rope_table(128, 1e6, 1.25f);
    check_rope_table(256, 1e4, 1);
}

/* ---- silu_mul ------------------------------------------------------------------------------------------------ */

static void check_silu_mul(int32_t T, int32_t F, bool in_place)
{
    char what[200];
    int32_t stride = 2 * F + GAP, out_stride = in_place ? stride : F + GAP;
    size_t n = (size_t)T * (size_t)stride, outs = (size_t)T * (size_t)out_stride;
    const float edges[] = {0, -0.0f, 100, -100, -88, 88, -1e30f, 1e30f, 1e-30f};
    float *in = floats(n, 12), *want = in_place ? in : floats(outs, 1);
    for (int32_t t = 0; t < T; t++)
        for (int i = 0; i < (int)(sizeof edges / sizeof *edges) && i < F - 8; i++)
            in[(size_t)t * (size_t)stride + (size_t)i] = edges[i];
    op_silu_mul_args host = {want, in, in + F, out_stride, stride, T, F}, there = host;
    float *in_there = device_copy(&gpu, in, n * sizeof *in);
    there.out = in_place ? in_there : device_copy(&gpu, want, outs * sizeof *want);
    there.gate = in_there;
    there.up = in_there + F;
    op_silu_mul_ref(&host);
    device_run(&gpu, OP_SILU_MUL, &(op_args){.silu_mul = there});
    float *got = check_alloc(outs * sizeof *got);
    device_read(&gpu, got, there.out, outs * sizeof *got);
    snprintf(what, sizeof what, "silu_mul T %d F %d%s", T, F, in_place ? " in place" : "");
    check_near(got, want, outs, 1e-6, 1e-30, what); /* element by element: 1e30 would hide the others */
    free(got);
    if (!in_place) free(want);
    free(in);
    device_release(&gpu);
}

static void silu_mul_of_every_size_is_close_to_the_reference(void **state)
{
    (void)state;
    const int32_t widths[] = {1, 7, 100, 3072, 4864, 14336}, tokens[] = {1, 2, 37};
    for (size_t f = 0; f < sizeof widths / sizeof *widths; f++)
        for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
            check_silu_mul(tokens[t], widths[f], false);
            check_silu_mul(tokens[t], widths[f], true);
        }
}

/* ---- kv_write ------------------------------------------------------------------------------------------------ */

/* The pools are compared to the bit, pages that no token goes to included. */
static void check_kv_write(dtype format, int32_t T, int32_t K, int32_t S, int32_t C)
{
    enum { PAGES = 7 };
    int32_t stride = 3 * K * C + 2, slots = PAGES * S, *slot = check_alloc((size_t)T * sizeof *slot);
    size_t n = (size_t)T * (size_t)stride, bytes = dtype_row_bytes(format, (int64_t)slots * K * C);
    float *x = floats(n, 3);
    uint8_t *pool[2] = {check_alloc(bytes), check_alloc(bytes)}, *got = check_alloc(bytes);
    for (int32_t t = 0; t < T; t++)
        slot[t] = (t * 5 + 3) % slots; /* 5 is no divisor of slots: all different */
    memset(pool[0], 0x5a, bytes);
    memset(pool[1], 0x33, bytes);
    op_kv_write_args host = {.kv = {pool[0], pool[1], format, K, S, C},
                             .k = x + K * C,
                             .v = x + 2 * K * C,
                             .stride = stride,
                             .slot = slot,
                             .T = T};
    op_kv_write_args there = host;
    float *x_there = device_copy(&gpu, x, n * sizeof *x);
    there.kv.k_pool = device_copy(&gpu, pool[0], bytes);
    there.kv.v_pool = device_copy(&gpu, pool[1], bytes);
    there.k = x_there + K * C;
    there.v = x_there + 2 * K * C;
    there.slot = device_copy(&gpu, slot, (size_t)T * sizeof *slot);
    op_kv_write_ref(&host);
    device_run(&gpu, OP_KV_WRITE, &(op_args){.kv_write = there});
    for (int i = 0; i < 2; i++) {
        device_read(&gpu, got, i ? there.kv.v_pool : there.kv.k_pool, bytes);
        if (memcmp(got, pool[i], bytes) != 0)
            fail_msg("kv_write %s T %d K %d S %d C %d: the %s pool differs", dtype_name(format), T, K, S, C,
                     i ? "V" : "K");
    }
    free(x);
    free(slot);
    free(pool[0]);
    free(pool[1]);
    free(got);
    device_release(&gpu);
}

static void kv_write_puts_every_head_into_its_slot(void **state)
{
    (void)state;
    const dtype formats[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        check_kv_write(formats[f], 1, 8, 16, 128);
        check_kv_write(formats[f], 33, 8, 16, 128);
        check_kv_write(formats[f], 9, 2, 32, 64);
        check_kv_write(formats[f], 20, 1, 3, 80);
        check_kv_write(formats[f], 6, 5, 1, 22);
    }
}

/* ---- Long steps ---------------------------------------------------------------------------------------------- */

/* Recorded, and not run: what a card refuses it refuses when it is asked, and the arrays need not be there. */
static void ops_of_more_tokens_than_a_side_of_a_grid_are_launched(void **state)
{
    (void)state;
    enum { T = 70000, D = 64 };
    const backend_type *type = gpu.backend->type;
    nvllm_error err = {0};
    float *x = device_alloc(&gpu, sizeof *x), got;
    type->record(gpu.backend);
    device_run(&gpu, OP_SILU_MUL, &(op_args){.silu_mul = {x, x, x, D, 2 * D, T, D}});
    device_run(&gpu, OP_RMSNORM, &(op_args){.rmsnorm = {x, D, x, D, x, T, 1, D, 1e-6f}});
    device_run(&gpu, OP_ROPE, &(op_args){.rope = {x, D, T, 1, D, x, x, ROPE_PAIRS}});
    if (type->record_end(gpu.backend, 1, &err)) fail_msg("%s", err.message);
    device_read(&gpu, &got, x, sizeof got); /* fails where a launch has */
    device_release(&gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_of_rows_and_heads_is_close_to_the_reference),
        cmocka_unit_test(rope_of_both_pairings_is_close_to_the_reference),
        cmocka_unit_test(rope_table_up_to_position_131071_is_exact),
        cmocka_unit_test(silu_mul_of_every_size_is_close_to_the_reference),
        cmocka_unit_test(kv_write_puts_every_head_into_its_slot),
        cmocka_unit_test(ops_of_more_tokens_than_a_side_of_a_grid_are_launched),
    };
    if (!device_open(&gpu)) return 77;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(&gpu);
    return failed;
}
