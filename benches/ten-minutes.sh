#!/bin/sh
# Does anything grow? Runs the cases of a benchmark's file (ten-minutes.toml, ten-minutes-lite.toml, ten-minutes-kept-up.toml) into OUT/bench and
# writes every five seconds what the process of the case in hand holds: OUT/memory.csv.
#   benches/ten-minutes.sh CONFIG OUT [options of sonomask bench, as --overwrite]
# The program is target/release/sonomask, or $SONOMASK.
set -eu
usage="usage: benches/ten-minutes.sh CONFIG OUT [options of sonomask bench]"
config=${1:?$usage}
out=${2:?$usage}
shift 2
command -v pgrep >/dev/null || { echo "error: pgrep is missing (Debian: procps)" >&2; exit 3; }
here=$(dirname "$0")
sonomask=${SONOMASK:-$here/../target/release/sonomask}
mkdir -p "$out"
held=$out/memory.csv.part
"$sonomask" bench --config "$config" --out "$out/bench" "$@" &
bench=$!
trap 'kill "$bench" 2>/dev/null || true; rm -f "$held"' EXIT
# Not every shell runs the former when it is ended by a signal.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
began=$(date +%s)
echo seconds,process,rss_kib,descriptors,threads >"$held"
while kill -0 "$bench" 2>/dev/null; do
    # Every case is a process of its own.
    for pid in $(pgrep -P "$bench" || true); do
        rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || continue
        files=$(ls "/proc/$pid/fd" 2>/dev/null | wc -l)
        threads=$(awk '/^Threads/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || continue
        [ -z "$rss" ] || echo "$(($(date +%s) - began)),$pid,$rss,$files,$threads" >>"$held"
    done
    sleep 5
done
# A run that was refused leaves the one before as it is.
wait "$bench"
mv "$held" "$out/memory.csv"
