"""Reference answers of models/demo from transformers in float32 on the CPU, for the tests of the engine.

Writes reference.json: for ten prompts the prompt ids and 128 greedy ids (end tokens do not stop it), with the smallest gap between
the best and the second logit on the way, so that a difference can be told from a near tie; and the perplexity of a held-out text in
windows that start at their first token (no token is put in front; the first token of a window is not scored).
"""
import argparse
import json
import math
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CHATS = ["Tell me a story about a fox.", "Write a story with the words bridge, sing and brave.", "Who are you?", "What is 7 + 8?",
         "Continue this story: The little boat was alone on the sea.", "What is the capital of Norway? Answer as JSON.", "Tell me a story about a volcano."]
RAW = ["Once upon a time, there was a little robot who", "It was a dark night, and the sea", "One day, Anna found a strange"]
NEW, WINDOW = 128, 256


def greedy(model, ids):
    """NEW greedy ids, with a fresh full pass for each (no cache), and the smallest gap of the two best logits."""
    ids, out, gap = list(ids), [], math.inf
    for _ in range(NEW):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        best, second = logits.topk(2).values.tolist()
        gap = min(gap, best - second)
        out.append(int(logits.argmax()))
        ids.append(out[-1])
    return out, gap


def perplexity(model, ids):
    nats, n = 0.0, 0
    for i in range(0, len(ids) - WINDOW + 1, WINDOW):
        w = torch.tensor([ids[i:i + WINDOW]])
        with torch.no_grad():
            logits = model(w).logits[0, :-1].double()
        nats += torch.nn.functional.cross_entropy(logits, w[0, 1:], reduction="sum").item()
        n += WINDOW - 1
    return math.exp(nats / n), n


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", type=pathlib.Path, required=True)
    p.add_argument("--text", type=pathlib.Path, required=True, help="held-out text for the perplexity")
    p.add_argument("--out", type=pathlib.Path, required=True)
    a = p.parse_args()
    tok = AutoTokenizer.from_pretrained(a.model)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).eval()
    cases = []
    for prompt in CHATS + RAW:
        chat = prompt in CHATS
        text = tok.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True) if chat else prompt
        ids = tok(text, add_special_tokens=False)["input_ids"]
        out, gap = greedy(model, ids)
        cases.append({"prompt": prompt, "chat": chat, "rendered": text, "prompt_ids": ids, "greedy_ids": out, "smallest_gap": round(gap, 6),
                      "text": tok.decode(out)})
        print(f"{gap:.5f} {tok.decode(out)[:70]!r}", flush=True)
    text = a.text.read_text()
    ids = tok(text, add_special_tokens=False)["input_ids"]
    value, n = perplexity(model, ids)
    result = {"made_with": "transformers, float32, CPU; tools/train_demo/reference.py", "cases": cases,
              "perplexity": {"text": a.text.name, "tokens": len(ids), "window": WINDOW, "scored": n, "value": value}}
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"perplexity {value:.6f} over {n} tokens")


if __name__ == "__main__":
    main()
