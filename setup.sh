#!/bin/sh
# Installs everything kinefit needs to build, test and run on Debian 12, and nothing if it is all
# there. What each package is for: docs/dependencies.md. Needs root or sudo.
#   ./setup.sh          build and run
#   ./setup.sh --test   also what only the tests use
#   ./setup.sh --dev    also what only developers use (formatting, static analysis, fuzzing)
set -eu

packages="
  g++ cmake ninja-build ccache pkg-config
  libtorch-dev libgloo-dev libdnnl-dev libopenblas0-pthread
  libavformat-dev libavcodec-dev libavutil-dev libswscale-dev
  libopencv-core-dev libopencv-imgproc-dev
  libtomlplusplus-dev libcli11-dev libfmt-dev nlohmann-json3-dev
  libxxhash-dev libpng-dev libjpeg62-turbo-dev zlib1g-dev
  libgtest-dev
"
for option in "$@"; do
  case "$option" in
    --test) packages="$packages python3 python3-numpy python3-torch ffmpeg" ;;
    --dev) packages="$packages clang clang-format clang-tidy libclang-rt-14-dev valgrind" ;;
    *) echo "setup.sh: unknown option $option (known: --test, --dev)" >&2; exit 2 ;;
  esac
done

missing=""
for package in $packages; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif command -v sudo >/dev/null; then
  as_root="sudo"
else
  echo "setup.sh: needs root or sudo to install:$missing" >&2
  exit 2
fi

echo "Installing:$missing"
$as_root apt-get update -q
# shellcheck disable=SC2086  # the list is meant to be split
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $missing
