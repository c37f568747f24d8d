#!/usr/bin/env bash
# Does training from a packed store end where training from videos ends? Packs JHMDB-14 and trains
# the RGB stream (the one that sees pictures) from both, with each seed, two runs at a time with one
# thread each, and prints top-1 of the test clips.
#
#   bench/packed_accuracy.sh [FOLDER]      SEEDS="0 1 2" EPOCHS=12 RUN="command before each run"
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/packed_accuracy}
seeds=${SEEDS:-0 1 2}
epochs=${EPOCHS:-12}
kinefit=${KINEFIT:-build/kinefit}
set=${KINEFIT_SHARED:-../shared}/data/jhmdb14
store=$folder/jhmdb14.kfpack
mkdir -p "$folder"
settings=(--set "data.classes=$set/classes.txt" --set "data.videos=$set/videos"
  --set "train.epochs=$epochs" --set "train.val_every=$epochs" --set threads=1 --set data.workers=1
  --set train.keep_last=1)

[ -e "$store" ] || $kinefit data pack configs/jhmdb14_rgb.toml "${settings[@]}" \
  --set "data.annotations=$set/jhmdb14_2d.pkl" --out "$store" > "$folder/pack.log"

train() { # NAME ANNOTATIONS SEED
  [ ! -e "$folder/$1/done" ] || return 0
  ${RUN:-} "$kinefit" train configs/jhmdb14_rgb.toml "${settings[@]}" --set "seed=$3" \
    --set "data.annotations=$2" --work-dir "$folder/$1" > "$folder/$1.log" 2>&1
  touch "$folder/$1/done"
}

for seed in $seeds; do
  train "videos_$seed" "$set/jhmdb14_2d.pkl" "$seed" & videos=$!
  train "packed_$seed" "$store" "$seed" & packed=$!
  wait "$videos"
  wait "$packed"
done

python3 - "$folder" $seeds << 'END'
import json, statistics, sys
folder, seeds = sys.argv[1], sys.argv[2:]
def top1(name):
    lines = [json.loads(line) for line in open(f'{folder}/{name}/log.jsonl')]
    return 100 * [line for line in lines if line['event'] == 'val'][-1]['metrics']['top1/rgb']
print('| top-1 of the test clips | ' + ' | '.join(f'seed {s}' for s in seeds) + ' | mean +- spread |')
print('| --- ' * (len(seeds) + 2) + '|')
for name in ('videos', 'packed'):
    values = [top1(f'{name}_{s}') for s in seeds]
    print(f'| {name} | ' + ' | '.join(f'{v:.1f} %' for v in values) +
          f' | {statistics.mean(values):.1f} +- {statistics.stdev(values):.1f} % |')
END
