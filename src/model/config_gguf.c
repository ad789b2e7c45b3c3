/* A GGUF's keys into model_config; see config.h. Key names and defaults are llama.cpp's. What a GGUF does not say in
 * keys is read from its tensors: the vocabulary, tied embeddings, biases, llama3 scaling (rope_freqs.weight).
 *
 * attention.sliding_window is not read: llama.cpp has no window for any architecture of ours, and its converter writes
 * none for them. Nothing in a GGUF says which layers it is for, or whether it is in use: Qwen's config.json has a
 * sliding_window that use_sliding_window turns off. */
#include "model/config.h"

#include "base/buffer.h"
#include "formats/gguf.h"
#include "model/config_rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE (1 << 30)

/* Reads "<arch>.<suffix>"; the first error stays. */
typedef struct {
    const gguf *file;
    const char *arch;
    char key[128];
    nvllm_error *err;
    nvllm_status status;
} key_reader;

static const char *key_of(key_reader *r, const char *suffix)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
    return r->key;
}

static bool has_key(key_reader *r, const char *suffix)
{
    return gguf_find(r->file, key_of(r, suffix)) != NULL;
}

static void key_fail(key_reader *r, nvllm_status code, const char *suffix, const char *what)
{
    if (!r->status)
        r->status = error_set(r->err, code, "%s: %s %s", gguf_path(r->file), key_of(r, suffix), what);
}

/* A size from 1 up to `high`; required. */
static void need_size(int32_t *out, key_reader *r, const char *suffix, int32_t high)
{
    uint32_t value = 0;
    if (!r->status) r->status = gguf_get_u32(&value, r->file, key_of(r, suffix), r->err);
    if (r->status) return;
    if (value == 0 || value > (uint32_t)high)
        r->status = error_set(r->err, NVLLM_ERR_FORMAT, "%s: %s %u is not in 1..%d", gguf_path(r->file),
                              r->key, value, high);
    else
        *out = (int32_t)value;
}

static void size(int32_t *out, key_reader *r, const char *suffix, int32_t high)
{
    if (has_key(r, suffix)) need_size(out, r, suffix, high);
}

static void positive(float *out, key_reader *r, const char *suffix, double low, double high)
{
    float value = *out;
    if (!r->status) r->status = gguf_optional_f32(&value, r->file, key_of(r, suffix), r->err);
    if (r->status || value == *out) return;
    if (!((double)value >= low && (double)value <= high))
        r->status = error_set(r->err, NVLLM_ERR_FORMAT, "%s: %s %g is not in %g..%g", gguf_path(r->file),
                              r->key, (double)value, low, high);
    else
        *out = value;
}

static bool has_tensor(const key_reader *r, const char *name)
{
    return gguf_tensor_find(r->file, name) != NULL;
}

/* Finds the family; r->arch is its GGUF name. */
static nvllm_status read_family(model_config *out, key_reader *r)
{
    gguf_string arch;
    size_t count;
    const family *rows = family_table(&count);
    nvllm_status st = gguf_get_string(&arch, r->file, "general.architecture", r->err);
    if (st) return st;
    buffer b = {0};
    for (size_t i = 0; i < count; i++) {
        if (!rows[i].gguf) continue;
        if (gguf_string_is(arch, rows[i].gguf)) out->family = &rows[i];
        buffer_printf(&b, "%s%s", b.len ? ", " : "", rows[i].gguf);
    }
    char *known = buffer_take(&b);
    if (!out->family)
        st = error_set(r->err, NVLLM_ERR_UNSUPPORTED,
                       "%s: general.architecture %.*s is not supported; supported are %s", gguf_path(r->file),
                       arch.len < 60 ? (int)arch.len : 60, arch.data, known ? known : "others");
    else
        r->arch = out->family->gguf;
    free(known);
    return st;
}

/* V is the rows of the embedding table, which the token list must agree with. */
static void read_vocabulary(model_config *out, key_reader *r)
{
    const tensor *table = gguf_tensor_find(r->file, "token_embd.weight");
    const gguf_entry *tokens = gguf_find(r->file, "tokenizer.ggml.tokens");
    bool listed = tokens && tokens->type == GGUF_ARRAY;
    int64_t rows = table && table->n_dims == 2 ? table->shape[0] : listed ? (int64_t)tokens->as.a.count : 0;
    if (r->status) return;
    if (rows < 1 || rows > MAX_SIZE)
        r->status = error_set(r->err, NVLLM_ERR_FORMAT,
                              "%s: neither token_embd.weight nor tokenizer.ggml.tokens "
                              "gives a vocabulary",
                              gguf_path(r->file));
    else if (listed && tokens->as.a.count != (size_t)rows)
        r->status = error_set(r->err, NVLLM_ERR_FORMAT,
                              "%s: tokenizer.ggml.tokens has %zu entries, token_embd.weight %lld rows",
                              gguf_path(r->file), tokens->as.a.count, (long long)rows);
    out->V = (int32_t)rows;
}

