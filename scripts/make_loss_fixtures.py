#!/usr/bin/env python3
"""Writes losses and their gradients, which tests/losses.rs compares with.

The focal loss and the generalised IoU are torchvision 0.26.0's own functions, cross-entropy and L1 PyTorch's; the paper's
focal loss (arXiv 2409.06821, equation 2) and Dice are written down from their definitions. Everything in 64 bits, gradients by
autograd. Needs torch 2.11.0, torchvision 0.26.0, safetensors.

    make_loss_fixtures.py --out tests/fixtures
"""

import argparse
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

PAIRS, SIDE = 5, 16
ABSENT = 3  # the pair whose class is not in the picture


def inputs():
    random = torch.Generator().manual_seed(20261124)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def blob(cx, cy, r):
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        return (((x - cx) ** 2 + (y - cy) ** 2) <= r * r).double()

    mask = torch.stack([blob(5, 6, 3), blob(9, 9, 5), blob(2, 12, 2), torch.zeros(SIDE, SIDE), blob(8, 4, 4)])[:, None]
    boxes = torch.zeros(PAIRS, 4, dtype=torch.float64)
    for i, m in enumerate(mask[:, 0]):
        if m.any():
            rows, columns = m.any(1).nonzero(), m.any(0).nonzero()
            boxes[i] = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / SIDE
    near = torch.rand(PAIRS, 2, generator=random, dtype=torch.float64) * 0.5
    size = torch.rand(PAIRS, 2, generator=random, dtype=torch.float64) * 0.5 + 0.05
    answer = {
        # Some logits are far on the wrong side, where a careless logarithm is infinite or has no gradient.
        "mask": normal(PAIRS, 1, SIDE, SIDE) * 6.0 - 2.0,
        "interim": normal(PAIRS, 1, SIDE, SIDE) * 20.0,
        "boxes": torch.cat([near, near + size], 1),
        "presence": torch.tensor([[3.0], [-1.5], [12.0], [0.4], [-14.0]], dtype=torch.float64),
    }
    # Rounded first, so that both sides start from the same numbers.
    answer = {k: v.float().double().requires_grad_() for k, v in answer.items()}
    truth = {"mask": mask, "boxes": boxes.float().double(), "present": (mask.sum((1, 2, 3)) > 0).double()}
    return answer, truth


def paper_focal(logits, y, alpha=0.7, gamma=3.0):
    p = logits.sigmoid()
    # log p and log(1 - p), in the form that stays finite.
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    return (-y * (1 - p) ** gamma * log_p - alpha * (1 - y) * p**gamma * log_q).mean((1, 2, 3))


def dice(logits, y, smooth=1e-5):
    p = logits.sigmoid()
    return 1 - (2 * (p * y).sum((1, 2, 3)) + smooth) / (p.sum((1, 2, 3)) + y.sum((1, 2, 3)) + smooth)


def paper(a, t):
    there = t["present"] > 0
    return {
        "mask": 10 * paper_focal(a["mask"], t["mask"]).mean(),
        "interim": 10 * paper_focal(a["interim"], t["mask"]).mean(),
        "bbox": F.l1_loss(a["boxes"][there], t["boxes"][there])
        + generalized_box_iou_loss(a["boxes"][there], t["boxes"][there], reduction="mean"),
        "presence": F.binary_cross_entropy_with_logits(a["presence"][:, 0], t["present"]),
    }


def coded(a, t):
    there = t["present"] > 0

    def focal(logits, alpha):
        return sigmoid_focal_loss(logits, t["mask"], alpha=alpha, gamma=3.0, reduction="none").mean((1, 2, 3))[there]

    clipped = a["presence"][:, 0].clamp(-10, 10)
    return {
        "mask": ((dice(a["mask"], t["mask"])[there] + 10 * focal(a["mask"], 0.7)) / 2).mean(),
        "interim": 100 * focal(a["interim"], 0.6).mean(),
        "bbox": generalized_box_iou_loss(a["boxes"][there], t["boxes"][there], reduction="mean"),
        "presence": F.binary_cross_entropy_with_logits(clipped, t["present"] * 0.9 + 0.05),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    answer, truth = inputs()
    out = {f"answer.{k}": v.detach().float() for k, v in answer.items()}
    out |= {f"truth.{k}": v.float() for k, v in truth.items()}
    for name, terms in (("paper", paper), ("coded", coded)):
        for value in answer.values():
            value.grad = None
        found = terms(answer, truth)
        sum(found.values()).backward()
        out |= {f"{name}.{k}": v.detach().reshape(1).float() for k, v in found.items()}
        out |= {f"{name}.grad.{k}": v.grad.float() for k, v in answer.items()}
    save_file({k: v.contiguous() for k, v in out.items()}, args.out / "losses.safetensors")


if __name__ == "__main__":
    main()
