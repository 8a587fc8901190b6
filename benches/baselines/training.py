"""What is common to the floors that learn."""

from __future__ import annotations

import math
import pickle
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


def anneal(optimizer, minutes, spent=0.0):
    """Yields the share of the time that is over until `minutes` of the threads' CPU time are, so that what else a machine does
    takes nothing away, while learning rates fall along half a cosine. `spent` is the share that an earlier run used up. What is
    learned last is what counts: nothing is chosen by the pictures that are held out."""
    highest = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    started, whole = time.process_time(), 60 * minutes * torch.get_num_threads()
    while (share := spent + (time.process_time() - started) / whole) < 1:
        for group, top in zip(optimizer.param_groups, highest, strict=True):
            # Up for a fiftieth of the time, so that a fresh network is not thrown off.
            group["lr"] = top * min(1.0, share * 50 + 0.02) * 0.5 * (1 + math.cos(math.pi * share))
        yield share


class Kept:
    """What a run that takes hours has learned so far, in a file that the next run goes on with."""

    EVERY = 60
    """Seconds from one writing to the next."""

    def __init__(self, path, settings):
        self.path, self.settings, self.written = path, settings, time.monotonic()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def read(self):
        """What was written last, if it belongs to a run of these settings."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, weights_only=True)
            settings = state["settings"]
        except (KeyError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
            raise OSError(f"{self.path}: holds no run that could go on: {error}") from None
        if settings != self.settings:
            raise OSError(f"{self.path}: belongs to another run; remove it, or keep this one elsewhere")
        return state

    def write(self, state, now=False):
        """Writes what `state` makes, unless something was written a moment ago and it need not be `now`."""
        if self.path is None or not now and time.monotonic() - self.written < self.EVERY:
            return
        self.written = time.monotonic()
        partial = self.path.with_name(self.path.name + ".part")
        torch.save({"settings": self.settings, **state()}, partial)
        partial.replace(self.path)
