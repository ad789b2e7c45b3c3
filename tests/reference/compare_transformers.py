#!/usr/bin/env python3
"""Compares nano-vllm with transformers (float32, CPU, eager attention) on a model folder: greedy text and perplexity.

    compare_transformers.py MODEL [--program PATH] [--tokens 64] [--prompt TEXT]...
                            [--perplexity FILE [--bytes N] [--context 256]] [--tie 1e-4]

Without --program only the reference's own results are printed. Exit code 0: equal; 1: a difference.

Greedy. The ids of each prompt must equal `nano-vllm tokenize -m MODEL`, and the generated text that of
`nano-vllm run -m MODEL --raw --temperature 0 -n TOKENS -p PROMPT`. Both stop at EOS. A first difference is accepted,
and said so, where the reference's best two logits lie closer than --tie times the largest logit.

Perplexity, the exact definition (llama.cpp's; --context is W):
 1. The first --bytes bytes of the file (an incomplete last character is dropped) are tokenized whole, once, as plain
    text: no stripping, special tokens' names are text, a SentencePiece model adds its leading space once.
 2. Where the tokenizer adds BOS to a text, BOS goes before the ids. It takes part in the cutting below.
 3. The sequence is cut into n = floor(length / W) windows of exactly W ids; the rest is dropped.
 4. The first id of every window is REPLACED by BOS (the id that stood there is lost, not moved). Where the tokenizer
    adds no BOS, as Qwen's, windows stay as they are.
 5. Each window is computed alone, from position 0. Scored are its ids at index W/2 + 1 to W - 1 (W - W/2 - 1 of them,
    from the logits at W/2 to W - 2): id W/2 itself is not.
 6. perplexity = exp(-mean log p) over all scored ids of all windows, log p = logit - logsumexp(logits).
stories260K on the first 40,000 bytes of tinystories.txt at W = 256: 19,134 ids and BOS, 74 windows, 127 scored in each
(9,398 in all), 9.7953. Scoring id W/2 as well would give 9.7471; leaving BOS out in step 2, 9.8156.
"""
import argparse
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import logging

PROMPTS = ["", "Once upon a time", "The capital of France is", "one day, a little girl named lily",
           "def fibonacci(n):\n    ", "1, 2, 3, 4, 5,", "  two  spaces  and\ttabs\n\n", "Grüße, naïve café – “quotes” 東京 🙂"]
PERPLEXITY = re.compile(r"[-+]?\d+\.\d+(?:[eE][-+]?\d+)?")


class FolderTokenizer:
    """The tokenizer of a Hugging Face folder; AutoTokenizer is not
    used: it may swap in another pre-tokenizer by the model's type."""

    def __init__(self, folder, bos):
        if (folder / "tokenizer.json").exists():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            start = tokenizer.encode("").ids
            self.bos = start[0] if start else None
            tokenizer.encode_special_tokens = True  # "<s>" within a text is three letters
            self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
            self.decode = tokenizer.decode
        else:
            sp = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
            self.bos, self.encode, self.decode = bos, sp.encode, sp.decode

    def prompt(self, text):
        """Ids of a raw prompt, BOS first where the tokenizer adds one."""
        return ([] if self.bos is None else [self.bos]) + self.encode(text)


