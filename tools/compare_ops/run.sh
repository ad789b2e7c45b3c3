#!/bin/sh
# Measures our fused and single ops and PyTorch's on the GPU of this machine, and writes ours.jsonl, torch.jsonl and
# table.md into OUTDIR. In a minute and a half; needs Python with PyTorch (PYTHON, default python3).
# usage: tools/compare_ops/run.sh OUTDIR [PROGRAM]    PROGRAM: default build/release/tools/compare_ops/compare_ops
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: run.sh OUTDIR [PROGRAM]}
program=${2:-$here/../../build/release/tools/compare_ops/compare_ops}
if [ ! -x "$program" ]; then
    echo "run.sh: $program is not there; build it with: cmake --build build/release --target compare_ops" >&2
    exit 1
fi
mkdir -p "$out"
timeout 40 "$program" >"$out/ours.jsonl"
# What PyTorch has printed when its time is up counts.
timeout 55 "${PYTHON:-python3}" "$here/torch_ops.py" --seconds 42 >"$out/torch.jsonl" || echo "run.sh: torch_ops.py ended with $?" >&2
python3 "$here/table.py" "$out/ours.jsonl" "$out/torch.jsonl" >"$out/table.md"
cat "$out/table.md"
