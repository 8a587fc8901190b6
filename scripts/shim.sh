#!/usr/bin/env bash
# Compiles src/segment/graph/cuda_graph.cpp against libtorch's headers. Usage: scripts/shim.sh OUT.so | --check
# No GPU and no nvcc are needed, only CUDA's headers: those of CUDA_HOME, beside a libtorch of pip, or those that set-up has fetched.
# Nothing is linked with it: its symbols are found when the program opens it, after libtorch's CUDA part. So it can be made beside a
# libtorch without that part, for a bundle that finds it elsewhere.
# Where headers are missing it says so and does nothing: the program works without the library.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

torch=${LIBTORCH:-.libtorch/torch}
cuda=
for place in ${CUDA_HOME:+"$CUDA_HOME/include"} "$torch/../nvidia/cu13/include" .libtorch/nvidia/cu13/include \
    /usr/local/cuda/include; do
    if [ -f "$place/cuda_runtime_api.h" ] && [ -f "$place/crt/host_config.h" ]; then
        cuda=$place
        break
    fi
done
# The last of these is made by libtorch's build with CUDA alone.
if [ -z "$cuda" ] || [ ! -f "$torch/include/ATen/cuda/CUDAGraph.h" ] ||
    [ ! -f "$torch/include/c10/cuda/impl/cuda_cmake_macros.h" ]; then
    echo "left out  the library for CUDA graphs: it needs the headers of libtorch ($torch/include) and of CUDA (CUDA_HOME, or pip's" \
        "nvidia-cuda-runtime and nvidia-cuda-crt)" >&2
    # Not one of another libtorch either.
    case ${1-} in *.so) rm -f "$1" ;; esac
    exit 0
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
