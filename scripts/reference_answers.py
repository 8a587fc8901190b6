"""Weights made from a rule, and the file format of the answers that the parity tests compare with.

The rule is "refgen v1", the same as `src/weights/source.rs`: a value depends on the parameter's name, on its flat
index and on the seed, and on nothing else, so that two programs have the same network without a file.
"""

import json
import math

import numpy as np
import safetensors.numpy
import torch

SEED = 0x5AD20001C0FFEE11
GOLD = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
EMBEDDINGS = (
    "iou_token.weight",
    "mask_tokens.weight",
    "obj_score_token.weight",
    "not_a_point_embed.weight",
    "no_mask_embed.weight",
)
TRANSPOSED = ("output_upscaling.0.weight", "output_upscaling.3.weight")
GAINS = (
    ("obj_ptr_proj.layers.2", 3.0),
    ("memory_encoder.out_proj", 0.5),
    ("patch_embed.", 3.0),
    ("attn.qkv.weight", 2.0),
    ("attn.proj.weight", 0.5),
    ("q_proj.weight", 2.0),
    ("k_proj.weight", 2.0),
    ("output_hypernetworks_mlps", 1.5),
)


def finalise(z):
    """SplitMix64's last five steps, in place, on an array of u64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


def unit(name, n, seed=SEED):
    """`n` values in [-1, 1), multiples of 2^-23."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK
    out = np.empty(n, np.float32)
    step = 1 << 22
    for at in range(0, n, step):
        z = np.arange(at + 1, min(at + step, n) + 1, dtype=np.uint64)
        z *= np.uint64(GOLD)
        z += np.uint64(h ^ seed)
        out[at : at + step] = finalise(z) >> np.uint64(40)
    return out * np.float32(2.0**-23) - np.float32(1)


def rule(name, shape):
    """Offset and scale of a parameter; the first rule that fits."""
    flat = len(shape) == 1
    if name.endswith("pred_obj_score_head.layers.2.bias"):
        return 2.0, 0.05
    if name.endswith("positional_encoding_gaussian_matrix"):
        return 0.0, math.sqrt(3)
    if name.endswith(EMBEDDINGS) or ".point_embeddings." in name:
        return 0.0, 1.0
    if name.endswith(".running_var"):
        return 1.0, 0.1
    if name.endswith(".running_mean"):
        return 0.0, 0.05
    if flat and name.endswith(".gamma"):
        return 0.5, 0.1
    if flat and name.endswith(".weight"):
        return 1.0, 0.1
    if name.endswith(".bias"):
        return 0.0, 0.05
    if name.endswith(".weight") and len(shape) in (2, 4):
        fan_in = shape[0] if name.endswith(TRANSPOSED) else math.prod(shape[1:])
        gain = next((gain for part, gain in GAINS if part in name), 1.0)
        return 0.0, gain * math.sqrt(3 / fan_in)
    return 0.0, 0.5


def tensor(name, shape, seed=SEED):
    """The values of the parameter `name`."""
    offset, scale = rule(name, shape)
    values = unit(name, math.prod(shape), seed) * np.float32(scale)
    if offset:
        values += np.float32(offset)
    return torch.from_numpy(values.reshape(shape))


def fill(module, seed=SEED):
    """Gives a module the weights of the rule. Integer buffers stay as they are."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(tensor(name, tuple(value.shape), seed))
    return module.eval()


def of_cells(tiny_vit, cells):
    """MobileSAM's or LiteMedSAM's class TinyViT for an embedding of `cells` a side, of which both take for granted that they are 64."""

    class Encoder(tiny_vit):
        def forward_features(self, x):
            for step in [self.patch_embed, *self.layers]:
                x = step(x)
            return self.neck(x.transpose(1, 2).reshape(len(x), -1, cells, cells))

    return Encoder


def sub_index(n, k):
    """The `k` flat indices at which a tensor of `n` elements is kept."""
    j = np.arange(k, dtype=np.uint64)
    z = finalise((j + np.uint64(1)) * np.uint64(GOLD))
    return (j * np.uint64(n) // np.uint64(k) + z % np.uint64(n // k)).astype(np.int64)


class Answers:
    """One file. `raw` keeps a tensor as it is; `add` keeps its statistics, its values at `k` places and its signs."""

    def __init__(self, seed=SEED):
        self.tensors, self.metadata = {}, {"seed": f"{seed:016x}"}

    def raw(self, key, value):
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        self.tensors[key] = np.ascontiguousarray(value)

    def add(self, key, value, k=4096, signs=False):
        value = value.detach().contiguous().numpy()
        flat = value.ravel()
        exact = flat.astype(np.float64)
        if not np.isfinite(exact).all():
            raise ValueError(f"{key} is not finite")
        self.metadata[key] = json.dumps(list(value.shape))
        statistics = [exact.mean(), exact.std(), exact.min(), exact.max(), np.abs(exact).mean()]
        self.tensors[f"{key}.stats"] = np.array([*statistics, math.sqrt((exact * exact).sum())])
        if flat.size <= k:
            self.tensors[f"{key}.full"] = np.ascontiguousarray(value)
        else:
            self.tensors[f"{key}.sub"] = flat[sub_index(flat.size, k)]
        if signs:
            self.tensors[f"{key}.signbits"] = np.packbits(flat > 0, bitorder="little")

    def save(self, path):
        safetensors.numpy.save_file(self.tensors, path, metadata=self.metadata)
        print(f"{path}: {path.stat().st_size} bytes, {len(self.tensors)} tensors")
