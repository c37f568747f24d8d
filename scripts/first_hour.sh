#!/usr/bin/env bash
# What README says under "Train on your own data", word for word: its commands are taken from there
# and run, from a folder of clips and pose files to the prediction of a new clip. Then docs/data.md's
# way with a manifest and an annotation pickle, on JHMDB-14 where that is.
#   scripts/first_hour.sh [--short]    (--short: networks of a few channels, one epoch)
# KINEFIT: the program (build/kinefit); KINEFIT_SHARED: where data/jhmdb14 lies (../shared).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
program=$(realpath "${KINEFIT:-$root/build/kinefit}")
shared=$(realpath -m "${KINEFIT_SHARED:-$root/../shared}")
short=()
if [ "${1:-}" = --short ]; then
  short=(--set train.epochs=1 --set train.batch_size=4 --set data.resize=40 --set data.crop=32
    --set data.test_size=32 --set data.rgb_frames=4 --set data.pose_frames=16 --set data.workers=1
    --set model.rgb.base_channels=8 --set 'model.rgb.stage_blocks=[1,1,1,1]'
    --set model.pose.base_channels=4 --set 'model.pose.stage_blocks=[1,1,1]'
    --set eval.test_clips=1)
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
step() { printf '\n== %s\n' "$*"; }
fail() { echo "first_hour: $*" >&2; exit 1; }

# The documented commands, with smaller networks where it is to be short.
kinefit() {
  case "$1 ${2:-}" in
    train\ * | plan\ *) "$program" "$@" "${short[@]}" ;;
    test\ *) "$program" "$@" "${short[@]}" ;;
    *) "$program" "$@" ;;
  esac
}

# Lines of the sh blocks of a page's section, without their comments.
commands() {  # FILE HEADING
  awk -v heading="$2" '
    /^## / { inside = ($0 == heading) }
    inside && /^```/ { code = (!code && $0 == "```sh"); next }
    inside && code { sub(/ +#.*/, ""); if ($0 != "") print }' "$1"
}

step "clips and pose files"
kinefit data make recordings --recordings --actors 3 --takes 1
rm -f recordings/synthetic.txt
[ "$(ls recordings | wc -l)" = 11 ] || fail "ten folders of actions and one of new clips were due"
clip=$(ls recordings/new/*.mp4)
poses=${clip%.mp4}.json
mkdir new
mv "$clip" new/clip.mp4
mv "$poses" new/clip.json
rmdir recordings/new

commands "$root/README.md" "## Train on your own data" > commands.txt
[ "$(wc -l < commands.txt)" -ge 8 ] || fail "README's commands were not found"
while IFS= read -r line; do
  case $line in
    *" predict "*)  # the new clip lies beside the recordings only once they have been imported
      mkdir -p recordings/new && cp new/* recordings/new ;;
  esac
  step "$line"
  code=0
  eval "$line" > out.txt 2>&1 || code=$?
  cat out.txt
  [ "$code" = 0 ] || fail "exit code $code: $line"
  if [[ $line == "kinefit data import"* ]]; then
    sed -n '/^next:/,$p' out.txt | sed '1d; s/^  //' > next.txt
    [ -s next.txt ] || fail "the import does not say what to run next"
    while IFS= read -r next; do
      grep -qF -- "$next" commands.txt || fail "README does not have what the import says: $next"
    done < next.txt
  fi
done < commands.txt
grep -q '%' out.txt || fail "the prediction shows no score"
[ -f results/summary.json ] || fail "the test wrote no summary"

if [ ! -d "$shared/data/jhmdb14" ]; then
  echo "NOT RUN: JHMDB-14 is not at $shared/data/jhmdb14"
  exit 0
fi
step "JHMDB-14 through a manifest and its annotation pickle"
ln -s "$shared/data/jhmdb14" jhmdb14
echo "path,label" > list.csv
head -n 3 jhmdb14/classes.txt | while IFS= read -r class; do
  ls jhmdb14/videos | grep "_${class}_[a-z]_[a-z][a-z]_np" | head -n 8 |
    sed "s|.*|jhmdb14/videos/&,$class|"
done >> list.csv
[ "$(wc -l < list.csv)" -gt 12 ] || fail "JHMDB-14's clips were not found"
for line in \
  "kinefit data import list.csv --pose jhmdb14/jhmdb14_2d.pkl --joints jhmdb15 --out data/jhmdb" \
  "kinefit data check data/jhmdb/pose.toml" \
  "kinefit train data/jhmdb/pose.toml" \
  "kinefit test data/jhmdb/pose.toml data/jhmdb/work_dirs/pose/best.pth"; do
  step "$line"
  eval "$line" || fail "$line"
done
new=$(sed -n '2s/,.*//p' list.csv)
step "predicting $new"
kinefit predict data/jhmdb/work_dirs/pose/best.pth "$new" --pose jhmdb14/jhmdb14_2d.pkl | grep '%' ||
  fail "the prediction shows no score"
