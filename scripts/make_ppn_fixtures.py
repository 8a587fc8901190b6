#!/usr/bin/env python3
"""Writes the answers that tests/parity_ppn.rs compares with where no published ones exist.

They come from plain PyTorch, written down from the paper (arXiv 2409.06821) and put together from the blocks of the
official sam2 package 1.1.0 (Apache-2.0): `ppn_forms` holds the prompt predictor on the image embedding alone, on
three levels of one size, and with sonomask's pyramid over them; `lora_adapters` a two-way transformer with low-rank adaptation and a trunk's adapters.
Weights and inputs follow the rule of `Generated` in src/weights/source.rs; nothing is downloaded. Needs torch,
numpy, pillow, tqdm, safetensors.

    make_ppn_fixtures.py --sam2 DIR_WITH_PACKAGE_sam2 --out tests/fixtures
"""

import argparse
import json
import math
import pathlib
import sys
import types

import numpy as np
import safetensors.numpy
import torch
import torch.nn.functional as F

SEED = 0x5AD20001C0FFEE11
GOLD = np.uint64(0x9E3779B97F4A7C15)
STORED = 1024
DIM = 256


def finalise(z):
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def unit(name, shape):
    """Values in [-1, 1), a function of name and index."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * GOLD + np.uint64(h ^ SEED)
        z = finalise(z) >> np.uint64(40)
    return (z.astype(np.float32) * np.float32(2**-23) - np.float32(1)).reshape(shape)


def parameter(name, shape):
    """The part of the rule that these networks need."""
    offset, scale = 0.0, 0.5
    if name.endswith("positional_encoding_gaussian_matrix"):
        scale = math.sqrt(3)
    elif name.endswith(("no_mask_embed.weight", "not_a_point_embed.weight")) or ".point_embeddings." in name:
        scale = 1.0
    elif name.endswith(".bias"):
        scale = 0.05
    elif len(shape) == 1 and name.endswith(".weight"):
        offset, scale = 1.0, 0.1
    elif name.endswith(".weight"):
        gain = 2.0 if "q_proj.weight" in name or "k_proj.weight" in name else 1.0
        scale = gain * math.sqrt(3 / math.prod(shape[1:]))
    values = unit(name, shape) * np.float32(scale)
    return torch.from_numpy(values + np.float32(offset) if offset else values)


def fill(module, prefix):
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(parameter(f"{prefix}.{name}", tuple(tensor.shape)))
    return module.eval()


def given(tag, shape, scale):
    return torch.from_numpy(unit(tag, shape) * np.float32(scale))


class Answers:
    def __init__(self):
        self.tensors, self.meta = {}, {"seed": f"{SEED:016x}"}

    def add(self, key, tensor, signs=False):
        a = tensor.detach().contiguous().numpy()
        f = a.astype(np.float64).ravel()
        assert np.isfinite(f).all(), key
        self.meta[key] = json.dumps(list(a.shape))
        stats = [f.mean(), f.std(), f.min(), f.max(), np.abs(f).mean(), np.sqrt((f * f).sum())]
        self.tensors[f"{key}.stats"] = np.array(stats)
        if f.size <= STORED:
            self.tensors[f"{key}.full"] = a
        else:
            j = np.arange(STORED, dtype=np.uint64)
            with np.errstate(over="ignore"):
                jitter = finalise((j + np.uint64(1)) * GOLD) % np.uint64(f.size // STORED)
            picked = (j * np.uint64(f.size)) // np.uint64(STORED) + jitter
            self.tensors[f"{key}.sub"] = a.ravel()[picked.astype(np.int64)]
        if signs:
            bits = (a.ravel() > 0).astype(np.uint8)
            self.tensors[f"{key}.signbits"] = np.packbits(bits, bitorder="little")
        print(f"{key:28} {a.shape} std {f.std():.3f} positive {(f > 0).mean():.2f}")

    def save(self, path):
        safetensors.numpy.save_file(self.tensors, path, metadata=self.meta)
        print(path, path.stat().st_size)


class Convolution(torch.nn.Module):
    def __init__(self, inputs, outputs, kernel=3):
        super().__init__()
        self.conv = torch.nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = torch.nn.GroupNorm(8, outputs)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class Pyramid(torch.nn.Module):
    """A wide view of the picture over all levels, and each class's first mask from it."""

    def __init__(self, inputs, widths=(64, 64, 96, 128)):
        super().__init__()
        nn, levels = torch.nn, range(len(widths))
        self.stem = Convolution(inputs + 2, widths[0], 1)
        self.down = nn.ModuleList(Convolution(widths[max(i - 1, 0)], widths[i]) for i in levels)
        self.deepen = nn.ModuleList(Convolution(width, width) for width in widths)
        self.up = nn.ModuleList(Convolution(widths[i] + widths[i + 1], widths[i]) for i in levels[:-1])
        self.out = nn.Conv2d(widths[0], DIM, 1)
        setattr(self, "class", nn.Linear(DIM, widths[0] + 1))

    def forward(self, features, queries):
        images, _, h, w = features[0].shape
        places = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        places = torch.stack(places[::-1])[None].expand(images, 2, h, w)
        x, seen = self.stem(torch.cat([*features, places], 1)), []
        for i, (down, deepen) in enumerate(zip(self.down, self.deepen)):
            x = deepen(down(F.max_pool2d(x, 2) if i else x))
            seen.append(x)
        for up, beside in reversed(list(zip(self.up, seen))):
            wide = F.interpolate(x, beside.shape[-2:], mode="bilinear", align_corners=False)
            x = up(torch.cat([beside, wide], 1))
        filters, bias = getattr(self, "class")(queries[:, 0]).split([x.shape[1], 1], 1)
        masks = torch.einsum("kc,bchw->bkhw", filters, x) + bias[None, :, :, None]
        masks = F.interpolate(masks, scale_factor=4, mode="bilinear", align_corners=False)
        return features[0] + self.out(x), masks.flatten(0, 1)[:, None]


