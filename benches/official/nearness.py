"""How near bf16 comes to the official answers in fp32, over weights of several seeds: ours beside the packages' autocast.

Weights made by rule amplify whatever is rounded, each set its own way, and SAM 2 chooses between three masks, so that one set of weights says
little of which side is nearer. A seed is a set of weights and a box. Its distance is the geometric mean, over the frames that count, of the
relative L2 of logits within +-32; the ratio is that of our distance by the packages', over seeds, with the 95 % interval of a bootstrap
over seeds. Nothing is timed.

`.cache/official/bin/python -B benches/official/nearness.py --serve BENCH --program sonomask`; BENCH is what
`cargo bench --bench official --no-run` names.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import contenders

PARTS = ("logits_relative_l2", "mask_iou")


def box_of(seed):
    """A box whose centre is somewhere in the middle of the frame."""
    draw = np.random.default_rng(seed)
    size = np.array([contenders.WIDTH, contenders.HEIGHT])
    center, half = draw.uniform(0.3, 0.7, 2) * size, draw.uniform(0.1, 0.3, 2) * size
    return [round(float(v), 1) for v in (*(center - half), *(center + half))]


def answers(options, contender, case, folder):
    """What a contender says of each frame that counts."""
    before = contenders.FILLS if case.memory else 0
    given = []
    try:
        for index in range(before + options.frames):
            contender.frame(index, counts=False)
            if index >= before:
                given.append(contenders.answers(contender, folder))
            if contender.failed:
                raise SystemExit(f"{case.name}, {contender.name}, {contender.precision}: {contender.failed}")
    finally:
        contender.close()
    return given


def apart(given, reference):
    """Distance and IoU of all frames."""
    found = [contenders.apart(a, b) for a, b in zip(given, reference, strict=True)]
    if not all(found):
        raise SystemExit("answers of other sizes cannot be compared")
    far, overlap = (np.array([frame[part] for frame in found]) for part in PARTS)
    return np.exp(np.log(np.maximum(far, 1e-12)).mean()), overlap.mean()


def measured(options, case, folder, frames):
    """Of every seed our distance and IoU, and the packages'."""
    found = []
    for seed in range(options.seeds):
        weights = Path(folder) / "weights.safetensors"
        contenders.generate(options, case, weights, "--overwrite", "--seed", f"{seed + 1:x}")
        box = box_of(seed)
        theirs = lambda precision: contenders.official(options, case, weights, precision, frames, False, box)
        reference = answers(options, theirs("fp32"), case, folder)
        ours = apart(answers(options, contenders.ours(options, case, weights, "bf16", frames, box), case, folder), reference)
        found.append((ours, apart(answers(options, theirs("bf16"), case, folder), reference)))
        print(f"{case.name}, seed {seed + 1}: {found[-1][0][0]:.2e} ours, {found[-1][1][0]:.2e} theirs", file=sys.stderr, flush=True)
    return np.array(found)


def line(case, found):
    far, overlap = found[:, :, 0], found[:, :, 1].mean(axis=0)
    mean, low, high = contenders.ratio(far[:, 0], far[:, 1])
    spread = lambda v: f"{np.median(v):.1e} ({v.min():.1e} to {v.max():.1e})"
    nearer = f"{(far[:, 0] < far[:, 1]).sum()} of {len(far)}"
    columns = [case.name, spread(far[:, 0]), spread(far[:, 1]), f"{mean:.2f}", f"{low:.2f} to {high:.2f}", nearer]
    return f"| {' | '.join(columns)} | {overlap[0]:.4f}, {overlap[1]:.4f} |"


def main():
    parser = contenders.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="sets of weights, each with a box of its own (%(default)s)")
    parser.add_argument("--frames", type=int, default=3, help="frames of each that count (%(default)s; a memory's bank is always filled)")
    # The packages eager; libgomp's threads sleep between turns.
    parser.set_defaults(package_compile=False, spincount=0)
    options = parser.parse_args()
    if options.seeds < 2 or options.frames < 1:
        parser.error("an interval needs two seeds, a distance one frame")
    cases = contenders.chosen(parser, options, [case for case in contenders.CASES if not case.published])
    options.threads = contenders.threads(options)
    facts = contenders.facts_of(options)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    print(f"{facts['date']}, {facts['machine']}, {facts['threads']} threads, {versions}, commit {facts['commit']}; {options.seeds} seeds\n")
    print("| network | ours, bf16 | official, bf16 | ours by theirs | 95 % | nearer | mask IoU: ours, theirs |")
    print("|---|---|---|---:|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.gray"
        contenders.film(options, frames, contenders.FILLS + options.frames)
        for case in cases:
            print(line(case, measured(options, case, folder, frames)), flush=True)


if __name__ == "__main__":
    main()