static void read_sizes(model_config *out, key_reader *r)
{
    need_size(&out->L, r, "block_count", CONFIG_MAX_LAYERS);
    need_size(&out->D, r, "embedding_length", 1 << 20);
    need_size(&out->F, r, "feed_forward_length", 1 << 20);
    need_size(&out->H, r, "attention.head_count", 1 << 14);
    need_size(&out->max_context, r, "context_length", MAX_SIZE);
    if (r->status) return;
    int32_t rotated = 0, value_dim = 0;
    out->K = out->H;
    size(&out->K, r, "attention.head_count_kv", 1 << 14);
    out->C = out->D % out->H ? 0 : out->D / out->H;
    size(&out->C, r, "attention.key_length", CONFIG_MAX_HEAD_DIM);
    value_dim = rotated = out->C;
    size(&value_dim, r, "attention.value_length", CONFIG_MAX_HEAD_DIM);
    if (out->C && value_dim != out->C)
        key_fail(r, NVLLM_ERR_UNSUPPORTED, "attention.value_length", "differs from the key length");
    size(&rotated, r, "rope.dimension_count", CONFIG_MAX_HEAD_DIM);
    if (out->C && rotated != out->C)
        key_fail(r, NVLLM_ERR_UNSUPPORTED, "rope.dimension_count",
                 "differs from the head dimension (partial rotation)");
    out->norm_eps = out->family->default_norm_eps;
    positive(&out->norm_eps, r, "attention.layer_norm_rms_epsilon", 1e-20, 1);
}

static void read_switches(model_config *out, key_reader *r)
{
    uint32_t experts = 0;
    out->tied = !has_tensor(r, "output.weight");
    out->qk_norm = out->family->qk_norm;
    out->q_bias = out->family->q_bias || has_tensor(r, "blk.0.attn_q.bias");
    out->o_bias = has_tensor(r, "blk.0.attn_output.bias");
    out->mlp_bias = has_tensor(r, "blk.0.ffn_gate.bias");
    if (!r->status) r->status = gguf_optional_u32(&experts, r->file, key_of(r, "expert_count"), r->err);
    if (experts)
        key_fail(r, NVLLM_ERR_UNSUPPORTED, "expert_count",
                 "is not zero: mixtures of experts are not supported");
    if (has_key(r, "attention.sliding_window_pattern"))
        key_fail(r, NVLLM_ERR_UNSUPPORTED, "attention.sliding_window_pattern", "is not supported");
    if (r->status) return;
    const tensor *q = gguf_tensor_find(r->file, "blk.0.attn_q.weight");
    out->type = q ? q->type : DTYPE_F32;
}

/* attention_factor: llama.cpp multiplies the paper's 0.1 ln(factor) + 1 by the file's attn_factor. */
static void read_yarn(rope_config *rope, key_reader *r)
{
    float attention = 1, extrapolation = 1;
    rope->scaling = ROPE_YARN;
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    positive(&rope->beta_fast, r, "rope.scaling.yarn_beta_fast", 1e-6, 1e6);
    positive(&rope->beta_slow, r, "rope.scaling.yarn_beta_slow", 1e-6, 1e6);
    positive(&attention, r, "rope.scaling.attn_factor", 1e-6, 1e6);
    positive(&attention, r, "rope.scaling.yarn_attn_factor", 1e-6, 1e6);
    positive(&extrapolation, r, "rope.scaling.yarn_ext_factor", 1, 1);
    if (has_key(r, "rope.scaling.yarn_log_multiplier"))
        key_fail(r, NVLLM_ERR_UNSUPPORTED, "rope.scaling.yarn_log_multiplier", "is not supported");
    rope->attention_factor = attention * (float)config_yarn_mscale((double)rope->factor, 1);
}

static void read_scaling(model_config *out, key_reader *r)
{
    gguf_string type = {"none", 4};
    rope_config *rope = &out->rope;
    if (has_key(r, "rope.scale_linear"))
        type = (gguf_string){"linear", 6}; /* before rope.scaling.* existed */
    positive(&rope->factor, r, "rope.scale_linear", 1e-6, 1e6);
    positive(&rope->factor, r, "rope.scaling.factor", 1e-6, 1e6);
    size(&rope->original_context, r, "rope.scaling.original_context_length", MAX_SIZE);
    if (!r->status) r->status = gguf_optional_string(&type, r->file, key_of(r, "rope.scaling.type"), r->err);
    if (r->status || gguf_string_is(type, "none")) return;
    if (gguf_string_is(type, "linear")) {
        rope->scaling = ROPE_LINEAR;
    } else if (gguf_string_is(type, "yarn")) {
        read_yarn(rope, r);
    } else {
        r->status =
            error_set(r->err, NVLLM_ERR_UNSUPPORTED, "%s: %s %.*s is not supported; none, linear, yarn are",
                      gguf_path(r->file), r->key, type.len < 60 ? (int)type.len : 60, type.data);
    }
}

