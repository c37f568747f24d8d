#!/usr/bin/env bash
# clang-tidy and clang-format over our sources, from the build folder's compile commands.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
clang-format --dry-run --Werror $(git ls-files '*.h' '*.cc' '*.cpp')
# clang cannot read GCC's precompiled header, which its commands name, and lacks its OpenMP. LibTorch's
# macros are called without their last argument, which clang takes for an extension.
mkdir -p "$build/tidy"
sed -e 's/-Winvalid-pch//g; s/-fpch-preprocess//g; s/-fopenmp//g; s/-include [^ ]*cmake_pch.hxx//g' \
  -e 's/"command": "[^"]*ccache /"command": "/' "$build/compile_commands.json" \
  > "$build/tidy/compile_commands.json"
git ls-files 'src/*.cc' 'apps/*.cc' 'apps/*.cpp' | grep -v _test.cc |
  xargs -P "$(nproc)" -n 4 clang-tidy -p "$build/tidy" --quiet \
    --extra-arg=-Wno-gnu-zero-variadic-macro-arguments
