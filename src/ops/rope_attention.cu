/* q/k norm, RoPE, cache write and attention on the GPU, as one op.
 *
 * A row with one token in this step (decode) is done by the attention kernel alone: its blocks norm and turn their own
 * query heads, and the block that holds the row's last position does the same to k, see attention.cu. Rows with more
 * tokens (prompts) are prepared here, one warp per head, before their attention: reads 4*(H + 2K)*C bytes per token,
 * writes q and k back in place, and 2*K*C elements into the cache.
 *
 * A step with T <= R is taken to have no row of more than one token (the engine makes no empty rows; the empty rows
 * that pad a recorded step stand beside rows of one token only). */
#include "ops/attention.cuh"

enum { WARPS = 8, PAIRS = 4 /* C at most 256 */ };

/* Heads are q's H, k's K, v's K, in this order. */
template <class E> static __global__ void prepare_prompts(const __grid_constant__ op_rope_attention_args a)
{
    const op_attention_args &t = a.attention;
    kernel_begins();
    kernel_waits();
    int token = blockIdx.x, head = blockIdx.y * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32, C = t.kv.C;
    int r = row_of(t.row_start, t.R, token);
    if (t.row_start[r + 1] - t.row_start[r] < 2 || head >= t.H + 2 * t.kv.K) return;
    bool is_q = head < t.H, is_v = head >= t.H + t.kv.K;
    int kv_head = is_v ? head - t.H - t.kv.K : head - t.H;
    float *x = (is_q   ? a.q
                : is_v ? a.v
                       : a.k) +
               (size_t)token * t.q_stride + (size_t)(is_q ? head : kv_head) * C;
    const float *w = is_q ? a.q_norm : is_v ? NULL : a.k_norm;
    head_pairs<PAIRS> h = load_head<PAIRS>(x, C, a.pairing);
    head_pairs<PAIRS> turn =
        load_turn<PAIRS>(a.cos + (size_t)token * (C / 2), a.sin + (size_t)token * (C / 2), C);
    if (w) norm_head(h, load_head<PAIRS>(w, C, a.pairing), C, a.eps);
    if (!is_v) turn_head(h, turn);
    E *cache =
        is_q ? NULL : (E *)(is_v ? t.kv.v_pool : t.kv.k_pool) + pool_index(t.kv, a.slot[token], kv_head);
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        int pair = lane + 32 * i;
        if (pair >= C / 2) break;
        int2 at = pair_at(pair, C / 2, a.pairing);
        if (!is_v) {
            x[at.x] = h.x[i].x;
            x[at.y] = h.x[i].y;
        }
        if (!is_q) {
            cache[at.x] = narrow<E>(h.x[i].x);
            cache[at.y] = narrow<E>(h.x[i].y);
        }
    }
}

extern "C" void op_rope_attention_cuda(const op_rope_attention_args *a, const cuda_context *cuda)
{
    const op_attention_args *t = &a->attention;
    if (t->T > t->R) {
        dim3 grid((unsigned)t->T, (unsigned)((t->H + 2 * t->kv.K + WARPS - 1) / WARPS));
        switch (t->kv.format) {
        case DTYPE_F32: launch(cuda, prepare_prompts<float>, grid, WARPS * 32, 0, *a); break;
        case DTYPE_F16: launch(cuda, prepare_prompts<__half>, grid, WARPS * 32, 0, *a); break;
        default: launch(cuda, prepare_prompts<__nv_bfloat16>, grid, WARPS * 32, 0, *a); break;
        }
        attention_of_prompts(t, cuda);
    }
    if (t->R > 1 || t->T == 1) attention_of_single_tokens(a, cuda);
}
