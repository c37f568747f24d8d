#!/usr/bin/env bash
# The structure that docs/architecture.md promises: folders link and include only what stands above
# them, FFmpeg stays in src/video, and nothing is named for nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
failures=0
fail() { echo "structure: $*" >&2; failures=$((failures + 1)); }

# The one order, from the root CMakeLists.txt.
mapfile -t order < <(sed -n 's/^add_subdirectory(src\/\(.*\))$/\1/p' CMakeLists.txt)
position() {
  local i
  for i in "${!order[@]}"; do [ "${order[$i]}" = "$1" ] && { echo "$i"; return; }; done
  echo -1
}

for folder in src/*/; do
  name=$(basename "$folder")
  here=$(position "$name")
  [ "$here" -ge 0 ] || { fail "src/$name is not in CMakeLists.txt"; continue; }
  linked=" $name $(tr '\n' ' ' < "$folder/CMakeLists.txt" | sed -n 's/.*FOLDERS \([a-z ]*\).*/\1/p') "
  while IFS=: read -r file include; do
    [ -n "$include" ] || continue
    other=${include%%/*}
    there=$(position "$other")
    [ "$there" -ge 0 ] || continue
    [ "$there" -le "$here" ] || fail "$file includes $include, which stands below src/$name"
    case "$linked" in *" $other "*) ;; *) fail "$file includes $include but src/$name does not link $other" ;; esac
  done < <(grep -HoE '^#include "[a-z_]+/[^"]+"' "$folder"*.cc "$folder"*.h 2>/dev/null |
           sed 's/#include "\(.*\)"/\1/')
done

never() {  # never FOLDER PATTERN WHY
  local hits
  hits=$(grep -lE "^#include [<\"]$2" "$1"/*.cc "$1"/*.h 2>/dev/null || true)
  [ -z "$hits" ] || fail "$hits: $3"
}
for folder in src/*/ apps/kinefit/; do
  [ "$folder" = src/video/ ] || never "${folder%/}" 'lib(av|sw)' "only src/video includes FFmpeg"
  never "${folder%/}" 'torch/torch\.h' "torch/torch.h costs half a minute per file; include what is used"
done
never src/predict 'train/' "predict never includes train"
never src/checkpoint 'model/' "checkpoint never includes model"
never src/model 'distributed/' "model knows nothing of ranks"
for folder in files config video dataset transform report; do
  never "src/$folder" '(ATen|torch|c10)/' "src/$folder does without LibTorch"
done

bad=$(git ls-files | grep -E '(^|/)(utils?|common|helpers?|misc|core)(/|\.|_)' || true)
[ -z "$bad" ] || fail "named for nothing: $bad"

while read -r lines file; do
  case "$file" in
    *.h) [ "$lines" -le 300 ] || fail "$file has $lines lines (headers: 300)" ;;
    *) [ "$lines" -le 900 ] || fail "$file has $lines lines (sources: 900)" ;;
  esac
done < <(git ls-files '*.h' '*.cc' '*.cpp' | xargs -r wc -l | awk '$2 != "total" {print $1, $2}')

for folder in src/*/; do
  grep -q "\`$folder\`" docs/architecture.md || fail "docs/architecture.md does not list $folder"
done

[ "$failures" -eq 0 ] || { echo "structure: $failures problem(s)" >&2; exit 1; }
echo "structure: ok (${#order[@]} folders in order)"
