#!/usr/bin/env bash
# Every *_test.cc is compiled into a program that CTest runs.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
commands=$build/compile_commands.json
registered=$(cd "$build" && ctest -N)
failures=0
for file in $(git ls-files '*_test.cc'); do
  case "$file" in tests/slow/*) continue ;; esac
  grep -q "$file" "$commands" || { echo "registration: $file is in no test program" >&2; failures=1; }
  case "$file" in
    src/*) name=$(basename "$(dirname "$file")") ;;
    *) name=$(basename "$file" .cc) ;;
  esac
  # No pipe: grep leaves at the first match, and under pipefail whoever still writes fails.
  grep -qE ": $name\$" <<< "$registered" ||
    { echo "registration: CTest does not run $file (no test named $name)" >&2; failures=1; }
done
[ "$failures" -eq 0 ] || exit 1
echo "registration: ok ($(git ls-files '*_test.cc' | wc -l) test files)"
