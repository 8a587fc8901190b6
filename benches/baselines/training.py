"""What is common to the floors that learn."""

from __future__ import annotations

import math
import time

import torch
import torch.nn.functional as F


def mask_loss(logits, truth):
    """Cross-entropy and 1 - Dice, of classes each for itself. Shapes [n, classes, h, w]; truth is 0 to 1."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth)
    inside = logits.sigmoid()
    both = (inside * truth).sum((2, 3))
    dice = (2 * both + 1) / (inside.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return entropy + (1 - dice).mean()


def anneal(optimizer, minutes):
    """Yields until `minutes` of the threads' CPU time are over, so that what else a machine does takes nothing away, while
    learning rates fall along half a cosine. What is learned last is what counts: nothing is chosen by the pictures that are
    held out."""
    highest = [group["lr"] for group in optimizer.param_groups]
    started, whole = time.process_time(), 60 * minutes * torch.get_num_threads()
    while (share := (time.process_time() - started) / whole) < 1:
        for group, top in zip(optimizer.param_groups, highest, strict=True):
            # Up for a fiftieth of the time, so that a fresh network is not thrown off.
            group["lr"] = top * min(1.0, share * 50 + 0.02) * 0.5 * (1 + math.cos(math.pi * share))
        yield share
