"""Trains SAM 2.1 (Hiera tiny, 128 pixels) from nothing on simulated clips, so that its memory tracks the phantom's structures.

`clips` makes the clips with the program, `train` learns from them (first single pictures, then clips through the memory),
`evaluate` measures a checkpoint, `pictures` writes some of the frames as a data set from which `sonomask train` teaches a prompt
predictor (predictor.toml). The checkpoint has the names and shapes of the published sam2.1_hiera_tiny; it knows
phantoms and nothing else.

To be learned in an hour of two CPU cores, some blocks are left at identity: their last projections are zero, and training
skips them. The saved network has them all, and gives the same answers.
"""

import argparse
import copy
import json
import math
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

SIZE = 128
CLASSES = ("nerve", "vessel", "bone")
SKIP_BLOCKS = (4, 6, 8, 11)  # of the image encoder; those whose windows are mostly padding at this size
SKIP_LAYERS = (2, 3)  # of the memory attention
VISIBLE = 10  # pixels from which a structure counts as in view


# --- Clips ---


def settings(seed, occluded):
    """Random settings of one clip of 24 frames. `occluded`: one structure disappears for a while."""
    r = random.Random(seed)
    sector = r.random() < 0.25
    found = {
        "seed": seed,
        "width": r.choice([256, 300, 342]),
        "height": 256,
        "geometry": "sector" if sector else "linear",
        "motion_mm": round(r.uniform(0, 7), 2),
        "motion_hz": round(r.uniform(0.1, 1.2), 3),
        "pulse_bpm": round(r.uniform(45, 130), 1),
        "pulse_fraction": round(r.uniform(0, 0.25), 3),
        "decorrelation_rate": round(10 ** r.uniform(-1, 0.9), 3),
        "attenuation_db": round(r.uniform(4, 14), 2),
        "gain_db": round(r.uniform(-6, 6), 2),
    }
    if r.random() < 0.25:
        found["out_of_plane_mm"] = round(r.uniform(2, 9), 2)
    if occluded:
        start = r.randint(3, 8)
        found["occlusion"] = {"start": start, "end": start + r.randint(4, 14), "class": r.choice(CLASSES)}
    return found


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def make_clip(program, seed, occluded, frames, target):
    chosen = settings(seed, occluded)
    with tempfile.TemporaryDirectory() as folder:
        video, truth = Path(folder, "a.mp4"), Path(folder, "truth")
        command = [program, "phantom", "--output", video, "--truth", truth, "--frames", str(frames)]
        for name, value in chosen.items():
            command += ["--set", f"phantom.{name}={toml(value)}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        reader, images = cv2.VideoCapture(str(video)), []
        while (read := reader.read())[0]:
            images.append(cv2.resize(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY), (SIZE, SIZE), interpolation=cv2.INTER_AREA))
        labels = np.zeros((len(images), SIZE, SIZE), np.uint8)
        for t in range(len(images)):
            for label, name in enumerate(CLASSES, 1):
                mask = cv2.imread(str(truth / f"{t:06}_{name}.png"), cv2.IMREAD_GRAYSCALE)
                labels[t][cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA) > 127] = label
    written = target.with_suffix(".part.npz")
    np.savez(written, images=np.stack(images), labels=labels, settings=json.dumps(chosen))
    os.replace(written, target)


def clips(args):
    """Every other clip has an occlusion."""
    for part, count, first in (("val", args.val, 30000), ("train", args.train, 20000)):
        folder = args.cache / part
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            target = folder / f"{first + i}.npz"
            if not target.exists():
                make_clip(args.program, first + i, i % 2 == 1, args.frames, target)


def pictures(args):
    """Every sixth frame of the training clips, also those on which a structure is hidden."""
    for part in ("imgs", "gts"):
        (args.out / part).mkdir(parents=True, exist_ok=True)
    for name, (images, labels, _) in load(args.cache / "train", {}).items():
        for t in range(0, len(images), 6):
            file = f"{Path(name).stem}_{t:02}.png"
            cv2.imwrite(str(args.out / "imgs" / file), images[t])
            cv2.imwrite(str(args.out / "gts" / file), labels[t])


