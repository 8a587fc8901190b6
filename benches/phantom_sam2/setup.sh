#!/usr/bin/env bash
# Makes the Python environment of train.py in .cache/phantom-sam2. Nothing else needs it, and no test does.
. "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" phantom-sam2 phantom_sam2

SAM2_BUILD_CUDA=0 "$venv/bin/pip" install --quiet --no-build-isolation --no-deps sam2==1.1.0
echo "ready: $venv/bin/python benches/phantom_sam2/train.py --help"
