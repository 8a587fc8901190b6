#!/usr/bin/env python3
"""Runs the program with every family, every prompt and every form of checkpoint, and writes down what it took.

    pip install torch safetensors pillow numpy && scripts/try_families.py --picture P.png --loop L.mkv [--out families.md]

For each family, with weights made from a rule (`sonomask weights generate`):

* one picture is segmented with a predictor's two classes, a box, a point and a mask prompt, from safetensors, from the
  publisher's own form (`torch.save`) with the predictor laid over it, and from a Lightning checkpoint with Sam2Rad's names:
  the scores must be the same;
* a Lightning checkpoint with low-rank factors in the decoder and adapters in the encoder must score as safetensors in
  which numpy has added the factors to the weights do, and not as the file without both;
* the recording is processed by the predictor alone: every frame must come out segmented, and the report has the memory.

Exits with 1 if anything of this does not hold.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from families import FAMILIES, Failed, table
from PIL import Image
from safetensors.numpy import load_file, save_file

RANK = 4


def run(binary, *args):
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{args}: {done.stderr.strip()[-600:]}")
    return done.stdout


def tensors(state):
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}


def sam2rad(state):
    """Names that the Sam2Rad code's Lightning module gives to official names."""
    renamed = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if name.startswith("ppn.learnable_prompts."):
            renamed["model.model." + name.removeprefix("ppn.")] = value
        elif first == "ppn":
            renamed[f"model.prompt_sampler.prompt_learner.{rest}"] = value
        elif first == "image_encoder" and rest.startswith("adapters."):
            renamed[f"model.model.image_encoder.{rest}"] = value
        elif first == "image_encoder":
            renamed[f"model.model.image_encoder.net.{rest}"] = value
        elif first in ("sam_prompt_encoder", "prompt_encoder"):
            renamed[f"model.prompt_sampler.prompt_encoder.{rest}"] = value
        elif first == "sam_mask_decoder":
            renamed[f"model.model.sam_mask_decoder.net.{rest}"] = value
        elif first == "mask_decoder":
            renamed[f"model.model.mask_decoder.net.{rest}"] = value
        else:
            renamed[f"model.model.{name}"] = value
    return renamed


def lightning(state, path):
    torch.save(
        {
            "epoch": 3,
            "global_step": 120,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": tensors(sam2rad(state)),
            "hyper_parameters": {"lr": 1e-4},
        },
        path,
    )


