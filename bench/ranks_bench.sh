#!/usr/bin/env bash
# Step time of two ranks on one core each against one process with the same micro-batch on one core:
#   bench/ranks_bench.sh [ROUNDS] [KEY=VALUE ...]
# The runs of a round are made one after the other, so that both meet the same machine. The time of
# a step is without the waiting for data. Two ranks each compute what the one process computes; what
# is more is communication that the backward pass does not hide. What two cores share besides (memory
# bandwidth) shows in two processes that have nothing to do with each other, the last ratio.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
shift || true
kinefit=build/kinefit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$kinefit" data make "$work/set" --actors 3 --takes 1 --seed 5 > /dev/null
cat > "$work/config.toml" <<CONFIG
seed = 3
threads = 1
[model]
type = "rgbpose"
num_classes = 10
[model.rgb]
base_channels = 16
stage_blocks = [1, 1, 1, 1]
[model.pose]
base_channels = 8
stage_blocks = [1, 1, 1]
pool1_stride_s = 2
[data]
annotations = "$work/set/annotations.pkl"
videos = "$work/set/videos"
train_split = "train"
val_split = "test"
rgb_frames = 8
pose_frames = 32
resize = 80
crop = 64
test_size = 64
workers = 1
left_joints = [1, 3, 5, 7, 9, 11, 13, 15]
right_joints = [2, 4, 6, 8, 10, 12, 14, 16]
[data.heatmap]
scaling = 0.5
[train]
batch_size = 4
iterations = 12
val_every = 0
log_every = 100
CONFIG
settings=()
for setting in "$@"; do settings+=(--set "$setting"); done

# Median seconds of the steps in a log, the first two left out.
median() {
  grep '"event":"step"' "$1" | tail -n +3 |
    sed 's/.*"seconds":\([0-9.e-]*\).*"wait_seconds":\([0-9.e-]*\).*/\1 \2/' |
    awk '{print $1 - $2}' | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'
}

one() {  # one RUN CORE, with the environment given
  taskset -c "$2" "$kinefit" train "$work/config.toml" --work-dir "$work/$1" "${settings[@]}" > /dev/null
}

ratios=()
for round in $(seq "$rounds"); do
  one "alone$round" 0
  port=$((20000 + RANDOM % 20000))
  export WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port
  RANK=0 LOCAL_RANK=0 one "two$round" 0 &
  RANK=1 LOCAL_RANK=1 one "two$round" 1
  wait
  unset WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
  one "apart$round" 0 &
  one "beside$round" 1
  wait
  a=$(median "$work/alone$round/log.jsonl")
  b=$(median "$work/two$round/log.jsonl")
  ratio=$(awk "BEGIN {printf \"%.3f\", $b / $a}")
  apart=$(awk "BEGIN {printf \"%.3f\", $(median "$work/apart$round/log.jsonl") / $a}")
  echo "round $round: alone $a s, two ranks $b s, ratio $ratio; two strangers $apart"
  ratios+=("$ratio")
done
printf '%s\n' "${ratios[@]}" | sort -n | awk '{v[NR] = $1} END {print "median ratio " v[int((NR + 1) / 2)]}'
