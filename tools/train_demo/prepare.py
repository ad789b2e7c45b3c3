"""Text and generators -> tokenizer.json and packed rows of token ids.

Writes to --out: tokenizer.json, mix_a.npy and mix_b.npy (uint16 [rows, ROW + 1], bit 15 set where the loss counts),
heldout.json (held-out tales, for evaluate.py) and meta.json. Mix A has more of the old books, mix B more conversation; train.py
uses A first. Everything is seeded; the result does not depend on the number of workers.
"""
import argparse
import json
import multiprocessing
import pathlib
import random
import re
import tarfile
import time

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from generators import chat, facts, stories, tales, words

ROW = 1024
COUNTED = 1 << 15
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 4096
# the pre-tokenizer of Qwen2 and Qwen3
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# share of tokens: books, generated story as plain text, generated story in chat, tale as plain text, tale in chat, questions
MIXES = {"a": (0.22, 0.12, 0.43, 0.015, 0.015, 0.20), "b": (0.05, 0.06, 0.66, 0.005, 0.005, 0.22)}
KINDS = ("book", "story", "story_chat", "tale", "tale_chat", "question")
SHARDS = 64


def load_books(path):
    """The classics as pieces of about 2,000 characters that start at a paragraph."""
    pieces = []
    with tarfile.open(path) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if not member.name.endswith(".md") or "README" in member.name:
                continue
            text = tar.extractfile(member).read().decode("utf-8", "replace")
            pieces += _pieces(_plain(text))
    return pieces


def _plain(text):
    text = re.sub(r"^---.*?^---", "", text, flags=re.S | re.M)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[*_#>|`\\]", lambda m: m.group(1) or "", text)
    for odd, plain in (("“", '"'), ("”", '"'), ("‘", "'"), ("’", "'"), ("—", " - "), ("–", "-"), ("…", "..."), ("\u00a0", " ")):
        text = text.replace(odd, plain)
    return text


def _pieces(text):
    out, piece = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = re.sub(r"\s+", " ", paragraph).strip()
        if len(paragraph) < 2:
            continue
        piece += paragraph + "\n\n"
        if len(piece) > 2000:
            out.append(piece.strip())
            piece = ""
    return out


class Sources:
    """Everything that documents are made from; built once, shared by the workers."""

    def __init__(self, folder):
        self.books = load_books(folder / "classics.tar.xz")
        plain = tales.load(folder / "tinystories.txt.xz")
        self.names = tales.find_names(plain)
        self.kinds = tales.Nouns(plain)
        words.use_nouns(tales.singular_nouns(self.kinds))
        cased = [tales.truecase(s, self.names) for s in plain]
        self.heldout = [s for s in cased if facts.kept_back(s, 25)]
        self.tales = [s for s in cased if not facts.kept_back(s, 25)]

    def document(self, kind, rng):
        """Plain text, or a conversation as a list of (role, text)."""
        if kind == "book":
            return rng.choice(self.books)
        if kind == "story":
            return stories.story(rng, rng.choice(["words", "subject", "more"]), 1000)["text"]
        if kind == "tale":
            return tales.vary(rng.choice(self.tales), rng, self.names)
        tale = lambda r: chat.tale(r, r.choice(self.tales), self.names, self.kinds)
        makers = {"story_chat": chat.generated, "tale_chat": tale, "question": chat.question}
        first = makers[kind](rng)
        if kind == "question":
            return chat.several(rng, first, chat.question)
        more = lambda r: r.choice([chat.question, chat.question, chat.generated, tale])(r)
        return chat.several(rng, first, more)


def train_tokenizer(sources):
    """Byte-level BPE with Qwen's pre-tokenizer; the special tokens come last, as in Qwen's files."""
    rng = random.Random(1)
    text = [sources.document("story", rng) for _ in range(8000)] + sources.tales * 2 + rng.sample(sources.books, 2500)
    text += ["\n".join(t for _, t in sources.document("question", rng)) for _ in range(6000)]
    text += ["user\n", "assistant\n", "system\n"] * 3000
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.post_processor = processors.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIALS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(text, trainer)
    tok.add_special_tokens(SPECIALS)
    return tok


def encode(tok, document):
    """Ids of one document with COUNTED set where the loss counts: all of plain text, only the answers of a conversation."""
    if isinstance(document, str):
        return np.array(tok.encode(document).ids + [tok.token_to_id(SPECIALS[0])], np.uint16) | COUNTED
    out = []
    for role, text in document:
        head = tok.encode(f"<|im_start|>{role}\n").ids
        body = tok.encode(text).ids + [tok.token_to_id("<|im_end|>")]
        mark = COUNTED if role == "assistant" else 0
        out += head + [i | mark for i in body] + tok.encode("\n").ids
    return np.array(out + [tok.token_to_id(SPECIALS[0]) | COUNTED], np.uint16)


def pack(documents, pad):
    """Rows that start at the start of a document: of the next 64 documents the longest that still fits is taken."""
    rows, pool, source = [], [], iter(documents)
    row, left = [], ROW + 1
    while True:
        while len(pool) < 64:
            d = next(source, None)
            if d is None:
                break
            pool.append(d[:ROW + 1])
        fitting = [i for i, d in enumerate(pool) if len(d) <= left]
        if fitting:
            best = max(fitting, key=lambda i: len(pool[i])) if left < ROW // 2 else fitting[0]
            row.append(pool.pop(best))
            left -= len(row[-1])
        elif row:
            rows.append(np.concatenate(row + [np.full(left, pad, np.uint16)]))
            row, left = [], ROW + 1
        if not pool and not row:
            return np.stack(rows)


def _shard(job):
    name, index, tokens = job
    rng = random.Random(f"{name}/{index}")
    budget = {k: share * tokens for k, share in zip(KINDS, MIXES[name])}
    documents = []
    for kind in KINDS:
        got = 0
        while got < budget[kind]:
            ids = encode(_TOK, _SOURCES.document(kind, rng))
            documents.append(ids)
            got += len(ids)
    rng.shuffle(documents)
    return pack(documents, _TOK.token_to_id(SPECIALS[0]))


def _use(folder, tokenizer):
    global _SOURCES, _TOK
    _SOURCES, _TOK = folder, tokenizer


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--text", type=pathlib.Path, required=True, help="folder with classics.tar.xz and tinystories.txt.xz")
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--tokens", type=float, default=80e6, help="tokens of each mix")
    p.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    start = time.time()
    sources = Sources(a.text)
    tok = train_tokenizer(sources)
    tok.save(str(a.out / "tokenizer.json"))
    (a.out / "heldout.json").write_text(json.dumps(sources.heldout))
    print(f"{len(sources.tales)} tales, {len(sources.heldout)} held out, {len(sources.books)} pieces of books; tokenizer after {time.time() - start:.0f} s", flush=True)
    _use(sources, tok)
    meta = {"vocab": tok.get_vocab_size(), "row": ROW, "mixes": MIXES, "kinds": KINDS}
    with multiprocessing.get_context("fork").Pool(a.workers) as pool:
        for name in MIXES:
            rows = np.concatenate(pool.map(_shard, [(name, i, a.tokens / SHARDS) for i in range(SHARDS)], chunksize=1))
            np.save(a.out / f"mix_{name}.npy", rows)
            meta[f"rows_{name}"] = len(rows)
            meta[f"counted_{name}"] = float((rows >= COUNTED).mean())
            print(f"mix {name}: {len(rows)} rows, loss on {meta[f'counted_{name}']:.2f}, {time.time() - start:.0f} s", flush=True)
    (a.out / "meta.json").write_text(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()
