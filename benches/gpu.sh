#!/usr/bin/env bash
# What a GPU says beside the CPU, then what it costs. Usage: benches/gpu.sh PROGRAM OUT [DEVICE]
# PROGRAM is a sonomask (target/release/sonomask, or that of `make dist`), DEVICE cuda:0 if not given; with cpu the way is tried out.
# Masks of a phantom, which needs no prompt, on the CPU and on the device, kernel by kernel and as a CUDA graph, in fp32 and bf16: a table
# of their agreement in OUT/agreement.txt. Then benches/gpu.toml, on a GPU alone. LiteMedSAM's weights are fetched where they are missing.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
mkdir -p "$2"
program=$(realpath "$1") out=$(realpath "$2") device=${3:-cuda:0}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

"$program" doctor | tee "$out/doctor.txt" || true
# Where there is no network it says where a copy has to lie.
[ -f weights/lite_medsam.pth ] || "$program" weights download lite-medsam
[ -f "$out/phantom.mp4" ] || "$program" phantom --output "$out/phantom.mp4" --frames 12 --set phantom.seed=9000

# NAME DEVICE PRECISION GRAPHS
masks() {
    rm -rf "$out/$1"
    "$program" process "$out/phantom.mp4" --config configs/demo-phantom.toml --output "$out/$1.mp4" \
        --report "$out/$1.json" --masks "$out/$1" \
        --set model.device="$2" --set model.precision="$3" --set model.cuda_graphs="$4" 2>"$out/$1.log" ||
        { cat "$out/$1.log" >&2; return 1; }
}

: >"$out/agreement.txt"
failed=0
masks cpu-fp32 cpu fp32 false
for case in "fp32 false" "fp32 true" "bf16 false" "bf16 true"; do
    read -r precision graphs <<<"$case"
    name=${device/:/-}-$precision$([ "$graphs" = true ] && echo -graph || true)
    [ "$name" = cpu-fp32 ] && name=cpu-fp32-again
    if masks "$name" "$device" "$precision" "$graphs"; then
        { echo "$name beside the CPU's fp32:"; "$program" eval --masks "$out/$name" --truth "$out/cpu-fp32"; echo; } |
            tee -a "$out/agreement.txt"
        grep -h "CUDA graphs are off" "$out/$name.log" | tee -a "$out/agreement.txt" || true
    else
        echo "$name failed" | tee -a "$out/agreement.txt"
        failed=1
    fi
done

if [ "$device" != cpu ]; then
    # Paths in it are relative to it.
    config=$(mktemp benches/gpu-XXXXXX.toml)
    trap 'rm -f "$config"' EXIT
    sed "s/^devices = .*/devices = [\"$device\"]/" benches/gpu.toml >"$config"
    "$program" bench --config "$config" --out "$out/bench" --overwrite
    cp "$out/bench/report.html" "$out/bench/cases.csv" "$out/" 2>/dev/null || true
fi
exit $failed
