#!/usr/bin/env bash
# The whole job on the built-in set: make the data, plan, train pose-only, RGB-only and two-stream
# networks, evaluate, predict one clip, print one table. Run again, it starts anew.
#   scripts/demo.sh [FOLDER]      (default: demo)
set -euo pipefail
cd "$(dirname "$0")/.."
kinefit=${KINEFIT:-build/kinefit}
out=${1:-demo}
start=$SECONDS

step() { printf '\n\033[1m== %s (%d s so far)\033[0m\n' "$1" $((SECONDS - start)); }
[ -t 1 ] || step() { printf '\n== %s (%d s so far)\n' "$1" $((SECONDS - start)); }

rm -rf "$out"
mkdir -p "$out"

step "making the built-in set"
"$kinefit" data make "$out/data"

# The two-stream network starts from the two single-stream ones, as in the reference.
for stream in pose rgb attention; do
  config=configs/demo_$stream.toml
  where=(--set data.annotations="$out/data/annotations.pkl" --set data.videos="$out/data/videos"
    --set data.classes="$out/data/classes.txt")
  if [ "$stream" = attention ]; then
    where+=(--set train.init_rgb="$out/rgb/last.pth" --set train.init_pose="$out/pose/last.pth")
  fi
  step "planning $stream"
  "$kinefit" plan "$config" "${where[@]}"
  step "training $stream"
  "$kinefit" train "$config" "${where[@]}" --work-dir "$out/$stream"
  step "evaluating $stream on held-out actors"
  "$kinefit" test "$config" "$out/$stream/last.pth" "${where[@]}" --out "$out/results/$stream"
done

step "predicting one clip of a held-out actor"
clip=$(tail -n 1 "$out/results/attention/per_sample.csv" | cut -d, -f1)
"$kinefit" predict "$out/attention/last.pth" "$out/data/videos/$clip.mp4" \
  --pose "$out/data/annotations.pkl" --top 3

step "results, held-out actors"
"$kinefit" compare "pose-only=$out/results/pose" "RGB-only=$out/results/rgb" \
  "two-stream with attention=$out/results/attention"
cat <<EOF

data            $out/data
checkpoints     $out/pose/last.pth  $out/rgb/last.pth  $out/attention/last.pth
logs            $out/*/log.jsonl
results         $out/results/*/  (tables, confusion matrix, scores)
EOF
printf 'total time      %d s\n' $((SECONDS - start))
