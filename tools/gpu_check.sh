#!/bin/bash
# Everything that only a GPU can tell, in one go of some minutes: the tests on the device, compute-sanitizer, and the figures
# for bench/results/. Needs a build with CUDA. Where nothing can be built, copy nano-vllm and tests/ from another machine's
# BUILD, and into BUILD/lib what `ldd` names of their libraries; test_families, test_chain and test_demo look for the checkout where it
# was there.
#   tools/gpu_check.sh OUT [BUILD [CONFIGS]]
# OUT gets every log; a summary goes to stdout. BUILD: folder of nano-vllm and tests/ (default build/release). CONFIGS: folder
# of folders with a config.json each (default ../shared/data/configs); models that are not there are left out.
set -uo pipefail
out=${1:?"usage: tools/gpu_check.sh OUT [BUILD [CONFIGS]]"}
root=$(cd "$(dirname "$0")/.." && pwd)
build=${2:-$root/build/release}
configs=${3:-$root/../shared/data/configs}
program=$build/nano-vllm
demo=$root/models/demo
failed=0
mkdir -p "$out"
command -v nvidia-smi >/dev/null || { echo "gpu_check: no nvidia-smi, so no NVIDIA driver on this machine"; exit 1; }
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || exit 1
[ ! -d "$build/lib" ] || export LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
if ! "$program" --version >"$out/version.txt" 2>&1; then
    echo "gpu_check: $program does not start here: $(tail -n 1 "$out/version.txt")"
    exit 1
fi

# run NAME SECONDS COMMAND...: its output to OUT/NAME.txt
run()
{
    local name=$1 limit=$2 rc
    shift 2
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1
    rc=$?
    case $rc in
    0) echo "$name ok" ;;
    77) echo "$name skipped" ;;
    *)
        echo "$name FAILED ($rc)"
        grep -E "ERROR|rror|FAILED" "$out/$name.txt" | head -n 5
        failed=$((failed + 1))
        ;;
    esac
}

for test in "$build"/tests/test_*_cuda; do run "$(basename "$test")" 120 "$test"; done
run test_families 200 "$build/tests/test_families" cuda
run test_chain 60 "$build/tests/test_chain" cuda
run test_demo 60 "$build/tests/test_demo" cuda
run check_layers 60 "$program" check --layers -m "$demo" --device cuda -p "Tell me a story about a dog."
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        run "$tool" 240 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$program" run --device cuda -m "$demo" -p "Tell me a story about a dog." -n 4 --temperature 0.8 --top-k 20
    done
fi

# bench MODEL OPTIONS...: a line per rate
bench()
{
    local model=$1
    shift
    [ -f "$configs/$model/config.json" ] || return 0
    echo "$model $*"
    timeout 120 "$program" bench --device cuda --random-weights "$configs/$model/config.json" "$@" 2>&1 |
        tee -a "$out/bench.txt" | grep -E "^(prompt|generate) |rror|cuda"
    local rc=${PIPESTATUS[0]}
    [ "$rc" -eq 0 ] || { echo "bench FAILED ($rc)"; failed=$((failed + 1)); }
}

for model in qwen3_0.6b ERNIE-4.5-0.3B-Base tinyllama_1b_chat_v1.0 llama3_2_1b Llama-3.1-8B; do
    bench $model --reps 5 --gen-tokens 256 --prompt-tokens 512
done
small=qwen3_0.6b
for context in 1024 4096 32000; do bench $small --reps 5 --gen-tokens 128 --prompt-tokens 8 --context $context; done
for batch in 8 32 128; do bench $small --reps 5 --gen-tokens 64 --prompt-tokens 8 --context 512 --batch $batch; done
bench $small --reps 5 --gen-tokens 8 --prompt-tokens 4096
bench $small --reps 5 --gen-tokens 64 --profile
bench Llama-3.1-8B --reps 5 --gen-tokens 8 --prompt-tokens 4096
for type in q8_0 f16; do
    for model in $small Llama-3.1-8B; do bench $model --dtype $type --reps 5 --gen-tokens 128 --prompt-tokens 128; done
done
echo "failed: $failed"
[ "$failed" -eq 0 ]
