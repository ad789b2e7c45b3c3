#!/usr/bin/env python3
"""Joins the JSON lines of ours.c and torch_ops.py into the Markdown tables of docs/fused-kernels.md.

usage: table.py ours.jsonl torch.jsonl > table.md
"""
import json
import sys

OPS = {"norm": "RMSNorm", "norm_qkv": "RMSNorm + QKV", "mlp": "MLP (norm, gate/up, SiLU, down, residual)",
       "o_add": "o_proj + residual"}


def read(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.startswith("{")]


class Results:
    def __init__(self, lines):
        self.lines = lines
        self.by_key = {(r["library"].split()[0], r["model"], r["op"], r["form"], r["weights"], r["T"]): r for r in lines}

    def get(self, library, model, op, form, T, weights="cold"):
        return self.by_key.get((library, model, op, form, weights, T))

    def ours(self, model, op, T, weights="cold"):
        """The form that runs by default: the fused one where there is one."""
        return self.get("nano-vllm", model, op, "fused", T, weights) or \
            self.get("nano-vllm", model, op, "single", T, weights)

    def all_of(self, name):
        return list(dict.fromkeys(r[name] for r in self.lines))


def us(r):
    if r is None:
        return "-"
    return f"{r['us']:.1f}" if r["us"] < 100 else f"{r['us']:.0f}"


def rate(r):
    """GB/s; from 512 tokens on, where operations decide, TFLOP/s."""
    if r is None:
        return "-"
    return f"{r['tflop_s']:.0f} TFLOP/s" if r["T"] >= 512 and r["tflop_s"] > 0 else f"{r['gb_s']:.0f} GB/s"


def ratio(theirs, ours):
    return f"{theirs['us'] / ours['us']:.2f}x" if theirs and ours else "-"


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def head(*cells):
    return row(*cells) + "\n|---|" + "--:|" * (len(cells) - 1)


def cold_table(r, model):
    out = [f"\n### {model}, weights from memory\n",
           head("group", "tokens", "fused us", "rate", "single ops us", "single / fused", "PyTorch us", "rate",
                "PyTorch / ours", "compiled us", "compiled / ours")]
    for op, title in OPS.items():
        for T in sorted(r.all_of("T")):
            ours, graph = r.ours(model, op, T), r.get("PyTorch", model, op, "graph", T)
            if not ours and not graph:
                continue
            single = r.get("nano-vllm", model, op, "single", T)
            single = None if single is ours else single
            compiled = r.get("PyTorch", model, op, "compiled", T)
            out.append(row(title, str(T), us(ours), rate(ours), us(single), ratio(single, ours), us(graph), rate(graph),
                           ratio(graph, ours), us(compiled), ratio(compiled, ours)))
    return out


def misleading_table(r):
    out = ["\n### The same comparison, made to mislead: one token, PyTorch / ours\n",
           head("group", "model", "both in graphs, weights from memory", "both in graphs, one layer's weights again and again",
                "PyTorch launched op by op")]
    for op, title in OPS.items():
        for model in r.all_of("model"):
            ours = r.ours(model, op, 1)
            out.append(row(title, model, ratio(r.get("PyTorch", model, op, "graph", 1), ours),
                           ratio(r.get("PyTorch", model, op, "graph", 1, "hot"), r.ours(model, op, 1, "hot")),
                           ratio(r.get("PyTorch", model, op, "eager", 1), ours)))
    return out


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    r = Results(read(sys.argv[1]) + read(sys.argv[2]))
    if not r.lines:
        sys.exit("table: no measurements in " + " and ".join(sys.argv[1:]))
    out = [f"Measured on {', '.join(r.all_of('device'))}: {' and '.join(r.all_of('library'))}. Microseconds per group of "
           "ops, median of 7 rounds of 100 calls in one CUDA graph; more than 1x: PyTorch takes longer than we do."]
    for model in r.all_of("model"):
        out += cold_table(r, model)
    out += misleading_table(r)
    print("\n".join(out))


if __name__ == "__main__":
    main()
