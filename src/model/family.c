/* The table of families; see family.h. Defaults and window rules are those of transformers' configuration classes;
 * GGUF pairings are llama.cpp's rope types of these architectures. */
#include "model/family.h"

#include <string.h>

static const family families[] = {
    {.architecture = "LlamaForCausalLM",
     .model_type = "llama",
     .gguf = "llama",
     .pairing = ROPE_HALVES,
     .gguf_pairing = ROPE_PAIRS,
     .bias_key = "attention_bias",
     .o_bias_key = "attention_bias",
     .mlp_bias_key = "mlp_bias",
     .default_bos = 1,
     .default_eos = 2,
     .default_theta = 10000,
     .default_norm_eps = 1e-6f},
    {.architecture = "MistralForCausalLM",
     .model_type = "mistral",
     .pairing = ROPE_HALVES,
     .gguf_pairing = ROPE_PAIRS,
     .window = WINDOW_ALL,
     .default_kv_heads = 8,
     .default_window = 4096,
     .default_bos = 1,
     .default_eos = 2,
     .default_theta = 10000,
     .default_norm_eps = 1e-6f},
    {.architecture = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .gguf = "qwen2",
     .pairing = ROPE_HALVES,
     .gguf_pairing = ROPE_HALVES,
     .q_bias = true,
     .window = WINDOW_LAYERS,
     .default_kv_heads = 32,
     .default_window = 4096,
     .default_theta = 10000,
     .default_norm_eps = 1e-6f},
    {.architecture = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .gguf = "qwen3",
     .pairing = ROPE_HALVES,
     .gguf_pairing = ROPE_HALVES,
     .qk_norm = true,
     .bias_key = "attention_bias",
     .o_bias_key = "attention_bias",
     .window = WINDOW_LAYERS,
     .default_head_dim = 128,
     .default_kv_heads = 32,
     .default_window = 4096,
     .default_theta = 10000,
     .default_norm_eps = 1e-6f},
    {.architecture = "Ernie4_5ForCausalLM",
     .architecture_alias = "Ernie4_5_ForCausalLM",
     .model_type = "ernie4_5",
     .gguf = "ernie4_5",
     .pairing = ROPE_PAIRS,
     .gguf_pairing = ROPE_PAIRS,
     .bias_key = "use_bias",
     .o_bias_key = "use_bias",
     .mlp_bias_key = "use_bias",
     .default_head_dim = 128,
     .default_kv_heads = 2,
     .default_bos = 1,
     .default_eos = 2,
     .default_theta = 500000,
     .default_norm_eps = 1e-5f,
     .default_tied = true},
};

#define FAMILIES (sizeof families / sizeof *families)

static bool same(const char *a, const char *b)
{
    return a && b && !strcmp(a, b);
}

const family *family_by_architecture(const char *architecture, const char *model_type)
{
    for (size_t i = 0; i < FAMILIES; i++) {
        const family *f = &families[i];
        if (architecture ? same(architecture, f->architecture) || same(architecture, f->architecture_alias)
                         : same(model_type, f->model_type))
            return f;
    }
    return NULL;
}

const family *family_by_gguf(const char *architecture)
{
    for (size_t i = 0; i < FAMILIES; i++)
        if (same(architecture, families[i].gguf)) return &families[i];
    return NULL;
}

const family *family_table(size_t *count)
{
    *count = FAMILIES;
    return families;
}
