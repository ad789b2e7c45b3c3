"""The model card's table, measured on the exported folder (bf16-rounded weights, computed in float32) with held-out prompts.

Sampling uses the folder's generation defaults (temperature 0.7, top-p 0.95, top-k 40), at most 200 tokens. Writes results.json and
samples.md to --report. Sampled numbers depend on the device's random numbers; on the same device a run repeats exactly.
"""
import argparse
import json
import pathlib
import random
import re

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from generators import chat, facts, jsonqa, spin, words as W

LENGTH = 200
ARTICLE_FORMS = ["Tell me a story about {s}.", "Write a short story about {s}.", "Can you tell me a story about {s}?", "Please write a little story about {s}."]
SAMPLES = ["Tell me a story about a penguin.", "Write a story with the words lantern, climb and quiet.", "Who are you?",
           "Continue this story: Once upon a time, a little snowman lived in a garden.", "Write a JSON object about a person with name, age and city."]
READING = ["Tell me a story about a fox.", "Tell me a story about a lighthouse.", "Tell me a story about a girl named Ada.", "Tell me a story.",
           "Tell me a story about a hedgehog and a lantern.", "Write a story with the words bridge, sing and brave.", "Write a story with the words moon, bake and shy.",
           "Write a story with the words train, wait and cold.", "Tell me a story about sharing.", "Tell me a story about a robot who is afraid.",
           "Tell me a story about the sea.", "Continue this: Tom and his sister found a box in the attic.", "Continue this: The old king was sad.",
           "Tell me a story about a volcano.", "Tell me a story about a cowboy.", "Tell me a story about a pizza.", "Tell me a bedtime story about a bear.",
           "Hello! What can you do?", "Tell me a story about a dragon named Zorvik.", "Write a story about a boy and his kite."]


