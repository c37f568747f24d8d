#!/usr/bin/env bash
# Training and inference steps on a GPU, kinefit's and PyTorch's in turns in one run, at full size
# on synthetic input. Writes every result as a line of JSON to OUT and prints a table.
#
#   bench/gpu.sh [BUILD] [OUT]     BUILD: build-cuda; OUT: gpu_bench.jsonl
#
# The peer needs a python3 with PyTorch and mmaction2's network (bench/reference_step.py says what
# to install); without it only kinefit is timed.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build-cuda}
out=${2:-gpu_bench.jsonl}
batch=${BATCH:-20}
: > "$out"
ours() {  # CONFIG train|infer BATCH SETTINGS...
  local config=$1 what=$2 clips=$3
  shift 3
  timeout 60 "$build/bench/gpu_step_bench" "configs/$config.toml" "$what" --rounds 10 \
    device=cuda train.batch_size="$clips" "$@" | tail -n 1 | tee -a "$out" || true
}
peer() {  # train|infer BATCH OPTIONS...
  local what=$1 clips=$2
  shift 2
  timeout 120 python3 bench/reference_step.py "$what" --device cuda --batch "$clips" --rounds 10 "$@" |
    tail -n 1 | tee -a "$out" || true
}
for precision in bf16 fp32; do
  ours rgbpose_ntu60 train "$batch" train.precision=$precision memory.recompute=none
  peer train "$batch" --precision $precision --channels-last --benchmark
  ours rgbpose_ntu60 train "$batch" train.precision=$precision memory.recompute=lean
  peer train "$batch" --precision $precision --channels-last --benchmark --compile
  ours pcan_ntu60 train "$batch" train.precision=$precision memory.recompute=none
  peer train "$batch" --precision $precision
done
ours rgbpose_ntu60 infer 32 train.precision=bf16 memory.recompute=none
peer infer 32 --precision bf16 --channels-last --benchmark
python3 - "$out" <<'PYTHON'
import json
import sys

for line in open(sys.argv[1]):
    try:
        r = json.loads(line)
    except ValueError:
        continue
    ours = "config" in r
    name = r["config"] + " " + r["recompute"] if ours else "PyTorch" + "".join(
        " " + k for k in ("channels_last", "compile", "benchmark") if r.get(k))
    memory = r.get("allocated_gib", r.get("peak_gib", 0))
    print(f"{r['what']:6} {r['precision']:12} {name:45} {r['step_s_median']:8.4f} s {memory:7.2f} GiB")
PYTHON