/* rope_freqs.weight [C/2]: llama3 scaling, computed by the converter. */
static void read_divisors(model_config *out, key_reader *r)
{
    const tensor *t = gguf_tensor_find(r->file, "rope_freqs.weight");
    if (!t || r->status) return;
    const float *divisors = t->data;
    bool good = t->type == DTYPE_F32 && t->n_dims == 1 && t->shape[0] == out->C / 2;
    for (int32_t i = 0; good && i < out->C / 2; i++) good = isfinite(divisors[i]) && divisors[i] > 0;
    if (!good)
        r->status =
            error_set(r->err, NVLLM_ERR_FORMAT, "%s: tensor rope_freqs.weight is not %d positive F32 values",
                      t->file, out->C / 2);
    else
        out->rope.divisors = divisors;
}

static void read_rope(model_config *out, key_reader *r)
{
    out->rope = (rope_config){.scaling = ROPE_PLAIN,
                              .pairing = out->family->gguf_pairing,
                              .theta = 10000,
                              .factor = 1,
                              .attention_factor = 1,
                              .original_context = out->max_context,
                              .truncate = true};
    positive(&out->rope.theta, r, "rope.freq_base", 1.001, 1e15);
    read_scaling(out, r);
    read_divisors(out, r);
}

/* Tokens that end a turn or a text, by their strings, as in llama.cpp: the keys name one or two of them, where a
 * generation_config.json would list all, and old files name that of the base model. */
static void read_known_ends(model_config *out, key_reader *r)
{
    static const char *const known[] = {"<|eot_id|>",
                                        "<|eom_id|>",
                                        "<|im_end|>",
                                        "<|end|>",
                                        "<|endoftext|>",
                                        "<|end_of_text|>",
                                        "<end_of_turn>",
                                        "</s>",
                                        "<end_of_utterance>",
                                        "<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<\uFF5Cend\u2581of\u2581sentence\uFF5C>"};
    const gguf_entry *tokens = gguf_find(r->file, "tokenizer.ggml.tokens");
    if (!tokens || tokens->type != GGUF_ARRAY || tokens->as.a.type != GGUF_STRING) return;
    for (size_t id = 0; id < tokens->as.a.count && !r->status; id++) {
        const gguf_string token = tokens->as.a.strings[id];
        if (!token.len || !strchr("<[", token.data[0])) continue;
        for (size_t i = 0; i < sizeof known / sizeof *known && !r->status; i++)
            if (gguf_string_is(token, known[i]))
                r->status = config_add_eos(out, (int64_t)id, gguf_path(r->file), r->err);
    }
}

static void read_special_ids(model_config *out, key_reader *r)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    uint32_t id = UINT32_MAX; /* llama.cpp's "none" */
    if (!r->status) r->status = gguf_optional_u32(&id, r->file, "tokenizer.ggml.bos_token_id", r->err);
    out->bos = id < (uint32_t)out->V ? (int32_t)id : -1;
    for (size_t i = 0; !r->status && i < sizeof ends / sizeof *ends; i++) {
        if (!gguf_find(r->file, ends[i])) continue;
        r->status = gguf_get_u32(&id, r->file, ends[i], r->err);
        if (!r->status) r->status = config_add_eos(out, id, gguf_path(r->file), r->err);
    }
    read_known_ends(out, r);
}

nvllm_status config_read_gguf(model_config *out, const gguf *file, nvllm_error *err)
{
    *out = (model_config){0};
    key_reader r = {.file = file, .err = err};
    r.status = read_family(out, &r);
    if (r.status) return r.status;
    read_sizes(out, &r);
    read_vocabulary(out, &r);
    if (!r.status) read_switches(out, &r);
    if (!r.status) {
        char heads[64], kv_heads[64], hidden[64], head_dim[64];
        snprintf(heads, sizeof heads, "%s.attention.head_count", r.arch);
        snprintf(kv_heads, sizeof kv_heads, "%s.attention.head_count_kv", r.arch);
        snprintf(hidden, sizeof hidden, "%s.embedding_length", r.arch);
        snprintf(head_dim, sizeof head_dim, "%s.attention.key_length", r.arch);
        const config_keys keys = {heads, kv_heads, hidden, head_dim};
        r.status = config_check(out, gguf_path(file), &keys, err);
    }
    if (!r.status) read_rope(out, &r);
    if (!r.status) read_special_ids(out, &r);
    return r.status;
}
