"""Writes tests/fixtures/gguf/: tiny GGUF files as llama.cpp's convert_hf_to_gguf.py would, with reference logits.

Called by make_family_fixtures.py (case name "gguf"). The models come from the same generator as the Hugging Face
fixtures, with a vocabulary of 288 so that a whole byte-level tokenizer fits. What the conversion changes:

* architecture llama: the rows of q_proj and k_proj are permuted per head from rotate-half order (i, i + C/2) to
  interleaved pairs (2i, 2i + 1); qwen2 and qwen3 keep their rows.
* llama3 RoPE scaling becomes a tensor rope_freqs.weight of divisors; linear and yarn become rope.scaling.* keys.
* norms and biases are always F32, matrices take the file's type; a tied head has no output.weight.
"""
import math
import shutil
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

import make_family_fixtures as families

FOLDER = families.FIXTURES / "gguf"
PROMPT_TOKENS = 32
VOCAB = 288
TYPES = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
              "bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def row(name, family, type_name, **kwargs):
    """A GGUF case: the row of the model it is made from, and the type of its matrices."""
    dtype = {"q8_0": "f32"}.get(type_name, type_name)
    return families.case(name, family, dtype, "old", V=VOCAB, **kwargs), type_name


CASES = [
    row("llama-llama3-f32", "llama", "f32", H=2, K=1, rope=families.LLAMA3, tied=True),
    row("qwen3-bf16", "qwen3", "bf16", C=16, theta=1000000.0, eps=1e-6),
    row("llama-linear-q8_0", "llama", "q8_0", D=64, H=8, K=4, F=96, rope={"type": "linear", "factor": 2.0}),
    row("qwen2-yarn-f16", "qwen2", "f16", D=48, H=3, K=1, theta=1000000.0, eps=1e-6, rope=YARN, tied=True),
]


def permute(rows, heads):
    """rotate-half order to interleaved pairs, per head."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def converted(c, name, array):
    """The array as it lies in the GGUF file, before its type is changed."""
    if c["family"] == "llama" and ".q_proj." in name:
        return permute(array, c["H"])
    if c["family"] == "llama" and ".k_proj." in name:
        return permute(array, c["K"])
    return array


def tensor_type(name, array, type_name):
    return TYPES["f32"] if array.ndim == 1 or "norm" in name else TYPES[type_name]


def stored_weights(weights, type_name):
    """The weights after a trip through the file's type, in Hugging Face order: what the reference computes with.
    Blocks of Q8_0 lie within a row, so the order of rows does not matter."""
    out = {}
    for name, tensor in weights.items():
        array = tensor.numpy()
        kind = tensor_type(name, array, type_name)
        out[name] = torch.from_numpy(dequantize(quantize(array, kind), kind).astype(np.float32).reshape(array.shape))
    return out


def llama3_divisors(c):
    """rope_freqs.weight: by what each of the C/2 frequencies is divided."""
    C = c["C"] or c["D"] // c["H"]
    s = c["rope"]
    old = s["original_max_position_embeddings"]
    out = []
    for i in range(0, C, 2):
        wavelength = 2 * math.pi * c["theta"] ** (i / C)
        if wavelength < old / s["high_freq_factor"]:
            out.append(1.0)
        elif wavelength > old / s["low_freq_factor"]:
            out.append(s["factor"])
        else:
            smooth = (old / wavelength - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            out.append(1 / ((1 - smooth) / s["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def spm_vocabulary():
    """tokens, scores, types of a tiny SentencePiece BPE: specials, 256 bytes, letters and a few merges."""
    pieces = ["he", "th", "in", "an", "▁a", "▁t", "the", "▁the", "and", "▁and", *"▁etaonisrhdlucmw.,g"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
    assert len(tokens) == VOCAB
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    T = gguf.TokenType
    types = [T.UNKNOWN, T.CONTROL, T.CONTROL] + [T.BYTE] * 256 + [T.NORMAL] * len(pieces)
    return tokens, scores, types


def byte_letters():
    """GPT-2's 256 printable stand-ins for bytes, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def bpe_vocabulary():
    """tokens, types, merges of a tiny byte-level BPE: 256 bytes, merges, control tokens, unused fillers."""
    pairs = ["h e", "t h", "i n", "Ġ a", "Ġ t", "Ġt he", "Ġa n", "Ġan d", "in g", "e r", "o n", "Ġ s", "Ġ w", "t o",
             "Ġ to", "Ġ Ġ", "ĠĠ ĠĠ", "1 2", "Ã ©", "Ċ Ċ"]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = byte_letters() + [p.replace(" ", "") for p in pairs] + control
    T = gguf.TokenType
    types = [T.NORMAL] * (len(tokens) - 3) + [T.CONTROL] * 3
    unused = VOCAB - len(tokens)
    return tokens + [f"[PAD{len(tokens) + i}]" for i in range(unused)], types + [T.UNUSED] * unused, pairs


