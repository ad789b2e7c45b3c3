#!/usr/bin/env python3
"""Compares our tokenizer with the `tokenizers` package (or sentencepiece, for tokenizer.model).

    compare_tokenizers.py --driver BUILD/tok_driver [--count 20000] [--corpus FILE ...] TOKENIZER...
    compare_tokenizers.py --build BUILD ...      # compiles tools/tok_driver.c against BUILD's libraries first
    compare_tokenizers.py --gguf qwen2 ...       # as a GGUF with this pre-tokenizer's name (tools/gguf_vocab.py)
    compare_tokenizers.py --command 'nano-vllm tokenize --no-bos -m {}' --count 200 TOKENIZER...

TOKENIZER: tokenizer.json, tokenizer.json.xz, tokenizer.model, or a folder with one. Strings are seeded random
ones of many scripts, emoji, white space, controls, digits and special tokens, and cuts of the corpus files. For
each string: ids with special tokens as text and as tokens, and the text that the ids decode to, with and without
special tokens. --command runs a program per string instead, text on stdin, ids on stdout. Exit 1: differences.
"""
import argparse
import json
import lzma
import os
import random
import shlex
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PARSE_SPECIAL, SKIP_SPECIAL = 2, 4

SETS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    " \t\n\r",
    " \u00a0\u1680\u180e\u2003\u200b\u2028\u2029\u202f\u205f\u3000\ufeff\u0085\x0b\x0c\x1c\x1f",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "".join(map(chr, range(0x00, 0x20))) + "\x7f",
    "".join(map(chr, range(0xA0, 0x180))),
    "".join(map(chr, range(0x300, 0x370))) + "aeiouyn\u1100\u1161\u11a8",
    "".join(map(chr, range(0x370, 0x530))),
    "".join(map(chr, range(0x5D0, 0x5EB))) + "".join(map(chr, range(0x600, 0x6F0))),
    "".join(map(chr, range(0x900, 0x980))) + "".join(map(chr, range(0xE00, 0xE5C))),
    "".join(map(chr, range(0x3040, 0x3100))),
    "".join(map(chr, range(0x4E00, 0x4F80))) + "\u6211\u60f3\u5728\u7684\u4e0d\u662f\u3001\u3002\uff01\uff1f",
    "".join(map(chr, range(0xAC00, 0xAD00))),
    "\u00b2\u00bd\u0660\u06f5\u0966\u2167\u2460\u3007\uff11\U0001d7d8\u0bf0\u4e00",
    "\u2581\u00e9e\u0301\u212b\ufb01\u1e9b\u0323\uff21\u3300\u017f\u212a\u0130\u0131\ufdfa",
    ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd",
     "\u2764\ufe0f", "\U0001f999", "1\ufe0f\u20e3", "\U0001f636\u200d\U0001f32b\ufe0f", "\u200d", "\ufe0f"],
    ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'\u017f", "'", "''", "\u2019s"],
    ["the ", " of", "Hello", " world", "ing", "http://", "def f(x):\n    return x\n", "3.14", "1000000", "  ", "\n\n",
     "    ", "\r\n", "\t\t", "...", "!!!", "----", "<|", "|>", "<s", "</", "<0x0A>", "\u2581\u2581"],
    [chr(c) for c in list(range(0x10000, 0x10100)) + list(range(0x1D400, 0x1D500)) + list(range(0x20000, 0x20080))
     + [0xFFFD, 0xFFFE, 0xFFFF, 0x10FFFF, 0xE000, 0xFDD0]],
]


