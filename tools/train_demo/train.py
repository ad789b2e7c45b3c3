"""Train the demo model on the rows that prepare.py wrote: AdamW, bf16 autocast, warm-up and cosine decay, mix A then mix B.

With --minutes the number of steps is set from the pace of the first steps (it is printed: give it as --steps to repeat a run).
"""
import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
from tokenizers import Tokenizer

from export import export
from model import Config, Qwen3

COUNTED = 1 << 15


class Rows:
    """Endless shuffled batches from one mix, kept on the device."""

    def __init__(self, path, device, seed):
        self.rows = torch.from_numpy(np.load(path).view(np.int16)).to(device)
        self.random = torch.Generator().manual_seed(seed)
        self.order, self.at = torch.empty(0, dtype=torch.long), 0

    def batch(self, n):
        if self.at + n > len(self.order):
            order = torch.randperm(len(self.rows), generator=self.random)
            self.order, self.at = (order if len(order) >= n else order.repeat(-(-n // len(order)))), 0
        pick = self.order[self.at:self.at + n].to(self.rows.device)
        self.at += n
        raw = self.rows[pick].long() & 0xFFFF
        ids, counted = raw & (COUNTED - 1), raw >= COUNTED
        return ids[:, :-1].contiguous(), torch.where(counted[:, 1:], ids[:, 1:], -100).contiguous()


def optimizer(model, lr, decay, fused):
    matrices = [w for n, w in model.named_parameters() if w.dim() == 2 and "embed" not in n]
    rest = [w for n, w in model.named_parameters() if w.dim() != 2 or "embed" in n]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-10, fused=fused)


def rate(step, steps, warm):
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def heldout_loss(model, data, tokenizer, device):
    """Mean loss on held-out tales, one after the other in rows; shows when the tales are learned by heart."""
    stories = json.loads((data / "heldout.json").read_text())
    ids = [i for s in stories for i in tokenizer.encode(s).ids + [tokenizer.token_to_id("<|endoftext|>")]]
    ids = torch.tensor(ids[:len(ids) // 513 * 513], device=device).view(-1, 513)
    model.eval()
    with torch.autocast(device, torch.bfloat16):
        loss = model(ids[:, :-1], ids[:, 1:]).item()
    model.train()
    return loss


def train(a):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    config = Config()
    model = Qwen3(config, a.dropout).to(device).train()
    run = torch.compile(model) if device == "cuda" else model
    opt = optimizer(model, a.lr, a.decay, device == "cuda")
    mixes = [Rows(a.data / f"mix_{m}.npy", device, a.seed) for m in "ab"]
    print(f"{sum(w.numel() for w in model.parameters()):,} parameters, rows {[len(m.rows) for m in mixes]}", flush=True)
    tokenizer = Tokenizer.from_file(str(a.data / "tokenizer.json"))
    steps, begin, log = 10 ** 9 if a.minutes else a.steps, time.time(), []
    for step in range(10 ** 9):
        if step == 40 and a.minutes:
            torch.cuda.synchronize() if device == "cuda" else None
            mark = time.time()
        if step == 100 and a.minutes:
            torch.cuda.synchronize() if device == "cuda" else None
            pace = (time.time() - mark) / 60
            steps = step + int((a.minutes * 60 - (time.time() - begin)) / pace)
            print(f"{a.batch * config.context / pace / 1e6:.2f} M tokens/s: {steps} steps", flush=True)
        if step >= steps:
            break
        lr = a.lr * rate(step, steps if steps < 10 ** 9 else 10000, a.warm)
        for group in opt.param_groups:
            group["lr"] = lr
        ids, labels = mixes[0 if step < a.first * steps and steps < 10 ** 9 or steps == 10 ** 9 else 1].batch(a.batch)
        with torch.autocast(device, torch.bfloat16):
            loss = run(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        if step % 200 == 0 or step + 1 == steps:
            log.append({"step": step, "loss": round(loss.item(), 4), "lr": lr, "seconds": round(time.time() - begin, 1)})
            if step % 600 == 0 or step + 1 == steps:
                log[-1]["heldout"] = round(heldout_loss(model, a.data, tokenizer, device), 4)
            print(log[-1], flush=True)
    export(model, config, a.data / "tokenizer.json", a.out)
    (a.data / "train_log.json").write_text(json.dumps({"args": {k: str(v) for k, v in vars(a).items()}, "steps": steps, "log": log}, indent=1))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True, help="the model folder to write")
    p.add_argument("--steps", type=int, default=5200)
    p.add_argument("--minutes", type=float, default=0, help="instead of --steps: as many steps as fit")
    p.add_argument("--batch", type=int, default=128, help="rows of 1,024 tokens a step")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--decay", type=float, default=0.1)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--warm", type=int, default=200)
    p.add_argument("--first", type=float, default=0.4, help="share of the steps on mix A")
    p.add_argument("--seed", type=int, default=1)
    train(p.parse_args())


if __name__ == "__main__":
    main()