def eos_ids(model):
    found = set()
    for config in (model.config, model.generation_config):
        ids = config.eos_token_id
        found |= set(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return found


@torch.no_grad()
def greedy(model, ids, count):
    """Generated ids up to EOS (left out), and per step the gap of the best two logits over the largest logit."""
    stop, out, gaps, cache, feed = eos_ids(model), [], [], None, ids
    while len(out) < count:
        result = model(torch.tensor([feed]), past_key_values=cache, use_cache=True)
        cache, logits = result.past_key_values, result.logits[0, -1]
        top = logits.topk(2)
        feed = [int(top.indices[0])]
        gaps.append(float((top.values[0] - top.values[1]) / logits.abs().max()))
        if feed[0] in stop:
            break
        out.append(feed[0])
    return out, gaps


@torch.no_grad()
def perplexity(model, tokenizer, text, context):
    """(perplexity, windows, scored ids); see the top of this file."""
    ids = tokenizer.prompt(text)
    first, total, scored = context // 2, 0.0, 0
    windows = len(ids) // context
    for w in range(windows):
        window = ids[w * context:(w + 1) * context]
        if tokenizer.bos is not None:
            window[0] = tokenizer.bos
        logp = model(torch.tensor([window])).logits[0, first:-1].double().log_softmax(-1)
        target = torch.tensor(window[first + 1:])
        total -= float(logp.gather(1, target[:, None]).sum())
        scored += len(target)
    if not scored:
        sys.exit(f"the text has {len(ids)} tokens, fewer than one window of {context}")
    return math.exp(total / scored), windows, scored


def run(program, *args, text=None):
    done = subprocess.run([program, *args], input=text, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{program} {' '.join(args)}: exit code {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def step_of(tokenizer, prompt_ids, out, offset):
    """The first generation step whose text reaches beyond character `offset`; len(out) is the stop itself."""
    base = len(tokenizer.decode(prompt_ids))
    for step in range(len(out)):
        if len(tokenizer.decode(prompt_ids + out[:step + 1])) - base > offset:
            return step
    return len(out)


def same_text(tokenizer, prompt_ids, out, gaps, want, got, tie):
    """Compares two generated texts; a trailing newline of the program and an incomplete last character do not count."""
    want, got = want.rstrip("\n\ufffd"), got.rstrip("\n\ufffd")
    if want == got:
        return True, "equal"
    offset = first_difference(want, got)
    step = step_of(tokenizer, prompt_ids, out, offset)
    gap = gaps[step] if step < len(gaps) else math.inf
    verdict = f"differs at step {step}, gap {gap:.1e}:\n  reference {want[offset:offset + 60]!r}\n  program   {got[offset:offset + 60]!r}"
    return gap < tie, ("accepted near-tie, " if gap < tie else "") + verdict


def compare_greedy(model, tokenizer, args):
    good = True
    for text in args.prompt or PROMPTS:
        ids = tokenizer.prompt(text)
        if not ids:
            continue
        out, gaps = greedy(model, ids, args.tokens)
        want = tokenizer.decode(ids + out)[len(tokenizer.decode(ids)):]
        if not args.program:
            print(f"{text!r} -> {want!r}")
            continue
        got_ids = run(args.program, "tokenize", "-m", args.model, text=text.encode()).split()
        same_ids = got_ids == [str(i) for i in ids]
        got = run(args.program, "run", "-m", args.model, "--raw", "--temperature", "0", "-n", str(args.tokens), "-p", text)
        same, why = same_text(tokenizer, ids, out, gaps, want, got, args.tie)
        print(f"{text!r}: prompt ids {'equal' if same_ids else 'DIFFER: ' + ' '.join(got_ids[:20])}; text {why}")
        good &= same_ids and same
    return good


def compare_perplexity(model, tokenizer, args):
    data = Path(args.perplexity).read_bytes()[:args.bytes]
    want, windows, scored = perplexity(model, tokenizer, data.decode(errors="ignore"), args.context)
    print(f"perplexity, reference: {want:.6f} ({windows} windows, {scored} ids scored)")
    if not args.program:
        return True
    with tempfile.NamedTemporaryFile(suffix=".txt") as cut:
        cut.write(data)
        cut.flush()
        answer = run(args.program, "perplexity", "-m", args.model, "-f", cut.name, "--context", str(args.context))
    tail = answer[answer.lower().rfind("perplexity"):] if "perplexity" in answer.lower() else answer
    found = PERPLEXITY.search(tail)
    if not found:
        sys.exit(f"no number in the program's answer: {answer!r}")
    got = float(found.group())
    print(f"perplexity, program:   {got:.6f}, difference {got - want:+.6f}")
    return abs(got - want) <= args.perplexity_tolerance


def parse(argv):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model", help="Hugging Face folder with a tokenizer")
    p.add_argument("--program", help="path of nano-vllm")
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--prompt", action="append", help="instead of the built-in prompts; may be repeated")
    p.add_argument("--tie", type=float, default=1e-4, help="relative logit gap below which greedy may differ")
    p.add_argument("--perplexity", metavar="FILE")
    p.add_argument("--bytes", type=int, default=None, help="use only so many bytes of FILE")
    p.add_argument("--context", type=int, default=256)
    p.add_argument("--perplexity-tolerance", type=float, default=0.002)
    return p.parse_args(argv)


def main(argv):
    args = parse(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = FolderTokenizer(Path(args.model), model.config.bos_token_id)
    good = compare_greedy(model, tokenizer, args)
    if args.perplexity:
        good &= compare_perplexity(model, tokenizer, args)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
