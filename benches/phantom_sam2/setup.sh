#!/usr/bin/env bash
# Makes the Python environment of train.py in .cache/phantom-sam2. Nothing else needs it, and no test does.
# PyPI's PyTorch for Linux brings CUDA, several GB; a pip that is set up for another index takes its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=.cache/phantom-sam2
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet -r benches/phantom_sam2/requirements.txt
SAM2_BUILD_CUDA=0 "$venv/bin/pip" install --quiet --no-build-isolation --no-deps sam2==1.1.0
echo "ready: $venv/bin/python benches/phantom_sam2/train.py --help"
