"""Times this program beside the official packages: the same frames, the same weights, the same threads, in turns. `make bench-official`.

For every case each contender is a process that has loaded its network and answers one frame at a time. They take turns, frame by frame,
in an order that is drawn anew every round, so that what else the machine does meets all alike; never do two compute at once. A
frame's time is from its bytes in memory to the boolean mask at its own size. A ratio is the geometric mean, over rounds, of our time by
theirs in the same round; its 95 % interval is a bootstrap over rounds.
"""

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from contenders import (
    CASES,
    FILLS,
    HEIGHT,
    WIDTH,
    answers,
    apart,
    arguments,
    average,
    chosen,
    facts_of,
    film,
    generate,
    official,
    ours,
    ratio,
    threads,
)

PAUSE = 0.02
"""Seconds between turns: by default libgomp's threads spin for some milliseconds after their work, in the next contender's time."""
PRECISIONS = ("fp32", "bf16")
BY_HAND = "<!-- What follows is written by hand. -->"
"""In the page, above what people have written."""
GRAPHS_OFF = "CUDA graphs are off"
"""In what sonomask says where it goes on without them."""
STAGES = ("upload", "preprocess", "encode", "memory_attention", "prompt", "decode", "postprocess", "memory_encoder")


def busy():
    """Seconds of CPU time that anybody has used so far, of all cores together; `steal` is what a virtual machine's host used itself."""
    try:
        fields = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, soft, steal, *_ = fields
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def run(options, case, folder, frames):
    weights = Path(case.published) if case.published else Path(folder) / f"{case.family}.safetensors"
    if not weights.exists():
        generate(options, case, weights)
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
            if options.cuda_graphs and contender.name == "sonomask":
                row["graphs_off"] = next((line for line in contender.messages() if GRAPHS_OFF in line), None)
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
        if row.get("graphs_off"):
            why = row["graphs_off"].partition(f"{GRAPHS_OFF}: ")[2]
            reasons.append(f"{name} ran without CUDA graphs: {why}")
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
        + (". What repeats in sonomask is recorded as CUDA graphs" if facts["cuda_graphs"] else "")
        + f". `GOMP_SPINCOUNT` is 0 for sonomask, which sets it for itself as it sets glibc's memory, and {theirs} for the packages.",
        "",
        *summary(result),
        "",
    ]
    for case in result["cases"]:
        lines += detail(case)
    return "\n".join(lines)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="frames that count, of each contender (%(default)s)")
    parser.add_argument("--warm", type=int, default=3, help="frames before them (%(default)s; a memory's bank is always filled)")
    parser.add_argument("--eager", action="store_true", help="without torch.compile, which takes minutes a case")
    parser.add_argument("--package-compile", action="store_true", help="SAM 2's own options for compiling: max-autotune, much longer")
    parser.add_argument("--spincount", type=int, help="GOMP_SPINCOUNT for the packages (libgomp's default)")
    parser.add_argument("--out", type=Path, default=Path("out/official"), help="folder of official.json and official.md (%(default)s)")
    parser.add_argument("--table", type=Path, help=f"where official.md goes as well, once every case has been timed, above what stands below {BY_HAND!r} there")
    options = parser.parse_args()
    if options.rounds < 1 or options.warm < 1:
        parser.error("at least one frame has to count, and one to come before")
    cases = chosen(parser, options, CASES)
    missing = [c.published for c in cases if c.published and not Path(c.published).exists()]
    if missing:
        parser.error(f"{missing[0]} is not there: make setup fetches it")
    options.threads = threads(options)
    own = {key: getattr(options, key) for key in ("rounds", "warm", "spincount", "package_compile")}
    facts = {**facts_of(options), **own}
    result = {"facts": facts, "cases": []}
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.gray"
        film(options, frames, max(FILLS, options.warm) + options.rounds)
        for case in cases:
            result["cases"].append(run(options, case, folder, frames))
            # What is there already is kept if the next case is interrupted.
            (options.out / "official.json").write_text(json.dumps(result, indent=1))
            (options.out / "official.md").write_text(markdown(result))
    print(markdown(result))
    if options.table and len(cases) == len(CASES):
        # What people have written below the tables stays.
        before = options.table.read_text() if options.table.exists() else ""
        by_hand = before[before.index(BY_HAND) :] if BY_HAND in before else ""
        options.table.write_text(markdown(result) + by_hand)


if __name__ == "__main__":
    main()
