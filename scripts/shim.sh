#!/usr/bin/env bash
# Compiles src/segment/graph/cuda_graph.cpp against libtorch's headers. Usage: scripts/shim.sh OUT.so | --check
# No GPU and no nvcc are needed, only CUDA's headers: those of CUDA_HOME, or those that set-up has fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch=${LIBTORCH:-.libtorch/torch}
cuda=
for place in ${CUDA_HOME:+"$CUDA_HOME/include"} .libtorch/nvidia/cu13/include /usr/local/cuda/include; do
    if [ -f "$place/cuda_runtime_api.h" ] && [ -f "$place/crt/host_config.h" ]; then
        cuda=$place
        break
    fi
done
if [ -z "$cuda" ] || [ ! -f "$torch/include/ATen/cuda/CUDAGraph.h" ]; then
    echo "error: the headers of libtorch ($torch/include) and CUDA are needed: make setup, or LIBTORCH and CUDA_HOME" >&2
    exit 1
fi

options=(-std=c++17 -O2 -Wall -Wextra -Werror -fPIC -fvisibility=default
    -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" -isystem "$cuda")
case ${1-} in
    --check) g++ "${options[@]}" -fsyntax-only src/segment/graph/cuda_graph.cpp ;;
    *.so)
        mkdir -p "$(dirname "$1")"
        g++ "${options[@]}" -shared src/segment/graph/cuda_graph.cpp -o "$1.part"
        mv "$1.part" "$1"
        echo "$1"
        ;;
    *)
        echo "usage: scripts/shim.sh OUT.so | --check" >&2
        exit 2
        ;;
esac
