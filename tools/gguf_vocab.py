#!/usr/bin/env python3
"""Writes a GGUF that has a tokenizer and no weights, as llama.cpp's converter makes it from a tokenizer.json.

    gguf_vocab.py TOKENIZER.json OUT.gguf [--pre NAME]

A byte-level BPE becomes tokenizer.ggml.model "gpt2" (tokens, merges, types, pre), a BPE with byte fallback "llama"
(tokens, scores by the order of the merges, types). Added tokens are CONTROL where they are special or look so, else
USER_DEFINED with plain spaces; holes become [PADn] of type UNUSED. Needs the `gguf` package.
"""
import argparse
import json
import sys

import gguf

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def looks_special(token):
    return (token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or (token.startswith("<|") and token.endswith("|>"))
            or (token.startswith("<\uff5c") and token.endswith("\uff5c>")) or token.startswith("<unused"))


def tokens_of(doc):
    vocab, added = doc["model"]["vocab"], doc["added_tokens"]
    size = max(list(vocab.values()) + [t["id"] for t in added]) + 1
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for token, i in vocab.items():
        is_byte = len(token) == 6 and token.startswith("<0x")
        tokens[i], types[i] = token, BYTE if is_byte else NORMAL
    for t in added:
        special = t["special"] or looks_special(t["content"])
        tokens[t["id"]] = t["content"] if special else t["content"].replace("\u2581", " ")
        types[t["id"]] = CONTROL if special else USER_DEFINED
    return tokens, types


def scores_of(doc, tokens):
    scores = {}
    for rank, m in enumerate(doc["model"]["merges"]):
        scores.setdefault("".join(m.split(" ")) if isinstance(m, str) else "".join(m), float(-rank))
    return [scores.get(t, -1e9) for t in tokens]


def write(path, doc, pre="default", **more):
    """`more`: bos_token_id, add_bos_token, add_space_prefix, ...: further keys of tokenizer.ggml."""
    model = doc["model"]
    tokens, types = tokens_of(doc)
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(64)
    w.add_embedding_length(8)
    w.add_block_count(1)
    w.add_feed_forward_length(8)
    w.add_head_count(1)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(tokens))
    if model.get("byte_fallback"):
        unk = model.get("unk_token")
        if unk in model["vocab"]:
            types[model["vocab"][unk]] = UNKNOWN
        w.add_tokenizer_model("llama")
        w.add_token_scores(scores_of(doc, tokens))
    else:
        w.add_tokenizer_model("gpt2")
        if pre:
            w.add_tokenizer_pre(pre)
        w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    w.add_token_list(tokens)
    w.add_token_types(types)
    for key, value in more.items():
        (w.add_bool if isinstance(value, bool) else w.add_uint32)(f"tokenizer.ggml.{key}", value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tokenizer")
    p.add_argument("out")
    p.add_argument("--pre", default="default")
    args = p.parse_args()
    with open(args.tokenizer, encoding="utf-8") as f:
        write(args.out, json.load(f), args.pre)


if __name__ == "__main__":
    sys.exit(main())
