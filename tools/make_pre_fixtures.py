#!/usr/bin/env python3
"""Makes tests/fixtures/gguf-pre/pre.json: what the named pre-tokenizers of GGUF files cut texts into.

    make_pre_fixtures.py [OUT]

One byte-level vocabulary of our own, trained without any cutting so that its merges cross every place where a scheme
may cut, and for each scheme its names and the ids of all texts:
    {"tokens": [...], "merges": [...], "texts": [...], "schemes": [{"names": [...], "bos": bool, "ids": [[...]]}]}
Oracle: the `tokenizers` package with the regular expressions of the models' tokenizer.json, where llama.cpp
(src/llama-vocab.cpp) quotes them or has no others; its names and flags. Made with tokenizers 0.23.3.
"""
import json
import os
import sys

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

TEXTS = [
    "", " ", "Hello world, the quick brown fox!", "  two  spaces   and\ttab\t\tx \u00a0 y\u3000z ",
    "line one\nline two\r\n\r\n\n  indented\n\t\n end\n", "I'm you're he'll WE'LL it's IT'S 'tis d'd 'Re x'y 's",
    "1 12 123 1234 12345 1234567  42 3.14 1,000,000 x1y22z333 99 bottles\n7", "\u0661\u0662\u0663\u0664 \u00b2\u00bd \u2167\u2460 \uff11\uff12\uff13\uff14",
    "def f(x):\n    return {'a': x+1} // 2  # ok?\n\n\nclass A_B:\n\tpass\n", "http://a.b/c?d=e&f=g#h  a//b /* c */ -> => <= $5 ^~`|\\",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u662f2024\u5e74\u3002\u3053\u3093\u306b\u3061\u306f\u30ab\u30bf\u30ab\u30ca \uc548\ub155\ud558\uc138\uc694 \u3105\u3106 \u3131\u3134",
    "caf\u00e9 na\u00efve cafe\u0301 A\u030angstr\u00f6m E\u0301COLE \u00c9cole \u212b \u0130stanbul",
    "camelCase PascalCase HTTPServer XMLHttpRequest iPhone USA's McDonald's \u041f\u0440\u0438\u0432\u0435\u0442 \u041c\u0418\u0420 \u043c\u0438\u0440\u0443\u041c\u0438\u0440",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok\U0001f44d\U0001f3fd! \u2764\ufe0f\u2764\ufe0f 1\ufe0f\u20e3 \u2026 \u201cquoted\u201d \u2018so\u2019 \u2014 end",
    "wait...what?! (no) [yes] {maybe} !!bang @user #tag $x %y &z *w a|b a.b,c;d:e \u3002\u060c\u06d4\u0964 \u00a1hola!\n\n!",
    "\u4e2d\u6587abc\u4e2d\u6587abc \u4e2d\u6587abc, \ud55c\u4e2d\u6587\u30c6\u30b9\u30c8x \ud55c\u4e2d\u6587\u30c6\u30b9\u30c8x.",
    " a bc d ef\u0301g h", "Ankara'dan, Bursa'dan; Konya'dan! o'dan: \u0130zmir'den", "<sentinel:12> IMGIMGABCZ IMGIMGAZ <sentinel:x>", "zebra zebras a zebra\nzebra",
    "x" + " " * 20 + "y" + " " * 7 + "\n" + " " * 3 + "z" + "\n" * 5 + "w" + " " * 4,
    "\u200b\ufeff\u2028\u2029 \u0085a\x0bb\x0cc \x1c\x1d\x00\x01\x7f", "\u02bcx \u01c5\u01c8 \u2c7c\u2c7d \u1d2c\u1d6a \u10a0\u10d0 \u13a0\uab70 \U0001e900\U0001e922 \U00010400\U00010428",
]

S = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
PUNCT = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = S + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + PUNCT + END
QWEN2 = S + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + PUNCT + END
UP, LOW, LEAD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[^\r\n\p{L}\p{N}]?"


def cased(ending, numbers):
    return (f"{LEAD}{UP}*{LOW}+{ending}|{LEAD}{UP}+{LOW}*{ending}|{numbers}" + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END)


CJK_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
CJK_MORE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
MARKED = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943")
SENTENCE = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

