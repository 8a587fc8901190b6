"""The third floor: a U-Net (https://arxiv.org/abs/1505.04597) that starts from nothing."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import nn

from pictures import new_size, pad, restore
from training import Kept, anneal, mask_loss

WIDTHS = (16, 32, 64, 128, 192)
"""Channels at 256, 128, ... pixels."""
BATCH = 4
PROBABILITY = 0.7
"""Of each change that a view makes."""


class Double(nn.Sequential):
    """Two convolutions."""

    def __init__(self, inputs, outputs):
        def layer(inputs):
            return [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.InstanceNorm2d(outputs, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]

        super().__init__(*layer(inputs), *layer(outputs))


class UNet(nn.Module):
    """[n, 1, 256, 256] to logits [n, classes, 256, 256]."""

    def __init__(self, classes):
        super().__init__()
        self.down = nn.ModuleList(Double(i, o) for i, o in zip((1, *WIDTHS), WIDTHS, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for o, i in zip(WIDTHS, WIDTHS[1:], strict=False))
        self.join = nn.ModuleList(Double(2 * o, o) for o in WIDTHS[:-1])
        self.out = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x):
        skips = []
        for at, block in enumerate(self.down):
            x = block(x if at == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for at in reversed(range(len(self.up))):
            x = self.join[at](torch.cat([skips[at], self.up[at](x)], 1))
        return self.out(x)


def draw_view(rng, h, w):
    """A random view of a picture, of the kinds that `sonomask train` draws by default (`upright` in configs/train.toml): 2 x 3, from
    places of the view to places of the picture. Left and right change sides, moves by up to 10 % of the side, turns by up to 25
    degrees, cuts of 0.65 to 1 of the area."""
    centre = np.array([[1, 0, (w - 1) / 2], [0, 1, (h - 1) / 2], [0, 0, 1.0]])
    inner = np.eye(3)
    if rng.random() < 0.5:
        inner = inner @ np.diag([-1.0, 1, 1])
    if rng.random() < PROBABILITY:
        move = np.eye(3)
        move[:2, 2] = rng.uniform(-0.1, 0.1, 2) * (w, h)
        inner = inner @ move
    if rng.random() < PROBABILITY:
        angle = math.radians(rng.uniform(-25, 25))
        c, s = math.cos(angle), math.sin(angle)
        inner = inner @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    if rng.random() < PROBABILITY:
        area, aspect = rng.uniform(0.65, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        sides = np.minimum(1, (math.sqrt(area * aspect), math.sqrt(area / aspect)))
        cut = np.diag([*sides, 1.0])
        cut[:2, 2] = rng.uniform(-0.5, 0.5, 2) * (1 - sides) * (w, h)
        inner = inner @ cut
    return (centre @ inner @ np.linalg.inv(centre))[:2]


def draw_gamma(rng):
    """The power of its brightness that a view is raised to, 2 to the power of at most 0.6 either way."""
    return 2 ** rng.uniform(-0.6, 0.6) if rng.random() < PROBABILITY else 1.0


class Small:
    """A picture at the size of the network's input, in memory, to be seen in many ways."""

    def __init__(self, picture):
        h, w = new_size(*picture.labels.shape)
        gray = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        self.gray = cv2.resize(gray, (w, h), interpolation=cv2.INTER_AREA)
        self.cover = np.ascontiguousarray(picture.cover()[:, :h, :w].permute(1, 2, 0).numpy())

    def seen(self, view=None, gamma=1.0):
        """Input [1, 256, 256], brightness stretched to 0..1, and truth [classes, 256, 256]."""
        gray, cover = self.gray, self.cover
        if view is not None:
            h, w = gray.shape
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            gray = cv2.warpAffine(gray, view, (w, h), flags=flags)
            cover = cv2.warpAffine(cover, view, (w, h), flags=flags).reshape(h, w, -1)
        low, high = gray.min(), gray.max()
        gray = pad(((gray - low) / max(high - low, 1e-8)) ** gamma)
        return torch.from_numpy(gray)[None], torch.from_numpy(pad(cover)).permute(2, 0, 1)


def unet(training, validation, classes, minutes, seed, keep=None, settings=()):
    """Masks of `validation` after learning for `minutes`, and how often each training picture was seen. With `keep`, a file, a run of
    the same `settings` that was stopped goes on where it was."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    small = [Small(p) for p in training]
    net = UNet(classes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    batch, batches, share = min(BATCH, len(small)), 0, 0.0

    def state():
        return {
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": rng.bit_generator.state,
            "batches": batches,
            "share": share,
        }

    names = [p.name for p in training]
    kept = Kept(keep, [*settings, minutes, seed, torch.get_num_threads(), list(WIDTHS), BATCH, names])
    if (before := kept.read()) is not None:
        net.load_state_dict(before["net"])
        optimizer.load_state_dict(before["optimizer"])
        rng.bit_generator.state = before["rng"]
        batches, share = before["batches"], before["share"]
        print(f"goes on after {100 * share:.0f} %", flush=True)
    for share in anneal(optimizer, minutes, share):
        kept.write(state)
        pick = rng.choice(len(small), batch, replace=False)
        views = [small[i].seen(draw_view(rng, *small[i].gray.shape), draw_gamma(rng)) for i in pick]
        loss = mask_loss(net(torch.stack([v[0] for v in views])), torch.stack([v[1] for v in views]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        batches += 1
    share = 1.0
    kept.write(state, now=True)
    net.eval()
    masks = []
    with torch.no_grad():
        for picture in validation:
            masks.append(restore(net(Small(picture).seen()[0][None])[0], picture.labels.shape))
    return masks, batches * batch / len(small)