def boxes_around(logits):
    """The smallest box around everything above zero; of nothing, the whole picture."""
    found = []
    for inside in logits[:, 0] > 0:
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        if len(rows) == 0:
            found.append([0, 0, inside.shape[1], inside.shape[0]])
        else:
            found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return torch.tensor(found) / logits.shape[-1]


class Heads(torch.nn.Module):
    """Names of the parameters are the prompt predictor's."""

    def __init__(self, block, mlp, widths, pyramid=False):
        super().__init__()
        nn = torch.nn
        if pyramid:
            self.pyramid = Pyramid(sum(widths))
            widths = widths[:1]
        self.layers = nn.ModuleList(block(DIM, 8, 2048, skip_first_layer_pe=i == 0) for i in range(len(widths)))
        self.channel_adapters = nn.ModuleDict(
            {str(i): nn.Conv2d(w, DIM, 1) for i, w in enumerate(widths) if w != DIM}
        )
        self.box_regression_head = nn.ModuleDict({"mlp": mlp(2 * DIM, DIM, 4, 2)})
        convolutions = [nn.Conv2d(DIM, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)]
        self.mask_classifier = nn.ModuleDict(
            {"layers": nn.ModuleList(convolutions), "final_conv": nn.Conv2d(64, 1, 1)}
        )


def predict(net, prompt_encoder, sine, features, queries, classes):
    """Prompts for every pair of image and class, the plain way: everything repeated."""
    images, tokens = len(features[0]), queries.shape[1]
    pyramid = getattr(net, "pyramid", None)
    if pyramid is not None:
        wider, first = pyramid(features, queries)
        features = [wider]
    queries = queries.repeat(images, 1, 1)
    frequency = 10000 ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * frequency
    query_pe = torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()[None]
    side = features[0].shape[-1]
    dense = prompt_encoder.no_mask_embed.weight.reshape(1, DIM, 1, 1).expand(len(queries), DIM, side, side)
    for i, (block, feature) in enumerate(zip(net.layers, features)):
        if str(i) in net.channel_adapters:
            feature = net.channel_adapters[str(i)](feature)
        feature = feature.repeat_interleave(classes, 0)
        feature = feature + F.interpolate(dense, feature.shape[-2:], mode="nearest")
        keys, key_pe = (t.flatten(2).transpose(1, 2) for t in (feature, sine(feature)))
        queries, keys = block(queries, keys, query_pe, key_pe)
        dense = keys.transpose(1, 2).reshape(feature.shape)
    x = dense
    for convolution in net.mask_classifier["layers"]:
        x = convolution(x).relu()
    x = net.mask_classifier["final_conv"](x)
    interim = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
    if pyramid is not None:
        interim = interim + first
        boxes = boxes_around(interim.detach())
    else:
        corner, size = net.box_regression_head["mlp"](queries[:, :2].flatten(1)).sigmoid().split(2, 1)
        boxes = torch.cat([corner, corner + size], 1)
    corners = prompt_encoder._embed_boxes(boxes * prompt_encoder.input_image_size[0])
    sparse = torch.cat([corners, queries[:, 2:]], 1)
    return sparse, prompt_encoder._embed_masks(interim), interim, boxes


