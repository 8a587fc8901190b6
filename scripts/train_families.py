#!/usr/bin/env python3
"""Trains a predictor with every family of networks, and writes down what it took.

    scripts/train_families.py [--out families.md] [FAMILY ...]

For each family, with weights made from a rule (`sonomask weights generate`) and three pictures of the phantom, of which one is held out:

* the paper's form of the predictor beside a decoder that is frozen, and beside one that learns as a whole;
* the pyramid, then all of it, with low rank in the decoder and in the encoder's usual last blocks.

Losses must be numbers, what is said to learn of decoder and encoder must have moved, what is said to be frozen must not be in the file, and
`sonomask segment` must take the file. Seconds include encoding what was not kept: the second run finds the first one's features. Nothing
sensible can be learned from such weights. Exits with 1 if anything of this does not hold.
"""

import argparse
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

from families import FAMILIES, Failed, table

COMMON = """
[model]
family = "{family}"
weights = "{weights}"
[[datasets]]
name = "wrist"
data = "{data}"
classes = ["nerve", "vessel", "bone"]
folds = 3
[augment]
views = 0
[prompts]
autonomous = 0.4
assisted = 0.4
manual = 0.2
[run]
batch = 1
average = 0.0
half = false
cache = "{cache}"
"""
SINGLE = '[predictor]\nform = "single-scale"\n'
ALL = '[[stages]]\nname = "all"\nepochs = 1\npredictor = 1e-3\n'
RUNS = {
    "frozen": SINGLE + '[decoder]\ntuning = "frozen"\nobject_score = false\n' + ALL + "decoder = 0.0\n",
    "full": SINGLE + '[decoder]\ntuning = "full"\n' + ALL + "decoder = 1e-4\n",
    "lora": '[encoder]\ntuning = "lora"\nrank = 4\n[decoder]\ntuning = "lora"\n'
    + '[[stages]]\nname = "pyramid"\ntrains = "pyramid"\nepochs = 1\npredictor = 1e-3\n' + ALL + "decoder = 1e-3\nencoder = 1e-3\n",
}


def run(binary, *args):
    """Seconds and peak MiB of a run of the program."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([binary, *map(str, args)], stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise Failed(f"{args}: {child.returncode}: {said.read().decode(errors='replace').strip()[-600:]}")
    return time.monotonic() - began, used.ru_maxrss / 1024


def tensors(file):
    """The bytes of each tensor of a safetensors file."""
    with open(file, "rb") as given:
        (length,) = struct.unpack("<Q", given.read(8))
        header = json.loads(given.read(length))
        start = 8 + length
        for name, entry in header.items():
            if name != "__metadata__":
                given.seek(start + entry["data_offsets"][0])
                yield name, given.read(entry["data_offsets"][1] - entry["data_offsets"][0])


def moved(kind, weights, file):
    """Checks that what learns has learned, and that nothing else is in the file; how many tensors of decoder and encoder moved."""
    learned = dict(tensors(file))
    of = lambda part: {name: value for name, value in learned.items() if part in name}
    decoder, encoder = of("mask_decoder."), of("image_encoder.")
    if not of("ppn."):
        raise Failed(f"{kind}: no predictor in {sorted(learned)[:5]}")
    published = {name: value for name, value in tensors(weights) if name in decoder}
    # Factors begin as zeros.
    factors = sum(any(value) for name, value in encoder.items() if name.endswith("w_b.weight"))
    changed = sum(published[name] != value for name, value in decoder.items() if name in published)
    changed += sum(any(value) for name, value in decoder.items() if name.endswith("w_b.weight"))
    if kind == "frozen" and (decoder or encoder):
        raise Failed(f"{kind}: {len(decoder)} tensors of the decoder, {len(encoder)} of the encoder")
    if kind != "frozen" and (not published or not changed):
        raise Failed(f"{kind}: the decoder has not moved")
    if not all(name.endswith(("w_a.weight", "w_b.weight")) for name in encoder):
        raise Failed(f"{kind}: the encoder itself is in the file: {sorted(encoder)[:5]}")
    if (kind == "lora") != (factors > 0):
        raise Failed(f"{kind}: {factors} factors of the encoder moved")
    return changed, factors


def check(binary, family, data, folder):
    weights = folder / "weights.safetensors"
    run(binary, "weights", "generate", family, weights)
    columns, peak = [], 0
    for kind, own in RUNS.items():
        config, out = folder / f"{kind}.toml", folder / kind
        config.write_text(own + COMMON.format(family=family, weights=weights, data=data, cache=folder / "features"))
        seconds, memory = run(binary, "train", "--config", config, "--out", out)
        peak = max(peak, memory)
        epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses = [epoch["losses"]["total"] for epoch in epochs]
        if len(losses) != (2 if kind == "lora" else 1) or not all(map(math.isfinite, losses)):
            raise Failed(f"{kind}: losses {losses}")
        found = moved(kind, weights, out / "last.safetensors")
        model = ["--model", family] if family == "medsam" else []
        picture = next((data / "imgs").iterdir())
        taken = ["--weights", weights, "--ppn", out / "last.safetensors", *model, "--out", folder / f"{kind}-masks"]
        run(binary, "segment", picture, *taken)
        columns.append(f"{seconds:.0f} ({'; '.join(f'{loss:.2f}' for loss in losses)})" + (f", {found[0]}" if found[0] else ""))
    return f"| `{family}` | {' | '.join(columns)}, {found[1]} | {peak:.0f} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/sonomask")
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file of the table")
    parser.add_argument("families", nargs="*", default=FAMILIES, metavar="FAMILY")
    args = parser.parse_args()
    heading = [
        "| family | decoder frozen: s (loss) | whole decoder: s (loss), tensors moved "
        "| low rank, pyramid then all: s (losses), tensors of decoder moved, factors of encoder | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder, "wrist")
        run(args.binary, "phantom", "--dataset", data, "--frames", 3)
        failed = table(heading, args.families, lambda family, inner: check(args.binary, family, data, inner), args.out)
    sys.exit(failed)


if __name__ == "__main__":
    main()
