#!/usr/bin/env python3
"""Makes tests/fixtures/tokenizers/*.json: tiny tokenizers with the ids and texts that the reference gives.

    make_tokenizer_fixtures.py [OUT]

Between them they use every normalizer, pre-tokenizer, model option, post-processor and decoder in scope. Each file
is {"tokenizer": tokenizer.json, "cases": [...], "decodes": [...]}:
    case    {text, plain, special, added}  ids with special tokens as text; as tokens; as tokens and added around
    decode  {ids, text, skipped}           the text of ids, with and without special tokens
Oracle: the `tokenizers` package. Fixed seeds; made with tokenizers 0.23.3.
"""
import json
import os
import random
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TEXT = ["the quick brown fox jumps over the lazy dog and the dog sleeps in the sun",
        "The Project was 12 days late, it cost 3400 coins; we don't know why... they'll say it's fine",
        "caf\u00e9 na\u00efve \u00fcber \u6211\u60f3\u4f60 \u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440"] * 3
CASES = ["", " ", "  ", "a", "the quick brown fox", " The dog's  12 days,\n\n cost 3400!", "don't they'll IT'S",
         "caf\u00e9 cafe\u0301 \uff26\uff55\uff4c\uff4c \ufb01n \u212b", "\u6211\u60f3\u4f60 \u043f\u0440\u0438\u0432\u0435\u0442",
         "tabs\tand\r\nlines \u00a0 x\u3000y \u2003 ", "\U0001f44d\U0001f3fd ok \U0001f468\u200d\U0001f469\u200d\U0001f467 z",
         "a.b,c;;d -- e!?", "1 22 333 4444 \u0663\u2167\u00bd x9y", "A-B_C d_e \u0130I \u00df\u03a3\u03c3\u03c2",
         "<s>the dog</s> <s>", " <pad>  the<mask>  dog [w] x[w] [w]y sun<s>", "\u2581the\u2581 \u2581dog", "xHELLOxxWORLDx",
         "   lead and trail   ", "\u0000nul\u0001 \u007f\u0085", "the  the   the    the", "qqqq\u00e9\u00e9zz \U0001f600\U0001f600 w"]


def trained_bpe(size, byte_level):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = (pre_tokenizers.ByteLevel(add_prefix_space=False) if byte_level
                       else pre_tokenizers.Metaspace())
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    t.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    return json.loads(t.to_str())["model"]


def special(i, content, **more):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True, **more}