def forms(out, classes=3, images=2, grid=16):
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.prompt_encoder import PromptEncoder
    from sam2.modeling.sam.transformer import TwoWayAttentionBlock
    from sam2.modeling.sam2_utils import MLP

    prompt_encoder = PromptEncoder(DIM, (grid, grid), (16 * grid, 16 * grid), 16)
    fill(prompt_encoder, "sam_prompt_encoder")
    answers = Answers()
    for form, widths in {"single": [DIM], "mobile": [DIM, 320, 320], "pyramid": [DIM, 320, 320, 160]}.items():
        net = fill(Heads(TwoWayAttentionBlock, MLP, widths, pyramid=form == "pyramid"), "ppn")
        features = [given(f"fx.{form}.{i}", (images, w, grid, grid), 2) for i, w in enumerate(widths)]
        queries = given(f"fx.{form}.queries", (classes, 10, DIM), 1)
        results = predict(net, prompt_encoder, PositionEmbeddingSine(DIM), features, queries, classes)
        for name, tensor in zip(("sparse", "dense", "interim_mask", "boxes"), results):
            answers.add(f"{form}.{name}", tensor, signs=name == "interim_mask")
    answers.save(out / "ppn_forms.safetensors")


class LowRank(torch.nn.Linear):
    def __init__(self, inner, rank):
        super().__init__(inner.in_features, inner.out_features)
        self.w_a = torch.nn.Linear(inner.in_features, rank, bias=False)
        self.w_b = torch.nn.Linear(rank, inner.out_features, bias=False)

    def forward(self, x):
        return super().forward(x) + self.w_b(self.w_a(x))


def lora_adapters(out, rank=8):
    from sam2.modeling.sam.transformer import Attention, TwoWayTransformer

    answers = Answers()
    transformer = TwoWayTransformer(depth=2, embedding_dim=DIM, mlp_dim=2048, num_heads=8)
    for attention in [m for m in transformer.modules() if isinstance(m, Attention)]:
        attention.q_proj = LowRank(attention.q_proj, rank)
        attention.v_proj = LowRank(attention.v_proj, rank)
    fill(transformer, "sam_mask_decoder.transformer")
    image, position = (given(f"fx.lora.{n}", (1, DIM, 12, 8), 2) for n in ("image", "position"))
    tokens, cells = transformer(image, position, given("fx.lora.tokens", (1, 7, DIM), 1))
    answers.add("lora.tokens", tokens)
    answers.add("lora.cells", cells)

    for i, width in enumerate((96, 96, 192)):
        down, up = torch.nn.Linear(width, 64), torch.nn.Linear(64, width)
        fill(down, f"image_encoder.adapters.{i}.adapters.0")
        fill(up, f"image_encoder.adapters.{i}.adapters.2")
        x = given(f"fx.adapter.{i}", (1, 4, 4, width), 2)
        answers.add(f"adapter.{i}", x + F.gelu(up(F.gelu(down(x)))))
    answers.save(out / "lora_adapters.safetensors")


def use_package(folder):
    """Takes sam2 from there. The package's own __init__ sets up configuration files, which its blocks do not need."""
    package = types.ModuleType("sam2")
    package.__path__ = [str(folder / "sam2")]
    sys.modules["sam2"] = package


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sam2", type=pathlib.Path, required=True, help="folder that holds the package sam2")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    use_package(args.sam2)
    with torch.inference_mode():
        forms(args.out)
        lora_adapters(args.out)


if __name__ == "__main__":
    main()
