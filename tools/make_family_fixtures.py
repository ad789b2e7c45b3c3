#!/usr/bin/env python3
"""Makes the tiny random models of every family, and what transformers computes with them.

Writes tests/fixtures/families/<name>/ (a Hugging Face folder and reference.safetensors) for each row of CASES, and
tests/fixtures/gguf/ through gguf_fixtures.py. tests/fixtures/families/README.md explains the contents.

    python tools/make_family_fixtures.py            rebuild everything
    python tools/make_family_fixtures.py NAME...    rebuild these cases only

Needs torch, transformers 5, safetensors, gguf. Weights come from numpy's PCG64 seeded with the case's name and are
the same on every machine; logits may differ in their last bits between CPUs, far below the tests' bounds.

Every reference is read back from the written folder by transformers, never taken from the model that wrote it, so a
config.json that transformers reads otherwise than we meant is caught by the checks in check_case().
"""
import json
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import safetensors.torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
PROMPT_TOKENS = 80  # longer than every window and every original_max_position_embeddings below
GREEDY_PROMPT = 16   # the greedy continuation starts from this many prompt tokens
GREEDY_TOKENS = 64
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
DTYPE_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
                 "mistral": "MistralForCausalLM", "ernie4_5": "Ernie4_5ForCausalLM"}
OPTIONAL_ROPE_KEYS = {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
K_NORM_PEAK = 96.5   # the largest k_norm weight seen in the released Qwen3 models


def case(name, family, dtype, style, *, D=32, H=4, K=2, C=None, F=48, L=2, V=96, theta=10000.0, rope=None, eps=1e-5,
         tied=False, config=None, drop=(), shards=1, layers=False, eos=2, extra=(), checks=()):
    """One row. `style`: how config.json spells RoPE and dtype ("old": rope_theta, rope_scaling, torch_dtype; "new":
    transformers 5's rope_parameters, dtype). `C` None: no head_dim in config.json. `rope`: scaling parameters.
    `config`: further fields; `drop`: fields left out, so that the family's default is needed. `layers`: keep the
    residual stream after each layer. `extra`: tensors a reader must tolerate. `checks`: what check_case() proves."""
    return dict(name=name, family=family, dtype=dtype, style=style, D=D, H=H, K=K, C=C, F=F, L=L, V=V, theta=theta,
                rope=rope, eps=eps, tied=tied, config=config or {}, drop=drop, shards=shards, layers=layers, eos=eos,
                extra=extra, checks=checks)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}

