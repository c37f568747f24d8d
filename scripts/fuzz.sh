#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (60), one after the other on one core, from the seeds and
# what earlier runs have added to the corpus in BUILD/corpus. Input that breaks something is left in
# BUILD/findings. FUZZ_TARGETS="video config" runs those alone.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build-fuzz}
seconds=${FUZZ_SECONDS:-60}
targets=${FUZZ_TARGETS:-$(sed -n 's/^fuzz_target(\([a-z_]*\) .*/\1/p' fuzz/CMakeLists.txt)}

mkdir -p "$build/findings" "$build/seeds"
"$build/fuzz/fuzz_seeds" "$build/seeds" configs
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}
export UBSAN_OPTIONS=print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
broken=0
for target in $targets; do
  mkdir -p "$build/corpus/$target"
  log="$build/findings/$target.log"
  result=ok
  nice -n 15 "$build/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout="${FUZZ_TIMEOUT:-60}" -rss_limit_mb=3072 \
    -print_final_stats=1 -artifact_prefix="$build/findings/$target-" \
    "$build/corpus/$target" "$build/seeds/$target" > "$log" 2>&1 || result="FAILED, see $log"
  [ "$result" = ok ] || broken=$((broken + 1))
  runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
  printf '%-16s %12s runs %7s edges  %s\n' "$target" "${runs:-?}" "${coverage:-?}" "$result"
done
[ "$broken" -eq 0 ] || exit 1