def random_strings(rng, count, special):
    sets = SETS + ([special] if special else [])
    weights = [6, 2, 4, 1, 2] + [1] * (len(SETS) - 5) + ([2] if special else [])
    out = []
    for _ in range(count):
        chosen = rng.choices(sets, weights, k=rng.randint(1, 4))
        parts = []
        for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
            kind = rng.choice(chosen)
            parts.append("".join(rng.choice(kind) for _ in range(rng.choice([1, 1, 2, 3, 5]))))
            if rng.random() < 0.3:
                parts.append(" ")
        out.append("".join(parts))
    for _ in range(count // 20):  # any code points at all
        out.append("".join(chr(c) for c in (rng.choice([rng.randrange(0x250), rng.randrange(0x3000),
                                                       rng.randrange(0x110000)]) for _ in range(12))
                           if not 0xD800 <= c < 0xE000))
    return out


def corpus_strings(rng, count, files):
    texts = [open(f, encoding="utf-8", errors="ignore").read(20_000_000) for f in files]
    out = []
    for _ in range(count if texts else 0):
        text = rng.choice(texts)
        at = rng.randrange(max(1, len(text) - 400))
        out.append(text[at:at + rng.choice([1, 10, 40, 100, 400])])
    return out


def run_driver(driver, path, flags, texts):
    data = b"".join(struct.pack("<I", len(b)) + b for b in (t.encode() for t in texts))
    done = subprocess.run([driver, path, str(flags)], input=data, stdout=subprocess.PIPE, check=True).stdout
    out, at = [], 0
    while at < len(done):
        (count,) = struct.unpack_from("<I", done, at)
        at += 4
        ids = None if count == 0xFFFFFFFF else list(struct.unpack_from(f"<{count}i", done, at))
        at += 4 * count if ids is not None else 0
        (count,) = struct.unpack_from("<I", done, at)
        out.append((ids, done[at + 4:at + 4 + count].decode()))
        at += 4 + count
    return out


def run_command(command, path, texts):
    line = shlex.split(command.replace("{}", shlex.quote(path)))
    out = []
    for text in texts:
        done = subprocess.run(line, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
        out.append(([int(i) for i in done.decode().replace(",", " ").strip("[] \n").split()], None))
    return out


class Json:
    """The oracle for tokenizer.json."""

    def __init__(self, path):
        from tokenizers import Tokenizer
        self.t = Tokenizer.from_file(path)
        self.t.no_truncation()
        self.t.no_padding()
        self.special = [t.content for t in self.t.get_added_tokens_decoder().values()]

    def encode(self, texts, flags):
        self.t.encode_special_tokens = not flags & PARSE_SPECIAL
        return [e.ids for e in self.t.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids, flags):
        return self.t.decode_batch(ids, skip_special_tokens=bool(flags & SKIP_SPECIAL))


class SentencePiece:
    """The oracle for tokenizer.model. Its decoding differs from transformers' by design and is not compared."""

    def __init__(self, path):
        import sentencepiece
        self.t = sentencepiece.SentencePieceProcessor(model_file=path)
        self.special = []

    def encode(self, texts, flags):
        return [self.t.encode(t) for t in texts]

    def decode(self, ids, flags):
        return None


def resolve(path, scratch):
    if os.path.isdir(path):
        for name in ("tokenizer.json", "tokenizer.json.xz", "tokenizer.model"):
            if os.path.exists(os.path.join(path, name)):
                return resolve(os.path.join(path, name), scratch)
    if path.endswith(".xz"):
        plain = os.path.join(scratch, os.path.basename(os.path.dirname(path)) + ".json")
        with open(plain, "wb") as f:
            f.write(lzma.open(path).read())
        return plain
    return path


def as_gguf(path, pre, scratch):
    """The GGUF, and the tokenizer.json with the types of tokens that it has."""
    import gguf_vocab
    out, plain = os.path.join(scratch, "vocab.gguf"), os.path.join(scratch, "typed.json")
    with open(path, encoding="utf-8") as f:
        doc = json.load(f)
    for token in doc["added_tokens"]:
        token["special"] = token["special"] or gguf_vocab.looks_special(token["content"])
    with open(plain, "w", encoding="utf-8") as f:
        json.dump(doc, f)
    gguf_vocab.write(out, doc, pre)
    return out, plain


def compare(args, path, shown, scratch):
    driven = path
    if args.gguf:
        driven, path = as_gguf(path, args.gguf, scratch)
    oracle = SentencePiece(path) if path.endswith(".model") else Json(path)
    rng = random.Random(args.seed)
    texts = random_strings(rng, args.count // 2, oracle.special) + corpus_strings(rng, args.count // 2, args.corpus)
    texts += random_strings(rng, max(0, args.count - len(texts)), oracle.special)
    runs = [0] if args.command or path.endswith(".model") else [0, PARSE_SPECIAL, PARSE_SPECIAL | SKIP_SPECIAL]
    if path.endswith(".model"):
        texts = [t for t in texts if "\0" not in t]  # the Python binding ends a text there
    bad_ids = bad_text = trips = 0
    for flags in runs:
        ours = run_command(args.command, driven, texts) if args.command else run_driver(args.driver, driven, flags, texts)
        theirs = oracle.encode(texts, flags)
        decoded = oracle.decode(theirs, flags)
        for i, text in enumerate(texts):
            same = ours[i][0] == theirs[i]
            same_text = decoded is None or ours[i][1] is None or not same or ours[i][1] == decoded[i]
            bad_ids += not same
            bad_text += not same_text
            trips += decoded is not None and decoded[i] == text
            if (not same or not same_text) and bad_ids + bad_text <= args.show:
                print(f"  flags {flags} {text!r}\n    ours   {ours[i]}\n    theirs {theirs[i]} "
                      f"{decoded[i] if decoded else ''!r}")
    print(f"{shown}: {len(texts)} strings x {len(runs)} runs, {bad_ids} differ in ids, {bad_text} in decoded text; "
          f"the reference gives {trips} back unchanged")
    return bad_ids + bad_text


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tokenizer", nargs="+")
    p.add_argument("--driver")
    p.add_argument("--build")
    p.add_argument("--command")
    p.add_argument("--gguf", metavar="PRE")
    p.add_argument("--count", type=int, default=20000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--show", type=int, default=5)
    p.add_argument("--corpus", nargs="*", default=[])
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.build:
            args.driver = os.path.join(scratch, "tok_driver")
            subprocess.run(["cc", "-O2", "-std=c11", f"-I{ROOT}/include", f"-I{ROOT}/src", f"{ROOT}/tools/tok_driver.c",
                            "-o", args.driver, f"{args.build}/libnvllm_api.a", f"{args.build}/libnvllm_text.a",
                            f"{args.build}/libnvllm_formats.a", f"{args.build}/libnvllm_base.a",
                            "-ljansson", "-lpcre2-8", "-lutf8proc", "-lpthread", "-lm"], check=True)
        if not args.driver and not args.command:
            p.error("one of --driver, --build, --command is needed")
        return 1 if sum(compare(args, resolve(t, scratch), t, scratch) for t in args.tokenizer) else 0


if __name__ == "__main__":
    sys.exit(main())
