#!/usr/bin/env bash
# Times the planning of the full-size networks, and loading beside the reference.
set -euo pipefail
cd "$(dirname "$0")/.."
kinefit=${KINEFIT:-build/kinefit}
echo "machine: $(nproc) x $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1)," \
  "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"

# Some minutes: real steps of all plans for a small network.
echo; echo "chosen plans against an exhaustive search"
ninja -C "$(dirname "$kinefit")" plan_bench > /dev/null
OMP_WAIT_POLICY=passive "$(dirname "$kinefit")/bench/plan_bench"

for config in configs/pcan_ntu60.toml configs/rgbpose_ntu60.toml; do
  echo; echo "planning $config"
  time "$kinefit" plan "$config" --memory 39.39GiB
done
echo
if [ -d "${KINEFIT_SHARED:-../shared}/data/jhmdb14" ]; then
  python3 bench/loading.py
else
  echo "loading is not timed: the JHMDB-14 set is not at ${KINEFIT_SHARED:-../shared}/data/jhmdb14"
fi
