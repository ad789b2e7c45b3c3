#!/usr/bin/env python3
"""Times PyTorch's ops alone on the GPU: the other half of ours.c, whose shapes, rotation of weights and rounds these are.

Forms: "graph" is the eager composition (rms_norm, F.linear = cuBLAS, silu, mul) recorded in a CUDA graph; "compiled" is
the same composition through torch.compile, in a CUDA graph; "eager" is the composition as a Python loop launches it, by
the wall clock, for one token. q, k, v are one matrix and so are gate and up, which is PyTorch at its best; activations
are bf16, as a bf16 model has them there. Residuals are added by the product itself (addmm_).

usage: torch_ops.py [--seconds N]   JSON lines on stdout; compiled forms are begun only within N seconds of the start
"""
import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

CALLS, ROUNDS, TOKENS = 100, 7, (1, 8, 32, 512)
LAYERS_BYTES, MOST_LAYERS = 250e6, 80
MODELS = {  # D, H, K, C, F
    "Qwen3-0.6B": (1024, 16, 8, 128, 3072),
    "Llama-3.2-1B": (2048, 32, 8, 64, 8192),
    "Llama-3.1-8B": (4096, 32, 8, 128, 14336),
}


def random(*shape):
    return torch.empty(shape, device="cuda", dtype=torch.bfloat16).uniform_(-0.03, 0.03)


class Layer:
    def __init__(self, D, H, K, C, F_):
        self.qkv = random((H + 2 * K) * C, D)
        self.o = random(D, H * C)
        self.gate_up = random(2 * F_, D)
        self.down = random(D, F_)
        self.norm = random(D)


def norm(x, l, state):
    return F.rms_norm(x, x.shape[-1:], l.norm, 1e-6)


def norm_qkv(x, l, state):
    return F.linear(norm(x, l, state), l.qkv)


def mlp(x, l, state):
    gate, up = F.linear(norm(x, l, state), l.gate_up).chunk(2, dim=-1)
    return state["residual"].addmm_(F.silu(gate) * up, l.down.t())


def o_add(x, l, state):
    return state["residual"].addmm_(state["attention"], l.o.t())


OPS = {"norm": norm, "norm_qkv": norm_qkv, "mlp": mlp, "o_add": o_add}


def work(op, shape, T):
    """Bytes and operations of the group: its weights, and its own inputs and outputs in bf16."""
    D, H, K, C, F_ = shape
    qkv = (H + 2 * K) * C
    elements, activations = {"norm": (0, 2 * D), "norm_qkv": (qkv * D, D + qkv), "mlp": (3 * F_ * D, 3 * D),
                             "o_add": (H * C * D, H * C + 2 * D)}[op]
    return 2 * elements + 2 * activations * T, 2 * elements * T


def record(f, x, layers, state):
    """A CUDA graph of CALLS calls; the warm-up before it lets cuBLAS and the compiler prepare themselves."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i in range(3):
            f(x, layers[i % len(layers)], state)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(CALLS):
            f(x, layers[i % len(layers)], state)
    return graph


def time_graph(f, x, layers, state):
    graph = record(f, x, layers, state)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    graph.replay()
    for _ in range(ROUNDS):
        graph.replay()  # keeps the device busy until the marked replay is there
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / CALLS)
    return times


def time_eager(f, x, layers, state):
    times = []
    for i in range(ROUNDS + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for j in range(CALLS):
            f(x, layers[j % len(layers)], state)
        torch.cuda.synchronize()
        if i:
            times.append((time.perf_counter() - begin) * 1e6 / CALLS)
    return times


def report(model, op, form, weights, T, times):
    us = statistics.median(times)
    size, flops = work(op, MODELS[model], T)
    print(json.dumps({"library": "PyTorch " + torch.__version__, "device": torch.cuda.get_device_name(), "model": model,
                      "op": op, "form": form, "weights": weights, "T": T, "us": round(us, 3),
                      "us_min": round(min(times), 3), "us_max": round(max(times), 3), "gb_s": round(size / us * 1e-3, 1),
                      "tflop_s": round(flops / us * 1e-6, 2)}), flush=True)


class Bench:
    def __init__(self, model):
        self.model, self.shape = model, MODELS[model]
        D, H, K, C, F_ = self.shape
        count = min(int(LAYERS_BYTES / (2 * D * H * C)) + 1, MOST_LAYERS)
        self.layers = [Layer(*self.shape) for _ in range(count)]

    def inputs(self, T):
        D, H, K, C, F_ = self.shape
        return random(T, D), {"attention": random(T, H * C), "residual": random(T, D)}

    def measure(self, op, form, T, hot=False):
        x, state = self.inputs(T)
        f, layers = OPS[op], self.layers[:1] if hot else self.layers
        if form == "compiled":
            torch._dynamo.reset()
            f = torch.compile(f, dynamic=False)
        times = (time_eager if form == "eager" else time_graph)(f, x, layers, state)
        report(self.model, op, form, "hot" if hot else "cold", T, times)


def plain(bench):
    for op in OPS:
        for T in TOKENS:
            bench.measure(op, "graph", T)
        bench.measure(op, "graph", 1, hot=True)
        bench.measure(op, "eager", 1)


def compiled(bench, T, deadline):
    """False: no more of them, because the time is up or the compiler does not work here."""
    for op in OPS:
        if time.monotonic() > deadline:
            print(f"torch_ops: time is up before {bench.model} {op} compiled for T {T}", file=sys.stderr)
            return False
        try:
            bench.measure(op, "compiled", T)
        except Exception as e:  # the compiler's many ways to fail: no Triton, no C compiler, ...
            print(f"torch_ops: torch.compile does not work here: {type(e).__name__}: {str(e)[:300]}", file=sys.stderr)
            return False
    return True


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=50)
    deadline = time.monotonic() + parser.parse_args().seconds
    for model in MODELS:
        plain(Bench(model))
        torch.cuda.empty_cache()
    for T in TOKENS:
        for model in MODELS:
            if not compiled(Bench(model), T, deadline):
                return
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
