"""Write a trained model as a Hugging Face folder: config, bf16 safetensors, tokenizer files, generation defaults."""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file

TEMPLATE = ("{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{%- endfor %}"
            "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}")


def export(model, c, tokenizer, out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    weights = {n: w.detach().to(torch.bfloat16).cpu().contiguous() for n, w in model.named_parameters()}
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    shutil.copy(tokenizer, out / "tokenizer.json")
    write_configs(c, out)


def write_configs(c, out):
    """The small files beside model.safetensors and tokenizer.json."""
    added = {t["content"]: t["id"] for t in json.loads((out / "tokenizer.json").read_text())["added_tokens"]}
    ends = [added["<|im_end|>"], added["<|endoftext|>"]]
    write = lambda name, value: (out / name).write_text(json.dumps(value, indent=2) + "\n")
    write("config.json", {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": c.vocab, "hidden_size": c.hidden, "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim, "intermediate_size": c.ffn,
        "max_position_embeddings": c.context, "rope_theta": c.theta, "rms_norm_eps": c.eps, "hidden_act": "silu", "attention_bias": False,
        "attention_dropout": 0.0, "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": None, "initializer_range": 0.02,
        "bos_token_id": None, "eos_token_id": ends[0], "pad_token_id": ends[1], "torch_dtype": "bfloat16", "use_cache": True})
    write("generation_config.json", {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 40, "eos_token_id": ends, "pad_token_id": ends[1],
                                     "max_new_tokens": 300})
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": c.context, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "unk_token": None, "add_bos_token": False, "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE,
        "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
                                 for t, i in added.items()}})