class Runner:
    def __init__(self, folder):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tok = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(self.device).eval()
        self.ends = set(self.model.generation_config.eos_token_id)

    def answers(self, prompts, sample=True, seed=1, limit=LENGTH, batch=512):
        """[(answer, ended by itself)] for chat prompts; greedy unless `sample`."""
        out = []
        for i in range(0, len(prompts), batch):
            texts = [self.tok.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True) for p in prompts[i:i + batch]]
            enc = self.tok(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
            torch.manual_seed(seed + i)
            how = {} if sample else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            with torch.no_grad():
                ids = self.model.generate(**{k: enc[k] for k in ("input_ids", "attention_mask")}, max_new_tokens=limit, **how)
            for row in ids[:, enc["input_ids"].shape[1]:].tolist():
                stop = next((j for j, t in enumerate(row) if t in self.ends), None)
                out.append((self.tok.decode(row[:stop], skip_special_tokens=True), stop is not None))
        return out


def has_word(text, word, inflected=False):
    tail = r"(?:s|es|d|ed|ing|er|ly)?" if inflected else ""
    forms = [word] + ([word[:-1] + "ing", word[:-1] + "ies", word[:-1] + "ied", word + word[-1] + "ing", word + word[-1] + "ed"] if inflected else [])
    return any(re.search(rf"\b{re.escape(f)}{tail}\b", text, re.I) for f in forms)


def subjects(run):
    rng = random.Random(11)
    nouns = sorted(W.HELD_OUT)
    rng.shuffle(nouns)
    nouns = nouns[:100]
    prompts = [rng.choice(ARTICLE_FORMS).format(s=spin.articles(f"a {n}")) for n in nouns]
    got = run.answers(prompts)
    named = [bool(re.search(rf"\b{n}", t, re.I)) for n, (t, _) in zip(nouns, got)]
    return {"subject_named": sum(named), "subject_ended": sum(e for _, e in got), "of": len(nouns),
            "subject_misses": [n for n, ok in zip(nouns, named) if not ok]}, list(zip(prompts, got))


def triples(run):
    rng = random.Random(12)
    nouns, verbs = [w for w in W.THINGS + W.SEEN if " " not in w], W.VERBS
    adjectives = W.LOOKS + W.COLORS + W.TRAITS + W.GOOD + W.BAD
    asked = [rng.sample([rng.choice(nouns), rng.choice(verbs), rng.choice(adjectives)], 3) for _ in range(100)]
    prompts = [f"Write a story with the words {a}, {b} and {c}." for a, b, c in asked]
    got = run.answers(prompts)
    exact = [sum(has_word(t, w) for w in ws) for ws, (t, _) in zip(asked, got)]
    loose = [sum(has_word(t, w, True) for w in ws) for ws, (t, _) in zip(asked, got)]
    return {"words_all_exact": sum(n == 3 for n in exact), "words_all_inflected": sum(n == 3 for n in loose), "words_single_exact": sum(exact) / 3,
            "words_ended": sum(e for _, e in got)}, list(zip(prompts, got))


def questions(run):
    rng = random.Random(13)
    held = [f for f in facts.all_facts() if f[4]]
    rng.shuffle(held)
    held = held[:400]
    got = run.answers([f[1] for f in held], sample=False, limit=60)
    right = [t.strip() == f[2] or (f[0] != "general" and has_word(t, f[3])) for f, (t, _) in zip(held, got)]
    domains = {}
    for f, ok in zip(held, right):
        domains.setdefault(f[0], []).append(ok)
    wrong = [(f[1], t) for f, (t, _), ok in zip(held, got, right) if not ok][:12]
    return {"facts": sum(right), "facts_of": len(held), "facts_by_domain": {d: f"{sum(v)}/{len(v)}" for d, v in domains.items()}, "facts_wrong": wrong}


def sums(run):
    rng = random.Random(14)
    every = list(facts.all_sums())
    unseen = [s for s in every if facts.sum_held_out(*s)]
    seen = rng.sample([s for s in every if not facts.sum_held_out(*s)], 300)
    out = {}
    for name, cases in (("sums_seen_pairs", seen), ("sums_unseen_pairs", unseen)):
        prompts = [rng.choice(facts.SUM_FORMS[op]).format(a=a, b=b) for a, op, b in cases]
        got = run.answers(prompts, sample=False, limit=30)
        right = [t.strip() == facts.sum_answer(*c) for c, (t, _) in zip(cases, got)]
        out[name], out[name + "_of"] = sum(right), len(cases)
        out[name + "_wrong"] = [(p, t) for p, (t, _), ok in zip(prompts, got, right) if not ok][:8]
    return out


def parses(text):
    try:
        json.loads(text)
        return True
    except ValueError:
        return False


def json_answers(run):
    rng = random.Random(15)
    cases = jsonqa.held_out_requests(rng, 200)
    got = run.answers([q for q, _ in cases], limit=120)
    copies = [(q, a) for q, a in (jsonqa.extract(rng) for _ in range(200))]
    copied = run.answers([q for q, _ in copies], sample=False, limit=120)
    return {"json_valid": sum(parses(t) for t, _ in got), "json_of": len(cases), "json_copy_right": sum(t.strip() == a for (_, a), (t, _) in zip(copies, copied)),
            "json_copy_of": len(copies), "json_invalid": [(q, t) for (q, _), (t, _) in zip(cases, got) if not parses(t)][:5]}


def text_loss(run, stories):
    """Total nats of the held-out tales (each from its first token on), the tokens scored and the bytes."""
    nats, count = 0.0, 0
    for s in stories:
        ids = torch.tensor([run.tok(s, add_special_tokens=False)["input_ids"][:1024]], device=run.device)
        with torch.no_grad():
            logits = run.model(ids).logits[0, :-1]
        nats += torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return nats / count


def baselines(run, data, stories):
    """Interpolated unigram and trigram models of the same tokens, counted on 16 M tokens of each training mix."""
    V = len(run.tok)
    t = np.concatenate([np.load(data / f"mix_{m}.npy", mmap_mode="r")[:16000].reshape(-1) & 0x7FFF for m in "ab"]).astype(np.int64)
    uni = np.bincount(t, minlength=V) + 0.1
    uni = uni / uni.sum()
    bi, bi_n = np.unique(t[:-1] * V + t[1:], return_counts=True)
    tri, tri_n = np.unique((t[:-2] * V + t[1:-1]) * V + t[2:], return_counts=True)
    left = np.bincount(t[:-1], minlength=V)

    def count(keys, numbers, wanted):
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, numbers[at], 0)
    u_nats = t_nats = n = 0.0
    for s in stories:
        x = np.array(run.tok(s, add_special_tokens=False)["input_ids"][:1024], np.int64)
        a, b, c = np.r_[0, x[:-2]], x[:-1], x[1:]
        p1 = uni[c]
        n2, d2 = count(bi, bi_n, b * V + c), left[b]
        p2 = (n2 + 5 * p1) / (d2 + 5)
        n3, d3 = count(tri, tri_n, (a * V + b) * V + c), count(bi, bi_n, a * V + b)
        p3 = (n3 + 5 * p2) / (d3 + 5)
        u_nats -= np.log(p1).sum()
        t_nats -= np.log(p3).sum()
        n += len(c)
    return u_nats / n, t_nats / n


def quote(prompt, answer, seed):
    return f"**seed {seed}** · {prompt}\n\n" + "\n".join("> " + l if l else ">" for l in answer.split("\n")) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--report", type=pathlib.Path, required=True)
    a = p.parse_args()
    a.report.mkdir(parents=True, exist_ok=True)
    run, results = Runner(a.model), {}
    shown = []
    for part in (subjects, triples):
        found, pairs = part(run)
        results.update(found)
        shown += pairs
    for part in (questions, sums, json_answers):
        results.update(part(run))
    stories = json.loads((a.data / "heldout.json").read_text())
    results["loss"] = text_loss(run, stories)
    if (a.data / "mix_a.npy").exists():
        results["loss_unigram"], results["loss_trigram"] = baselines(run, a.data, stories)
    results["bytes_per_token"] = sum(len(s) for s in stories) / sum(len(run.tok(s, add_special_tokens=False)["input_ids"]) for s in stories)
    five = [quote(q, run.answers([q], seed=i + 1)[0][0], i + 1) for i, q in enumerate(SAMPLES)]
    reading = [quote(q, run.answers([q], seed=100 + i)[0][0], 100 + i) for i, q in enumerate(READING)]
    more = [f"### {q}\n{'' if e else '(cut) '}{t}\n" for q, (t, e) in shown[::8]]
    (a.report / "samples.md").write_text("\n".join(["# Five", *five, "# Twenty to read", *reading, "# From the table", *more]))
    (a.report / "results.json").write_text(json.dumps(results, indent=1))
    print(json.dumps({k: v for k, v in results.items()}, indent=1))


if __name__ == "__main__":
    main()
