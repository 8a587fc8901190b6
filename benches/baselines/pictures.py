"""Labelled pictures as `sonomask train` reads them: images/ and masks/ of the same names, masks with palette indices."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
# How LiteMedSAM is fed, from the script whose answers the Rust tests compare with.
from make_lite_medsam_fixtures import SIDE, new_size, pad, preprocess, stub_timm  # noqa: E402, F401


@dataclass
class Picture:
    """`rgb` [h, w, 3] and `labels` [h, w] of bytes; `inside` [classes, h, w] of booleans."""

    name: str
    rgb: np.ndarray
    labels: np.ndarray
    inside: np.ndarray

    def tensor(self):
        """[3, 256, 256], as LiteMedSAM is fed."""
        return torch.from_numpy(preprocess(self.rgb)[1]).permute(2, 0, 1)

    def cover(self):
        """How much of each pixel of the network's input each class covers, [classes, 256, 256]."""
        h, w = new_size(*self.labels.shape)
        shares = [cv2.resize(m.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) for m in self.inside]
        return torch.from_numpy(pad(np.stack(shares, -1))).permute(2, 0, 1)


class DataError(Exception):
    """What is wrong with the pictures or the lists, in words."""


def read_pictures(folder, classes):
    """All pictures of `folder`, in the order of their names. `classes` has labels by name."""
    files = {kind: {p.stem: p for p in (folder / kind).glob("*.*")} for kind in ("images", "masks")}
    alone = sorted(files["images"].keys() ^ files["masks"].keys())
    if alone or not files["images"]:
        raise DataError(
            f"{folder}: expected images/ and masks/ of the same names, not in both: {alone or 'none at all'}"
        )
    return [
        read_picture(name, files["images"][name], files["masks"][name], classes) for name in sorted(files["images"])
    ]


def read_picture(name, image, mask, classes):
    rgb = np.ascontiguousarray(Image.open(image).convert("RGB"))
    labels = Image.open(mask)
    if labels.mode not in ("P", "L"):
        raise DataError(f"{mask}: its mode is {labels.mode}, expected a palette or gray values that are labels")
    labels = np.ascontiguousarray(labels)
    if labels.shape != rgb.shape[:2]:
        raise DataError(f"{mask}: {labels.shape} is not the size of its image, {rgb.shape[:2]}")
    return Picture(name, rgb, labels, np.stack([labels == label for label in classes.values()]))


def read_list(file, known):
    """Names in `file`, one a line, with or without extension, `#` for comments: as `sonomask train` reads and writes them."""
    lines = [line.split("#")[0].strip() for line in file.read_text().splitlines()]
    names = {line if line in known else Path(line).stem for line in lines if line}
    if unknown := sorted(names - set(known)):
        raise DataError(f"{file}: there are no pictures of these names: {', '.join(unknown)}")
    return names


def restore(logits, shape):
    """Logits [classes, 256, 256] to masks [classes, h, w] of a picture of that shape."""
    h, w = new_size(*shape)
    full = F.interpolate(logits[None, :, :h, :w].float(), size=tuple(shape), mode="bilinear", align_corners=False)
    return (full[0] > 0).numpy()


def score(pictures, masks, classes):
    """Dice and IoU by class: means over pictures that have the class, at their own size; an empty mask scores 0."""
    found = {}
    for at, name in enumerate(classes):
        pairs = [(m[at], p.inside[at]) for m, p in zip(masks, pictures, strict=True)]
        both = np.array([(m & t).sum() for m, t in pairs if t.any()], float)
        mask = np.array([m.sum() for m, t in pairs if t.any()], float)
        truth = np.array([t.sum() for _, t in pairs if t.any()], float)
        absent = [bool(m.any()) for m, t in pairs if not t.any()]
        found[name] = {
            "dice": float(np.mean(2 * both / (mask + truth))) if len(truth) else None,
            "iou": float(np.mean(both / (mask + truth - both))) if len(truth) else None,
            "pictures": len(truth),
            "absent": len(absent),
            "imagined": sum(absent),
        }
    return found