def load(folder, known):
    """Adds the clips of `folder` that `known` has not got yet."""
    for path in sorted(folder.glob("[0-9]*[0-9].npz")):
        if path.name not in known and not path.name.endswith(".part.npz"):
            with np.load(path) as data:
                known[path.name] = (data["images"], data["labels"], json.loads(str(data["settings"])))
    return known


def augment(images, labels, r):
    """One mirror image, crop and gray curve for all frames of a clip."""
    scale, angle = r.uniform(0.85, 1.3), r.uniform(-8, 8)
    turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), angle, scale)
    turn[:, 2] += [r.uniform(-SIZE, SIZE) / 10, r.uniform(-SIZE, SIZE) / 10]
    gamma, gain = r.uniform(0.8, 1.25), r.uniform(0.85, 1.15)
    curve = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255).astype(np.uint8)
    mirror = r.random() < 0.5
    shown, marked = [], []
    for image, label in zip(images, labels, strict=True):
        if mirror:
            image, label = image[:, ::-1].copy(), label[:, ::-1].copy()
        shown.append(curve[cv2.warpAffine(image, turn, (SIZE, SIZE))])
        marked.append(cv2.warpAffine(label, turn, (SIZE, SIZE), flags=cv2.INTER_NEAREST))
    return np.stack(shown), np.stack(marked)


def to_input(images):
    """[n, h, w] of gray bytes to the network's input."""
    x = torch.from_numpy(np.ascontiguousarray(images)).float()[:, None].expand(-1, 3, -1, -1) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


def to_masks(labels):
    """[n, h, w] to [n * 3, 1, h, w]."""
    of_class = torch.from_numpy(np.ascontiguousarray(labels))[:, None] == torch.arange(1, 4)[:, None, None]
    return of_class.flatten(0, 1)[:, None].float()


# --- Network ---