CASES = [
    case("llama-mha-f32", "llama", "f32", "old", K=4, eps=1e-6, drop=("rope_theta", "num_key_value_heads"),
         extra=("inv_freq",)),
    case("llama-gqa2-f32", "llama", "f32", "new", theta=500000.0, L=3, layers=True),
    case("llama-gqa8-llama3-bf16", "llama", "bf16", "old", D=64, H=8, K=1, theta=500000.0, tied=True, rope=LLAMA3,
         eos=[2, 5, 7], checks=("rope",)),
    case("llama-llama3-f32", "llama", "f32", "new", H=2, K=1, C=16, rope=LLAMA3, shards=2,
         checks=("rope",)),
    case("llama-linear-f32", "llama", "f32", "old", H=2, rope={"type": "linear", "factor": 4.0},
         config={"head_dim": None}, checks=("rope",)),
    case("llama-yarn-f32", "llama", "f32", "old", H=2, C=16,
         rope={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, checks=("rope",)),
    case("llama-yarn-mscale-bf16", "llama", "bf16", "new", D=48, H=3, K=1, C=16, theta=500000.0, L=3,
         rope={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "beta_fast": 2.0,
               "beta_slow": 0.1, "mscale": 0.707, "mscale_all_dim": 1.0, "truncate": False}, checks=("rope",)),
    case("llama-bias-f32", "llama", "f32", "new", eps=1e-3, config={"attention_bias": True, "mlp_bias": True}),
    case("llama-head-dim-f16", "llama", "f16", "old", D=48, C=16, theta=500000, tied=True),

    case("qwen2-tied-bf16", "qwen2", "bf16", "old", D=48, H=6, V=112, theta=1000000.0, eps=1e-6, tied=True,
         config={"sliding_window": 16, "use_sliding_window": False, "max_window_layers": 1}, extra=("lm_head",),
         checks=("no_window",)),
    case("qwen2-untied-f32", "qwen2", "f32", "new", theta=1000000.0, eps=1e-6, layers=True),
    case("qwen2-window-f32", "qwen2", "f32", "old", L=3, eps=1e-6,
         config={"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, checks=("window",)),
    case("qwen2-window-bf16", "qwen2", "bf16", "new", D=48, H=6, K=3, L=3, theta=1000000.0, eps=1e-6, shards=3,
         config={"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 2,
                 "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, checks=("window",)),
    case("qwen2-yarn-f16", "qwen2", "f16", "old", D=48, H=3, K=1, theta=1000000.0, eps=1e-6,
         rope={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 1.25},
         checks=("rope",)),

    case("qwen3-tied-bf16", "qwen3", "bf16", "old", D=48, C=32, V=112, theta=1000000, eps=1e-6, tied=True,
         config={"sliding_window": None, "use_sliding_window": False, "max_window_layers": 2}, extra=("lm_head",)),
    case("qwen3-untied-f32", "qwen3", "f32", "new", C=16, theta=1000000.0, eps=1e-6, layers=True),
    case("qwen3-gqa8-bf16", "qwen3", "bf16", "new", D=48, H=8, K=1, C=16, theta=1000000.0, eps=1e-6),
    case("qwen3-mha-bias-f32", "qwen3", "f32", "old", H=2, K=2, C=24, theta=1000000.0, eps=1e-6, tied=True,
         config={"attention_bias": True}),
    case("qwen3-window-f32", "qwen3", "f32", "new", C=16, theta=1000000.0, eps=1e-6, tied=True,
         config={"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, checks=("window",)),

    case("mistral-window-f32", "mistral", "f32", "old", L=3, config={"sliding_window": 16}, layers=True,
         checks=("window",)),
    case("mistral-full-bf16", "mistral", "bf16", "old", D=48, H=6, theta=1000000.0, config={"sliding_window": None},
         shards=2, checks=("no_window",)),
    case("mistral-window-bf16", "mistral", "bf16", "new", D=48, H=4, K=1, C=24, theta=1000000.0,
         config={"sliding_window": 24}, checks=("window",)),

    case("ernie-tied-f32", "ernie4_5", "f32", "old", C=16, theta=500000, tied=True, layers=True,
         config={"use_bias": False, "architectures": ["Ernie4_5_ForCausalLM"]}),
    case("ernie-bias-f32", "ernie4_5", "f32", "new", C=8, theta=500000.0, config={"use_bias": True}),
    case("ernie-gqa8-bf16", "ernie4_5", "bf16", "old", D=48, H=8, K=1, C=16, theta=500000.0, tied=True,
         config={"use_bias": False}, drop=("tie_word_embeddings", "rope_theta")),
]


def rope_fields(c):
    """RoPE and dtype as old checkpoints and as transformers 5 spell them."""
    if c["style"] == "old":
        return {"rope_theta": c["theta"], "rope_scaling": c["rope"], "torch_dtype": DTYPE_NAMES[c["dtype"]]}
    rope = {"rope_theta": c["theta"], **(c["rope"] or {"rope_type": "default"})}
    return {"rope_parameters": rope, "dtype": DTYPE_NAMES[c["dtype"]]}


def max_positions(c):
    rope = c["rope"] or {}
    return int(rope.get("factor", 1) * rope.get("original_max_position_embeddings", 256))


def make_config(c):
    """The dict that becomes config.json."""
    config = {"architectures": [ARCHITECTURES[c["family"]]], "bos_token_id": 1, "eos_token_id": c["eos"],
              "hidden_act": "silu", "hidden_size": c["D"], "intermediate_size": c["F"],
              "max_position_embeddings": max_positions(c), "model_type": c["family"], "num_attention_heads": c["H"],
              "num_hidden_layers": c["L"], "num_key_value_heads": c["K"], "rms_norm_eps": c["eps"],
              "tie_word_embeddings": c["tied"], "use_cache": True, "vocab_size": c["V"], **rope_fields(c)}
    if c["C"] is not None:
        config["head_dim"] = c["C"]
    config.update(c["config"])
    return {k: v for k, v in sorted(config.items()) if k not in c["drop"]}


def biases(c):
    """Which projections carry a bias: (q/k/v, o, mlp)."""
    attention = c["config"].get("attention_bias", False)
    if c["family"] == "qwen2":
        return True, False, False
    if c["family"] == "ernie4_5":
        return (c["config"].get("use_bias", False),) * 3
    return attention, attention, c["config"].get("mlp_bias", False)


def make_weights(c):
    """name -> float32 tensor. Scales are chosen so that attention scores have a standard deviation of about 2 (clearly
    not uniform, not one-hot) and logits spread over several units."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(c["name"].encode())))
    D, H, K, F = c["D"], c["H"], c["K"], c["F"]
    C = c["C"] or D // H
    w = {}

    def normal(name, shape, std):
        w[name] = rng.standard_normal(shape) * std

    def linear(name, rows, cols, gain, bias):
        normal(name + ".weight", (rows, cols), gain / np.sqrt(cols))
        if bias:
            normal(name + ".bias", rows, 0.5)

    def norm(name, n, low=0.4, high=1.8):
        w[name + ".weight"] = rng.uniform(low, high, n)

    def q_k_norms(p, C):
        # As in the released models: one K channel is very large, and Q is small in the RoPE pair that meets it.
        norm(p + "self_attn.q_norm", C, 0.1, 0.8)
        norm(p + "self_attn.k_norm", C, 0.5, 5.0)
        peak = int(rng.integers(C))
        w[p + "self_attn.k_norm.weight"][peak] = K_NORM_PEAK
        w[p + "self_attn.q_norm.weight"][[peak, (peak + C // 2) % C]] *= 0.08

    qkv_bias, o_bias, mlp_bias = biases(c)
    normal("model.embed_tokens.weight", (c["V"], D), 2.2 / np.sqrt(D) if c["tied"] else 1.0)
    for layer in range(c["L"]):
        p = f"model.layers.{layer}."
        norm(p + "input_layernorm", D)
        linear(p + "self_attn.q_proj", H * C, D, 1.2, qkv_bias)
        linear(p + "self_attn.k_proj", K * C, D, 1.2, qkv_bias)
        linear(p + "self_attn.v_proj", K * C, D, 1.2, qkv_bias)
        linear(p + "self_attn.o_proj", D, H * C, 1.5, o_bias)
        if c["family"] == "qwen3":
            q_k_norms(p, C)
        norm(p + "post_attention_layernorm", D)
        linear(p + "mlp.gate_proj", F, D, 1.2, mlp_bias)
        linear(p + "mlp.up_proj", F, D, 1.2, mlp_bias)
        linear(p + "mlp.down_proj", D, F, 1.5, mlp_bias)
    norm("model.norm", D)
    if not c["tied"]:
        normal("lm_head.weight", (c["V"], D), 2.2 / np.sqrt(D))
    return {k: torch.from_numpy(v.astype(np.float32)) for k, v in w.items()}


def add_extras(c, weights):
    """Tensors found in real checkpoints that change nothing: a stored copy of the tied head, old Llama's inv_freq."""
    if "lm_head" in c["extra"]:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    if "inv_freq" in c["extra"]:
        for layer in range(c["L"]):
            C = c["C"] or c["D"] // c["H"]
            weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = 1.0 / 10000.0 ** (
                torch.arange(0, C, 2).float() / C)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def save_file(tensors, path, metadata=None):
    """safetensors' own function makes files that only the owner can read."""
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)


def write_shards(folder, tensors, shards):
    """model.safetensors, or `shards` files of about equal tensor counts and their index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = list(tensors), {}
    for i, part in enumerate(np.array_split(np.arange(len(names)), shards)):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({names[j]: tensors[names[j]] for j in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({names[j]: file for j in part})
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))})


def write_model(folder, c, weights):
    """The Hugging Face folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", make_config(c))
    if isinstance(c["eos"], list):
        write_json(folder / "generation_config.json",
                   {"bos_token_id": 1, "do_sample": False, "eos_token_id": c["eos"], "temperature": 0.7, "top_p": 0.9})
    tensors = dict(weights)
    add_extras(c, tensors)
    write_shards(folder, {k: v.to(DTYPES[c["dtype"]]) for k, v in tensors.items()}, c["shards"])


def load(folder, dtype=torch.float32, **overrides):
    """The folder as transformers reads it; stored weights are converted to `dtype`. RoPE frequencies stay float32 (a
    later model.to(bfloat16) would round them and make the low-precision run look far worse than it is)."""
    config = AutoConfig.from_pretrained(folder)
    for key, value in overrides.items():
        setattr(config, key, value)
    model, report = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, output_loading_info=True,
                                                         attn_implementation="eager")
    strangers = [k for k in report["unexpected_keys"] if not k.endswith("inv_freq")]
    assert not report["missing_keys"] and not report["mismatched_keys"] and not strangers, f"{folder}: {report}"
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32 and model.dtype == dtype
    return model.eval()


@torch.no_grad()
def logits_of(model, ids):
    """[T, V] float64 logits of all positions, no cache."""
    return model(torch.tensor([ids]), use_cache=False).logits[0].double()


@torch.no_grad()
def layers_of(model, ids):
    """The residual stream after each layer, [T, D] each."""
    kept = []
    hooks = [layer.register_forward_hook(
        lambda _m, _i, out: kept.append((out[0] if isinstance(out, tuple) else out).reshape(len(ids), -1).clone()))
        for layer in model.model.layers]
    model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return {f"layer.{i}": h.contiguous() for i, h in enumerate(kept)}


def greedy_of(model, prompt):
    """GREEDY_TOKENS argmax tokens and the gap between the best two logits at each step; EOS does not stop it."""
    ids, gaps = list(prompt), []
    for _ in range(GREEDY_TOKENS):
        top = logits_of(model, ids)[-1].topk(2)
        ids.append(int(top.indices[0]))
        gaps.append(float(top.values[0] - top.values[1]))
    return ids[len(prompt):], gaps


def relative_error(a, b):
    return float((a - b).abs().max() / b.abs().max())


def reference(model, load_as, prompt, low_dtype, keep_layers=False):
    """Tensors of reference.safetensors; `load_as(dtype)` gives the same model in another precision."""
    logits = logits_of(model, prompt)
    ids, gaps = greedy_of(model, prompt[:GREEDY_PROMPT])
    out = {"prompt": torch.tensor(prompt, dtype=torch.int32), "logits": logits.float(),
           "greedy": torch.tensor(ids, dtype=torch.int32), "greedy_gap": torch.tensor(gaps),
           "bf16_error": torch.tensor([relative_error(logits_of(load_as(low_dtype), prompt), logits)]),
           "f32_error": torch.tensor([relative_error(logits_of(load_as(torch.float64), prompt), logits)])}
    if keep_layers:
        out.update(layers_of(model, prompt))
    return out


def check_case(c, folder, logits, prompt):
    """Fails unless the feature that the case is there for changes the reference, and only where it should."""
    if "rope" in c["checks"]:
        plain = logits_of(load(folder, rope_parameters={"rope_theta": c["theta"], "rope_type": "default"}), prompt)
        assert relative_error(plain, logits) > 0.02, f"{c['name']}: RoPE scaling has no effect"
        rope = load(folder).config.rope_parameters
        for key in set(rope) & OPTIONAL_ROPE_KEYS:
            without = logits_of(load(folder, rope_parameters={k: v for k, v in rope.items() if k != key}), prompt)
            assert relative_error(without, logits) > 0.005, f"{c['name']}: {key} has no effect"
    if "window" in c["checks"]:
        window = c["config"]["sliding_window"]
        full = logits_of(load(folder, sliding_window=None, layer_types=["full_attention"] * c["L"]), prompt)
        assert relative_error(full[:window], logits[:window]) < 1e-6, f"{c['name']}: window acts too early"
        assert relative_error(full[window:window + 1], logits[window:window + 1]) > 1e-4, f"{c['name']}: window too long"
        assert relative_error(full, logits) > 0.02, f"{c['name']}: window has no effect"
    if "no_window" in c["checks"]:
        full = logits_of(load(folder, sliding_window=None), prompt)
        assert torch.equal(full, logits), f"{c['name']}: a window is active"


def check_reference(name, ref):
    """The bounds of the tests must be meaningful: float32 noise far below 1e-5, clear winners, non-trivial text."""
    scale = float(ref["logits"].abs().max())
    top = ref["logits"].topk(2, dim=-1).values
    clear = float(((top[:, 0] - top[:, 1]) > 0.01 * scale).float().mean())
    gap = float(ref["greedy_gap"].min()) / scale
    distinct = len(set(ref["greedy"].tolist()))
    print(f"{name:24s} max|logit| {scale:6.2f}  f32 error {float(ref['f32_error'][0]):.1e}  low-precision error "
          f"{float(ref['bf16_error'][0]):.1e}  smallest greedy gap {gap:.1e}  clear {clear:.2f}  distinct {distinct}")
    assert float(ref["f32_error"][0]) < 3e-6, f"{name}: ill-conditioned"
    assert gap > 5e-5, f"{name}: a near-tie in float32"
    assert clear > 0.7 and distinct > 4, f"{name}: degenerate"


def random_prompt(name, n, V):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + 1))
    return [1] + rng.integers(3, V, n - 1).tolist()


def build(c):
    folder = FIXTURES / "families" / c["name"]
    write_model(folder, c, make_weights(c))
    prompt = random_prompt(c["name"], PROMPT_TOKENS, c["V"])
    low = torch.float16 if c["dtype"] == "f16" else torch.bfloat16
    ref = reference(load(folder), lambda dtype: load(folder, dtype), prompt, low, c["layers"])
    check_case(c, folder, ref["logits"].double(), prompt)
    save_file(ref, folder / "reference.safetensors")
    check_reference(c["name"], ref)


def main(names):
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    unknown = set(names) - {c["name"] for c in CASES} - {"gguf"}
    if unknown:
        sys.exit(f"unknown case {', '.join(sorted(unknown))}; known: {' '.join(c['name'] for c in CASES)} gguf")
    for c in CASES:
        if not names or c["name"] in names:
            build(c)
    if not names or "gguf" in names:
        import gguf_fixtures
        gguf_fixtures.build_all()


if __name__ == "__main__":
    main(sys.argv[1:])