def with_specials(model, byte_tokens=False):
    """Specials first, then the model's own vocabulary; <pad>, <mask> and [w] are added behind it."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    if byte_tokens:
        for b in range(256):
            vocab[f"<0x{b:02X}>"] = len(vocab)
    for token in sorted(model["vocab"], key=model["vocab"].get):
        vocab.setdefault(token, len(vocab))
    n = len(vocab)
    added = [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>"),
             special(n, "<pad>", lstrip=True, rstrip=True), special(n + 1, "<mask>", special=False, rstrip=True),
             special(n + 3, "[w]", special=False, single_word=True, normalized=True)]
    added[-1]["id"] = n + 2
    return {**model, "vocab": vocab}, added


def document(model, added, normalizer=None, pre=None, post=None, decoder=None):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}


def seq(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA3 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
          "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
TEMPLATE = {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                               "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def metaspace(scheme, do_split):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": do_split}


def llama_decoder(start=1, stop=0):
    return seq("decoders", {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
               {"type": "ByteFallback"}, {"type": "Fuse"},
               {"type": "Strip", "content": " ", "start": start, "stop": stop})


def fixtures():
    byte_model, byte_added = with_specials(trained_bpe(300, True))
    word_model, word_added = with_specials({**trained_bpe(120, False), "unk_token": "<unk>"})
    fall_model, fall_added = with_specials({**trained_bpe(120, False), "unk_token": "<unk>", "byte_fallback": True,
                                            "fuse_unk": True}, byte_tokens=True)
    some_bytes = {k: v for k, v in fall_model["vocab"].items() if not k.startswith("<0x") or k < "<0xD0>"}

    yield "gpt2", document(byte_model, byte_added, pre={**BYTE_LEVEL, "add_prefix_space": True}, post=BYTE_LEVEL,
                           decoder=BYTE_LEVEL)
    strings = {**byte_model, "ignore_merges": True, "merges": [" ".join(m) for m in byte_model["merges"]]}
    yield "llama3", document(strings, byte_added, pre=seq("pretokenizers", split(LLAMA3, "Isolated"),
                                                          {**BYTE_LEVEL, "use_regex": False}),
                             post=seq("processors", BYTE_LEVEL, TEMPLATE), decoder=BYTE_LEVEL)
    yield "qwen", document(byte_model, byte_added, normalizer={"type": "NFC"},
                           pre=seq("pretokenizers", {"type": "Digits", "individual_digits": True}, BYTE_LEVEL),
                           decoder=seq("decoders", BYTE_LEVEL, {"type": "Strip", "content": "e", "start": 1, "stop": 2}))
    yield "llama2", document(fall_model, fall_added, decoder=llama_decoder(), post=TEMPLATE,
                             normalizer=seq("normalizers", {"type": "Prepend", "prepend": "\u2581"},
                                            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}))
    yield "some_bytes", document({**fall_model, "vocab": some_bytes, "fuse_unk": False}, fall_added[:3],
                                 pre=metaspace("first", False), decoder=llama_decoder(2, 3))
    yield "no_unk", document({**word_model, "unk_token": None}, word_added, pre=metaspace("always", True))
    yield "fused_unk", document({**word_model, "fuse_unk": True}, word_added, pre=metaspace("never", True),
                                decoder=metaspace("never", True))

    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            pre = seq("pretokenizers", split("[aeiou\\s]", behavior, invert), metaspace("first", True))
            yield f"split_{behavior}_{'invert' if invert else 'plain'}".lower(), document(
                word_model, word_added, pre=pre, decoder=metaspace("first", True))
    yield "split_string", document(word_model, word_added, pre=seq(
        "pretokenizers", split("the", "MergedWithNext", kind="String"), split("(?=[A-Z])", "Isolated"),
        split("x*", "MergedWithPrevious"), metaspace("always", False)), decoder=metaspace("always", False))

    for behavior in ["Isolated", "MergedWithNext", "Contiguous"]:
        pre = seq("pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": behavior},
                  {"type": "Digits", "individual_digits": False})
        yield f"punctuation_{behavior}".lower(), document(word_model, word_added, pre=pre)
    yield "whitespace", document(word_model, word_added, pre={"type": "Whitespace"}, decoder=seq(
        "decoders", {"type": "Strip", "content": "e", "start": 1, "stop": 1},
        {"type": "Replace", "pattern": {"Regex": "[aeiou]+"}, "content": "<>"}))
    yield "nfkc_lower", document(word_model, word_added, normalizer=seq(
        "normalizers", {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}), pre=metaspace("first", True),
        decoder=seq("decoders", {"type": "Fuse"}, metaspace("always", True)))
    yield "strip_left", document(word_model, word_added, normalizer=seq(
        "normalizers", {"type": "Strip", "strip_left": True, "strip_right": False},
        {"type": "Replace", "pattern": {"String": "a"}, "content": ""}), pre=metaspace("first", False),
        decoder=seq("decoders", {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "e\u2581"}, "content": "#"}))

    rng = random.Random(5)
    for fallback in [False, True]:
        pieces = [(k, -1.0 - len(k) * 0.3 - rng.random() * 3) for k in word_model["vocab"]]
        pieces += [(f"<0x{b:02X}>", -20.0) for b in range(256)] if fallback else []
        model = {"type": "Unigram", "unk_id": 0, "vocab": [[k, round(s, 4)] for k, s in pieces],
                 "byte_fallback": fallback}
        added = [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")]
        yield f"unigram_{'bytes' if fallback else 'unk'}", document(
            model, added, pre=metaspace("always", True), post=TEMPLATE,
            decoder=llama_decoder() if fallback else metaspace("always", True))


def id_lists(rng, size):
    for _ in range(30):
        count = rng.choice([1, 2, 3, 8, 20])
        low, high = rng.choice([(0, size + 5), (0, size + 5), (3, min(259, size)), (0, 6)])
        yield [rng.randrange(low, high) for _ in range(count)]


def expected(doc):
    t = Tokenizer.from_str(json.dumps(doc))
    rng = random.Random(1)
    cases, decodes = [], []
    for text in CASES:
        case = {"text": text}
        t.encode_special_tokens = True
        case["plain"] = t.encode(text, add_special_tokens=False).ids
        t.encode_special_tokens = False
        case["special"] = t.encode(text, add_special_tokens=False).ids
        case["added"] = t.encode(text).ids
        cases.append(case)
    for ids in [c["special"] for c in cases] + list(id_lists(rng, t.get_vocab_size())):
        try:
            decodes.append({"ids": ids, "text": t.decode(ids, skip_special_tokens=False), "skipped": t.decode(ids)})
        except BaseException as e:  # the reference's Strip panics where there is less text than it may strip
            if "PanicException" not in type(e).__name__:
                raise
    return cases, decodes


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "tests", "fixtures", "tokenizers")
    os.makedirs(out, exist_ok=True)
    for name, doc in fixtures():
        cases, decodes = expected(doc)
        with open(os.path.join(out, name + ".json"), "w", encoding="utf-8") as f:
            f.write('{"tokenizer":' + json.dumps(doc, ensure_ascii=False, separators=(",", ":")) + ',\n"cases":[\n')
            f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + '],\n"decodes":[\n')
            f.write(",\n".join(json.dumps(d, separators=(",", ":")) for d in decodes) + "]}\n")


if __name__ == "__main__":
    main()