# names; regular expressions; flags: m ignore_merges, n NFC, b BOS where the file does not say
SCHEMES = [
    ("default", [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ""),
    ("gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert jina-es jina-de "
     "jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe", [GPT2], ""),
    ("starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", [r"\p{N}", GPT2], ""),
    ("falcon", [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], ""),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", [LLAMA3], "mb"),
    ("smaug-bpe dbrx chatglm-bpe", [LLAMA3], ""),
    ("glm4 glm5", [LLAMA3], "m"),
    ("minicpm5", [r"\p{N}{1,3}", LLAMA3.replace("{1,3}", "+")], "m"),
    ("qwen2 deepseek-r1-qwen f2llmv2", [QWEN2], "n"),
    ("stablelm2 hunyuan solar-open grok-2 kormo megrez", [QWEN2], ""),
    ("qwen35", [S + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + END], "n"),
    ("ufakzeka", [QWEN2[len(S) + 1:]], ""),
    ("laguna", [r"[^\n]+|[\n]+", QWEN2], ""),
    ("seed-coder", [S + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + END], ""),
    ("bailingmoe bailingmoe2 llada-moe",
     [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"], ""),
    ("exaone-moe", [S + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"
                    r"|\s*[\r\n]|\s+(?!\S)|\s+"], ""),
    ("jais-2", [S + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + PUNCT + r"|\s*[\r\n]+"
                + "".join(rf"|\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
                + r"|\s{1}"], ""),
    ("tekken", [cased("", r"\p{N}")], "mb"),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", [cased(S + "?", r"\p{N}{1,3}")], ""),
    ("granite-embed-multi-97m", [cased(S + "?", r"\p{N}{1,3}")], "m"),
    ("youtu", ["[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c"
               "\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|" + CJK_KANA, cased(S + "?", r"\p{N}")], "m"),
    ("deepseek-llm", ["[\r\n]", rf"\s?[{CASED_LETTERS}]+",
                      "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", CJK_MORE,
                      r"\p{N}+"], ""),
    ("deepseek-coder", ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK_MORE, r"\p{N}"], ""),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     [r"\p{N}{1,3}", CJK_KANA, MARKED + r"| ?[\p{P}\p{S}]+[\r\n]*" + END], ""),
    ("spark2_5", [r"\p{N}{1,3}", CJK_KANA, MARKED + r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"], ""),
    ("poro-chat bloom gpt3-finnish", [SENTENCE], ""),
    ("viking", [SENTENCE, r"\p{N}"], ""),
    ("superbpe", [r"\p{N}+", r"(?=(\d{3})+(?!\d))"], ""),
    ("chameleon", ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )", r"\p{N}",
                   r"[\p{P}!-/:-@\[-`{-~]", GPT2], "b"),
]


def trained():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(
        vocab_size=1040, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    model = json.loads(t.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    # Only ignore_merges reaches this one: no merge makes it.
    whole = "\u0120zebra"
    merges = [" ".join(m) for m in model["merges"] if "".join(m) != whole]
    return tokens if whole in tokens else tokens + [whole], merges


def scheme_ids(tokens, merges, regexes, flags):
    t = Tokenizer(models.BPE({k: i for i, k in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges],
                             ignore_merges="m" in flags))
    if "n" in flags:
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r), "isolated") for r in regexes]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return [t.encode(text).ids for text in TEXTS]


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "tests/fixtures/gguf-pre")
    tokens, merges = trained()
    schemes = [{"names": names.split(), "bos": "b" in flags, "ids": scheme_ids(tokens, merges, regexes, flags)}
               for names, regexes, flags in SCHEMES]
    alike = {}
    for s, (_, _, flags) in zip(schemes, SCHEMES):
        alike.setdefault(json.dumps(s["ids"]), []).append(s["names"][0])
    for names in alike.values():
        if len(names) > 1:
            print("not told apart by these texts:", " ".join(names))
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "pre.json"), "w", encoding="ascii") as f:
        lines = [json.dumps(s, separators=(",", ":")) for s in schemes]
        f.write('{"tokens":' + json.dumps(tokens, separators=(",", ":")) + ',\n"merges":'
                + json.dumps(merges, separators=(",", ":")) + ',\n"texts":' + json.dumps(TEXTS, separators=(",", ":"))
                + ',\n"schemes":[\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