def tuned(state, widths):
    """The state with low-rank factors and adapters, as the file has them, and with the factors added to the weights."""
    rng = np.random.default_rng(7)
    separate, merged = dict(state), dict(state)
    for name, weight in state.items():
        if "mask_decoder." not in name or not name.endswith(("q_proj.weight", "v_proj.weight")):
            continue
        layer = name.removesuffix("weight")
        a, b = (
            (0.2 * rng.standard_normal(shape)).astype(np.float32)
            for shape in ((RANK, weight.shape[1]), (weight.shape[0], RANK))
        )
        # As Sam2Rad has it: the frozen half of the layer is `proj`, the factors stand beside it.
        for leaf in ("weight", "bias"):
            separate[f"{layer}proj.{leaf}"] = separate.pop(f"{layer}{leaf}")
        separate[f"{layer}w_a.weight"], separate[f"{layer}w_b.weight"] = a, b
        merged[name] = weight + b @ a
    for i, width in enumerate(widths):
        for part, shape in (("0", (64, width)), ("2", (width, 64))):
            stem = f"image_encoder.adapters.{i}.adapters.{part}"
            weight = (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            bias = np.zeros(shape[0], np.float32)
            for state in (separate, merged):
                state[f"{stem}.weight"], state[f"{stem}.bias"] = weight, bias
    return separate, merged


def widths(state):
    """Input width of each block of the trunk; none where the family takes no adapters."""
    if any(name.startswith("image_encoder.trunk.") for name in state):
        stem = "image_encoder.trunk.blocks"
    elif "image_encoder.blocks.0.norm1.weight" in state:
        stem = "image_encoder.blocks"
    else:
        return []
    found = []
    while (norm := f"{stem}.{len(found)}.norm1.weight") in state:
        found.append(state[norm].shape[0])
    return found


def numbers(value):
    """Every number in a result: score, presence, area and whatever else there is."""
    if isinstance(value, dict):
        return [n for key in sorted(value) for n in numbers(value[key])]
    if isinstance(value, list):
        return [n for part in value for n in numbers(part)]
    return [float(value)] if isinstance(value, (int, float)) else []


def scores(args, family, weights, *more):
    """Name and numbers of each class, the predictor's first."""
    with tempfile.TemporaryDirectory() as out:
        model = ["--model", family] if family == "medsam" else []
        listed = run(
            args.binary, "segment", args.picture, "--out", out, "--json", "--weights", weights, *model, *more,
            "--mode", "assisted", "--presence-threshold", 0, *args.prompts,
        )  # fmt: skip
        return [(r["class"], numbers(r)) for r in json.loads(listed)["results"]]


def far(one, other):
    """Largest difference; a Lightning checkpoint has no names of classes, so they go by their order."""
    if [len(n) for _, n in one] != [len(n) for _, n in other]:
        raise Failed(f"classes {one} and {other}")
    return max(abs(a - b) for (_, n), (_, m) in zip(one, other) for a, b in zip(n, m))


def check(args, family, folder):
    whole, predictor = folder / "whole.safetensors", folder / "ppn.safetensors"
    ppn = ["--ppn", "single-scale", "--classes", "a,b"]
    run(args.binary, "weights", "generate", family, whole, *ppn)
    run(args.binary, "weights", "generate", family, predictor, *ppn, "--ppn-only")
    state = load_file(whole)
    expected = scores(args, family, whole)
    if sorted(name for name, _ in expected) != ["a", "b", "box", "mask", "point"]:
        raise Failed(f"classes {expected}")

    own = {name: value for name, value in state.items() if not name.startswith("ppn.")}
    published = folder / ("model.pt" if family.startswith("sam2") else "model.pth")
    torch.save({"model": tensors(own)} if published.suffix == ".pt" else tensors(own), published)
    worst = far(expected, scores(args, family, published, "--ppn", predictor))
    published.unlink()

    # A Lightning checkpoint of Sam2Rad's also brings its handling of pictures.
    theirs = {"preprocess": "sam2rad"}
    lightning(state, folder / "run.ckpt")
    save_file(state, folder / "theirs.safetensors", metadata=theirs)
    expected = scores(args, family, folder / "theirs.safetensors")
    worst = max(worst, far(expected, scores(args, family, folder / "run.ckpt")))
    if worst > 1e-6:
        raise Failed(f"the forms of one checkpoint are {worst} apart")

    separate, merged = tuned(state, widths(state))
    lightning(separate, folder / "run.ckpt")
    adapted = scores(args, family, folder / "run.ckpt")
    save_file(merged, folder / "merged.safetensors", metadata=theirs)
    apart = far(adapted, scores(args, family, folder / "merged.safetensors"))
    changed = far(adapted, expected)
    if apart > 1e-4 or changed < 1e-3:
        raise Failed(f"tuned: {apart} from the merged weights, {changed} from the untuned")

    report = folder / "report.json"
    settings = [f"model.weights={whole}", "model.mode=autonomous", f"model.family={family}"]
    run(
        args.binary, "process", args.loop, "--output", folder / "out.mkv", "--report", report,
        *(part for setting in settings for part in ("--set", setting)),
    )  # fmt: skip
    report = json.loads(report.read_text())
    frames = report["frames"]
    if not frames["in"] == frames["segmented"] > 0:
        raise Failed(f"frames {frames}")
    stages = report["stages_ms"]
    adapters = len(widths(state)) or "none"
    return (
        f"| `{family}` | {report['peak_rss_bytes'] / 2**20:.0f} | {report['model']['weights_bytes'] / 2**20:.0f} | {worst:.0e} "
        f"| {adapters} | {apart:.0e} | {frames['segmented']} of {frames['in']} | {stages['encode']['p50']:.0f} "
        f"| {stages['decode']['p50']:.0f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/sonomask")
    parser.add_argument("--picture", type=pathlib.Path, required=True)
    parser.add_argument("--loop", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("families", nargs="*", default=FAMILIES)
    args = parser.parse_args()
    width, height = Image.open(args.picture).size
    x0, y0, x1, y1 = width // 3, height // 3, 2 * width // 3, height // 2
    heading = [
        "| family | peak memory, MiB | of it weights | forms apart | adapted blocks | LoRA merged apart | frames | encode ms | decode ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        rough = pathlib.Path(folder, "rough.png")
        drawn = np.zeros((height, width), np.uint8)
        drawn[y0:y1, x0:x1] = 255
        Image.fromarray(drawn).save(rough)
        args.prompts = [
            "--box", f"box={x0},{y0},{x1},{y1}", "--point", f"point={(x0 + x1) // 2},{(y0 + y1) // 2},+",
            "--mask-prompt", f"mask={rough}",
        ]  # fmt: skip
        failed = table(heading, args.families, lambda family, inner: check(args, family, inner), args.out)
    sys.exit(failed)


if __name__ == "__main__":
    main()
