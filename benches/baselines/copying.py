"""The first floor: the mask of the training picture that is most alike. Nothing is learned."""

from __future__ import annotations

import cv2
import numpy as np


def shrunk(side):
    """Gray values of the whole picture at `side` x `side`, with their mean taken away: products are correlations."""

    def feature(picture, _):
        gray = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA)
        return (small - small.mean()).ravel()

    return feature


def pooled(side):
    """Means of the embedding over `side` x `side` fields of the picture, without its padding."""

    def feature(_, embedding):
        c, h, w = embedding.shape
        flat = np.ascontiguousarray(embedding.transpose(1, 2, 0), np.float32).reshape(h, w, c)
        # cv2 resizes at most four channels with INTER_AREA in one go; in slices it takes any number.
        slices = [cv2.resize(flat[..., i : i + 4], (side, side), interpolation=cv2.INTER_AREA) for i in range(0, c, 4)]
        return np.concatenate([s.reshape(side, side, -1) for s in slices], -1).ravel()

    return feature


MEASURES = {
    "correlation at 16": (shrunk(16), False),
    "correlation at 32": (shrunk(32), False),
    "correlation at 64": (shrunk(64), False),
    "embedding, one mean": (pooled(1), True),
    "embedding, 4 x 4 means": (pooled(4), True),
    "embedding, 16 x 16 means": (pooled(16), True),
}
"""By name: what is compared by its cosine, and whether it takes the embedding."""


def copy(training, validation, embeddings, feature, centred):
    """Masks of `validation`, each from its nearest of `training`, stretched to its size. `embeddings` are without padding."""

    def features(pictures):
        return np.stack([feature(p, embeddings[p.name] if embeddings else None) for p in pictures])

    known, asked = features(training), features(validation)
    if centred:
        # All embeddings have most in common; what tells them apart is their distance from the mean.
        mean = known.mean(0)
        known, asked = known - mean, asked - mean
    known /= np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-12)
    nearest = (asked @ known.T).argmax(1)
    masks = []
    for picture, at in zip(validation, nearest, strict=True):
        h, w = picture.labels.shape
        stretch = [cv2.resize(m.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) for m in training[at].inside]
        masks.append(np.stack(stretch).astype(bool))
    return masks
