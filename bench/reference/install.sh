#!/usr/bin/env bash
# Installs mmaction2 and what its transforms need, from the Python registry, into FOLDER (default
# build/reference), for measurements beside it. Nothing of it is part of kinefit. mmaction2 needs
# PyTorch only to be imported: Debian's serves.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-build/reference}
stamp=$folder/installed
packages="mmaction2==1.2.0 mmcv-lite==2.1.0 mmengine==0.10.7 decord==0.6.0
  opencv-python-headless==4.8.1.78 scipy==1.11.4 numpy==1.24.4 einops addict termcolor yapf
  platformdirs tomli importlib-metadata zipp packaging pyyaml rich markdown-it-py mdurl pygments
  pillow regex matplotlib cycler kiwisolver pyparsing python-dateutil contourpy fonttools six"
[ "$(cat "$stamp" 2>/dev/null)" = "$packages" ] && exit 0
if ! /usr/bin/python3 -c 'import torch, venv, ensurepip' 2>/dev/null; then
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  $sudo apt-get update -q > /dev/null
  $sudo apt-get install -qy python3-torch python3-venv > /dev/null
fi
rm -rf "$folder"
/usr/bin/python3 -m venv --system-site-packages "$folder"
# shellcheck disable=SC2086
"$folder/bin/pip" install --quiet --no-deps $packages
"$folder/bin/python" -W ignore -c 'import mmaction.datasets.transforms'
echo "$packages" > "$stamp"
