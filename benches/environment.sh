# For the set-ups beside it, which source it: makes the Python environment .cache/$1 with what benches/$2/requirements.txt asks for, in the
# repository's folder, and sets `venv` to it. PyPI's PyTorch for Linux brings CUDA, several GB; a pip that is set up for another
# index takes its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.cache/$1
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python 3.11 or later is needed (PYTHON=... names another one)" >&2
    exit 1
}
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet -r "benches/$2/requirements.txt"