class Tracker(nn.Module):
    """The official network, what its decoder said last, and a helper that reads the classes off the features."""

    def __init__(self):
        super().__init__()
        from sam2.build_sam import build_sam2

        grid = [SIZE // 16, SIZE // 16]
        attention = "++model.memory_attention.layer"
        self.net = build_sam2(
            "configs/sam2.1/sam2.1_hiera_t.yaml",
            device="cpu",
            hydra_overrides_extra=[
                f"++model.image_size={SIZE}",
                f"{attention}.self_attention.feat_sizes={grid}",
                f"{attention}.cross_attention.feat_sizes={grid}",
                f"{attention}.dropout=0",
                f"{attention}.self_attention.dropout=0",
                f"{attention}.cross_attention.dropout=0",
            ],
        )
        self.helper = nn.ModuleList(nn.Conv2d(c, 3 * up * up, 1) for c, up in ((32, 1), (64, 2), (256, 4)))
        self.said = None
        self.net.sam_mask_decoder.register_forward_hook(lambda _m, _i, out: setattr(self, "said", out))
        trunk, memory = self.net.image_encoder.trunk, self.net.memory_attention
        nn.init.trunc_normal_(trunk.pos_embed, std=0.02)
        nn.init.trunc_normal_(trunk.pos_embed_window, std=0.02)
        for layer in self.net.memory_encoder.fuser.layers:
            nn.init.constant_(layer.gamma, 0.1)
        for i in SKIP_BLOCKS:
            block = trunk.blocks[i]
            self.skip(block, (block.attn.proj, block.mlp.layers[-1]))
            block.forward = lambda x: x
        for i in SKIP_LAYERS:
            layer = memory.layers[i]
            self.skip(layer, (layer.self_attn.out_proj, layer.cross_attn_image.out_proj, layer.linear2))
            layer.forward = lambda tgt, **_rest: tgt

    @staticmethod
    def skip(block, last):
        for layer in last:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        block.requires_grad_(False)

    def features(self, images):
        return self.net.forward_image(to_input(images))

    def step(self, features, pick, index, first, points, mask, outputs, remember):
        """One frame of all objects: rows `pick` of the features, each for the three classes."""
        many = {
            "backbone_fpn": [x[pick].repeat_interleave(3, 0) for x in features["backbone_fpn"]],
            "vision_pos_enc": [x[pick].repeat_interleave(3, 0) for x in features["vision_pos_enc"]],
        }
        _, feats, pos, sizes = self.net._prepare_backbone_features(many)
        return self.net.track_step(index, first, feats, pos, sizes, points, mask, outputs, 1000, run_mem_encoder=remember)


def prompt(kind, masks, r):
    """`masks` [n, 1, h, w] as the mask, box or click that points at it."""
    if kind == "mask":
        return None, masks
    coordinates = []
    for mask in masks[:, 0].numpy():
        ys, xs = np.nonzero(mask)
        if not len(xs):  # nothing to point at: such an object is left out of the loss
            coordinates.append([[0, 0], [1, 1]] if kind == "box" else [[0, 0]])
        elif kind == "box":
            box = [[xs.min(), ys.min()], [xs.max() + 1, ys.max() + 1]]
            coordinates.append([[v + (r.gauss(0, SIZE / 128) if r else 0) for v in corner] for corner in box])
        else:
            inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
            deep = np.argwhere(inside >= (0.4 if r else 1) * inside.max())
            y, x = deep[r.randrange(len(deep)) if r else len(deep) // 2]
            coordinates.append([[x, y]])
    labels = torch.tensor([[2, 3] if kind == "box" else [1]] * len(masks), dtype=torch.int32)
    return {"point_coords": torch.tensor(np.array(coordinates), dtype=torch.float32), "point_labels": labels}, None


# --- Learning ---


def per_mask(logits, truth):
    """Cross-entropy and 1 - Dice of each mask: [n, m, h, w] and [n, 1, h, w] to [n, m]."""
    truth = truth.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((2, 3))
    inside = logits.sigmoid()
    dice = (2 * (inside * truth).sum((2, 3)) + 1) / (inside.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return 8 * entropy + 1 - dice


def loss_of(said, masks, usable):
    """Of the decoder's answer. An object that is not in view has no mask to learn, only its absence."""
    logits, ious, _, score = said
    small, area = F.avg_pool2d(masks, 4), masks.sum((1, 2, 3))
    seen, gone = usable & (area >= VISIBLE), usable & (area == 0)
    total = logits.sum() * 0
    if seen.any():
        each = per_mask(logits[seen], small[seen])
        total = total + each.min(1).values.mean() + 0.3 * each.mean()
        with torch.no_grad():
            found, true = logits[seen] > 0, small[seen] > 0.5
            real = (found & true).sum((2, 3)) / (found | true).sum((2, 3)).clamp(min=1)
        total = total + F.mse_loss(ious[seen], real)
    sure = seen | gone
    if sure.any():
        total = total + 0.5 * F.binary_cross_entropy_with_logits(score[sure, 0], seen[sure].float())
    return total


def helper_loss(tracker, features, masks):
    truth = F.avg_pool2d(masks.view(-1, 3, SIZE, SIZE), 4)
    return sum(
        per_mask(F.pixel_shuffle(head(x), up).flatten(0, 1)[:, None], truth.flatten(0, 1)[:, None]).mean()
        for head, x, up in zip(tracker.helper, features["backbone_fpn"], (1, 2, 4), strict=True)
    ) / 3


def picture_step(tracker, data, args, r):
    images, labels = [], []
    for _ in range(args.pictures):
        shown, marked, _ = r.choice(data)
        t = r.randrange(len(shown))
        shown, marked = augment(shown[t : t + 1], marked[t : t + 1], r)
        images.append(shown), labels.append(marked)
    masks = to_masks(np.concatenate(labels))
    features = tracker.features(np.concatenate(images))
    kind = r.choices(("mask", "box", "click"), (0.2, 0.45, 0.35))[0]
    empty = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    tracker.step(features, slice(None), 0, True, *prompt(kind, masks, r), empty, False)
    usable = masks.sum((1, 2, 3)) >= VISIBLE
    return loss_of(tracker.said, masks, usable) + helper_loss(tracker, features, masks)


def choose(data, frames, r):
    """A clip and rising frame numbers in it, the first with every structure in view."""
    while True:
        shown, marked, _ = r.choice(data)
        gaps = [r.choices((1, 2, 3, 4, 6), (4, 3, 2, 2, 1))[0] for _ in range(frames - 1)]
        start = r.randrange(max(1, len(shown) - sum(gaps)))
        at = [start + sum(gaps[:i]) for i in range(frames)]
        if at[-1] >= len(shown) or (r.random() < 0.4 and len(set(np.unique(marked[at]))) < 4):
            continue
        order = at[::-1] if r.random() < 0.3 else at
        shown, marked = augment(shown[order], marked[order], r)
        if np.all(np.bincount(marked[0].ravel(), minlength=4)[1:] >= VISIBLE):
            return [abs(t - order[0]) for t in order], shown, marked


def clip_step(tracker, data, args, r):
    frames = r.choices((2, 3, 4, 5), (1, 3, 4, 2))[0]
    picked = [choose(data, frames, r) for _ in range(args.clips)]
    numbers = picked[0][0]  # the first clip's distances stand for all: only the order matters to the others
    images = np.concatenate([p[1] for p in picked])
    masks = to_masks(np.concatenate([p[2] for p in picked])).view(args.clips, frames, 3, 1, SIZE, SIZE)
    with torch.set_grad_enabled(not args.freeze):
        features = tracker.features(images)
    kind = r.choices(("mask", "box", "click"), (0.5, 0.35, 0.15))[0]
    outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    total = 0 if args.freeze else 0.3 * helper_loss(tracker, features, masks)
    for i, number in enumerate(numbers):
        rows = [clip * frames + i for clip in range(args.clips)]
        truth = masks[:, i].flatten(0, 1)
        given = prompt(kind, truth, r) if i == 0 else (None, None)
        out = tracker.step(features, rows, number, i == 0, *given, outputs, i + 1 < frames)
        outputs["cond_frame_outputs" if i == 0 else "non_cond_frame_outputs"][number] = out
        total = total + loss_of(tracker.said, truth, torch.ones(len(truth), dtype=torch.bool)) * (0.5 if i == 0 else 1)
    return total / frames


def validate(tracker, data, frames):
    """Dice of frame 0 by each prompt, and of the frames tracked from there, in view and after having been hidden."""
    tracker.eval()
    got = {}

    def put(name, value):
        got.setdefault(name, []).append(float(value))

    with torch.inference_mode():
        for shown, marked, chosen in data:
            features = tracker.features(shown[:frames])
            masks = to_masks(marked[:frames]).view(-1, 3, 1, SIZE, SIZE)
            for kind in ("mask", "box", "click"):
                outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
                for t in range(frames if kind != "click" else 1):
                    given = prompt(kind, masks[0], None) if t == 0 else (None, None)
                    out = tracker.step(features, [t], t, t == 0, *given, outputs, True)
                    outputs["cond_frame_outputs" if t == 0 else "non_cond_frame_outputs"][t] = out
                    # A mask given as the prompt is the answer itself; what the decoder makes of it is measured instead.
                    low = tracker.said[0][:, :1] if (kind, t) == ("mask", 0) else out["pred_masks"]
                    found = F.interpolate(low, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0] > 0
                    true = masks[t, :, 0] > 0
                    hidden = chosen.get("occlusion", {})
                    for c, name in enumerate(CLASSES):
                        area, both = int(true[c].sum()), 2 * int((found[c] & true[c]).sum())
                        if area >= VISIBLE:
                            dice = both / (area + int(found[c].sum()))
                            put(f"{kind} {'frame 0' if t == 0 else 'tracked'} {name}", dice)
                            if hidden.get("class") == name and t >= hidden["end"]:
                                put(f"{kind} after occlusion", dice)
                            if t:
                                put(f"{kind} seen", out["object_score_logits"][c, 0] > 0)
                        elif area == 0:
                            put(f"{kind} known hidden", out["object_score_logits"][c, 0] <= 0)
    tracker.train()
    return {name: round(sum(v) / len(v), 3) for name, v in sorted(got.items())}


def save(tracker, path):
    whole = {k: v.detach().float().contiguous() for k, v in tracker.net.state_dict().items()}
    save_file(whole, f"{path}.part")
    os.replace(f"{path}.part", path)


def train(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    r = random.Random(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tracker = Tracker().train()
    held = list(load(args.cache / "val", {}).values())[:4]
    state = {"phase": 0, "elapsed": 0.0, "steps": [0, 0]}
    state_file = args.out / "state.pt"
    kept = torch.load(state_file) if state_file.exists() else None
    if kept:
        tracker.load_state_dict(kept["tracker"])
        state = kept["state"]

    def note(text):
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    known = {}
    for phase, minutes, make, top in (
        (0, args.minutes_pictures, picture_step, args.lr_pictures),
        (1, args.minutes_clips, clip_step, args.lr_clips),
    ):
        if phase < state["phase"]:
            continue
        if phase == 1 and args.freeze:
            tracker.net.image_encoder.requires_grad_(False)
        groups = [p for p in tracker.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(groups, lr=top, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        if kept and kept["state"]["phase"] == phase:
            optimizer.load_state_dict(kept["optimizer"])
        last, saved, recent = time.process_time(), time.monotonic(), []
        while (share := state["elapsed"] / (60 * minutes)) < 1:
            if not known or state["steps"][phase] % 25 == 0:
                load(args.cache / "train", known)
            for group in optimizer.param_groups:
                group["lr"] = top * min(1.0, share * 30 + 0.02) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
            loss = make(tracker, list(known.values()), args, r)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(groups, 1.0)
            if torch.isfinite(norm):
                optimizer.step()
            state["steps"][phase] += 1
            now = time.monotonic()
            spent = time.process_time()
            state["elapsed"], last = state["elapsed"] + (spent - last) / args.threads, spent
            recent.append(loss.item())
            if state["steps"][phase] % 20 == 0:
                pace = 60 * minutes * share / state["steps"][phase]
                note(f"phase {phase} step {state['steps'][phase]} loss {np.mean(recent):.3f} {pace:.2f} s/step {len(known)} clips")
                recent = []
            if now - saved > 60 * args.every or state["elapsed"] >= 60 * minutes:
                note(json.dumps(validate(tracker, held, args.val_frames)))
                save(tracker, args.out / "sam2.1_hiera_tiny_phantom.safetensors")
                whole = {"tracker": tracker.state_dict(), "optimizer": optimizer.state_dict(), "state": copy.deepcopy(state)}
                torch.save(whole, f"{state_file}.part")
                os.replace(f"{state_file}.part", state_file)
                saved, last = time.monotonic(), time.process_time()  # what validation takes is not counted as training
        state["phase"], state["elapsed"], kept = phase + 1, 0.0, None


def evaluate(args):
    torch.set_num_threads(args.threads)
    tracker = Tracker()
    tracker.net.load_state_dict(load_file(args.weights))
    for name, value in validate(tracker, list(load(args.cache / "val", {}).values()), args.val_frames).items():
        print(f"{name:28} {value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (clips, pictures, train, evaluate):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument("--cache", type=Path, required=True, help="folder of the clips")
        command.add_argument("--threads", type=int, default=2)
        if run is clips:
            command.add_argument("--program", default="target/release/sonomask")
            command.add_argument("--train", type=int, default=240)
            command.add_argument("--val", type=int, default=8)
            command.add_argument("--frames", type=int, default=24)
            continue
        if run is pictures:
            command.add_argument("--out", type=Path, required=True, help="folder of the data set")
            continue
        command.add_argument("--val-frames", type=int, default=9 if run is train else 20)
        if run is evaluate:
            command.add_argument("--weights", type=Path, required=True)
            continue
        command.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; an interrupted run goes on from it")
        command.add_argument("--minutes-pictures", type=float, default=25, help="of CPU time of each thread")
        command.add_argument("--minutes-clips", type=float, default=40)
        command.add_argument("--lr-pictures", type=float, default=5e-4)
        command.add_argument("--lr-clips", type=float, default=4e-4)
        command.add_argument("--pictures", type=int, default=8, help="pictures of a step")
        command.add_argument("--clips", type=int, default=2, help="clips of a step")
        command.add_argument("--freeze", action="store_true", help="clips leave the image encoder as it is")
        command.add_argument("--every", type=float, default=4, help="minutes between checkpoints")
        command.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