def add_tokenizer(w, family):
    if family == "llama":
        tokens, scores, types = spm_vocabulary()
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list(tokens)
        w.add_token_scores(scores)
        w.add_token_types(types)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
        w.add_add_space_prefix(True)
    else:
        tokens, types, merges = bpe_vocabulary()
        end = tokens.index("<|endoftext|>")
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2")
        w.add_token_list(tokens)
        w.add_token_types(types)
        w.add_token_merges(merges)
        w.add_eos_token_id(end + 2)
        w.add_pad_token_id(end)
        w.add_bos_token_id(end)
        w.add_add_bos_token(False)
    w.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")


def add_parameters(w, c, type_name):
    """The keys that convert_hf_to_gguf.py writes for these architectures."""
    C = c["C"] or c["D"] // c["H"]
    w.add_type(gguf.GGUFType.MODEL)
    w.add_name(c["name"])
    w.add_block_count(c["L"])
    w.add_context_length(families.max_positions(c))
    w.add_embedding_length(c["D"])
    w.add_feed_forward_length(c["F"])
    w.add_head_count(c["H"])
    w.add_head_count_kv(c["K"])
    w.add_rope_freq_base(c["theta"])
    w.add_layer_norm_rms_eps(c["eps"])
    if c["C"]:
        w.add_key_length(C)
        w.add_value_length(C)
    w.add_file_type(FILE_TYPES[type_name])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if c["family"] == "llama":
        w.add_vocab_size(c["V"])
        w.add_rope_dimension_count(C)
    scaling = (c["rope"] or {}).get("type")
    if scaling == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(c["rope"]["factor"])
    elif scaling == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(c["rope"]["factor"])
        w.add_rope_scaling_orig_ctx_len(c["rope"]["original_max_position_embeddings"])


def add_tensors(w, c, weights, type_name):
    arch = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}[c["family"]]
    names = gguf.get_tensor_name_map(arch, c["L"])
    if (c["rope"] or {}).get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_divisors(c))
    for name, tensor in weights.items():
        array = converted(c, name, tensor.numpy())
        kind = tensor_type(name, array, type_name)
        w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")),
                     np.ascontiguousarray(quantize(array, kind)), raw_dtype=kind)


def write_gguf(path, c, weights, type_name):
    w = gguf.GGUFWriter(path, c["family"])
    add_parameters(w, c, type_name)
    add_tokenizer(w, c["family"])
    add_tensors(w, c, weights, type_name)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def build(c, type_name):
    weights = families.make_weights(c)
    write_gguf(FOLDER / f"{c['name']}.gguf", c, weights, type_name)
    folder = Path(tempfile.mkdtemp()) / c["name"]
    families.write_model(folder, {**c, "dtype": "f32"}, stored_weights(weights, type_name))
    prompt = families.random_prompt(c["name"], PROMPT_TOKENS, VOCAB)
    low = torch.float16 if type_name == "f16" else torch.bfloat16
    ref = families.reference(families.load(folder), lambda dtype: families.load(folder, dtype), prompt, low)
    shutil.rmtree(folder.parent)
    families.save_file(ref, FOLDER / f"{c['name']}.reference.safetensors")
    families.check_reference(c["name"], ref)


def build_all():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for c, type_name in CASES:
        build(c, type_name)
