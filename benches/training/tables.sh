#!/bin/sh
# The shape of the paper's tables 2 to 4 on part 0 of usgra-seg's training part: "Decoders and prompts" in benches/results/training.md.
# One pyramid of 30 epochs is gone on with for four epochs with each decoder, and tables.toml asks what became of it. Seed 0; about
# two hours on one core. What is done already is not done again, and what was interrupted goes on.
#   benches/training/tables.sh [-- options of sonomask eval]
# The pictures are expected in data/usgra-train, the program in target/release/sonomask or in $SONOMASK.
set -eu
sonomask=${SONOMASK:+$(realpath "$SONOMASK")}
cd "$(dirname "$0")/../.."
sonomask=${sonomask:-target/release/sonomask}
out=training/tables
[ "${1:-}" != -- ] || shift

teach() {
    name=$1
    shift
    resume=
    [ ! -e "$out/$name/state.safetensors" ] || resume=--resume
    "$sonomask" train --config benches/training/frozen.toml --set model.precision=fp32 --out "$out/$name" $resume "$@"
}

# Its decoder is frozen, so that whatever goes on with it begins with LiteMedSAM's.
teach pyramid --set decoder.tuning=frozen \
    --set 'stages=[{ name = "pyramid", trains = "pyramid", epochs = 30, predictor = 1e-3, decoder = 0.0 }]'
for tuning in frozen lora attention full; do
    teach $tuning --set decoder.tuning=$tuning --set model.ppn=$out/pyramid/last.safetensors \
        --set 'stages=[{ name = "all", epochs = 4, predictor = 3e-4, decoder = 1e-4 }]'
done
exec "$sonomask" eval --tables benches/training/tables.toml --out $out/report "$@"
