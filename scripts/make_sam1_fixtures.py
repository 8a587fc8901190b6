#!/usr/bin/env python3
"""Writes the answers that the parity tests of SAM ViT-L, ViT-H, MedSAM and, for an input of 128 pixels a side, MobileSAM compare with.

They come from Meta's package segment-anything 1.0 and from MobileSAM's mirror mobilesam-mirror 1.0.0 (both Apache-2.0) on the CPU in fp32, with weights made from
a rule (`reference_answers.py`), so no checkpoint is needed. Made in Python 3.11 with

    python3 -m venv venv
    venv/bin/pip install torch==2.11.0 torchvision==0.26.0 segment-anything==1.0 numpy==2.4.6 pillow==13.0.0 \\
        safetensors==0.8.0 scikit-image==0.26.0 scipy==1.17.1 timm==1.0.22 mobilesam-mirror==1.0.0
    venv/bin/python scripts/make_sam1_fixtures.py --out tests/fixtures vit_l vit_h medsam vit_t_128

The picture and its boxes are those of `preprocess.safetensors` in the same folder. ViT-H needs 7 GiB of memory.
"""

import argparse
import pathlib
import resource
import time

import numpy as np
import safetensors.numpy
import torch
from torch.nn import functional as F

import reference_answers as answers

PICTURE = "640x480"
SIDE = 1024


def build(kind):
    if kind == "vit_t_128":
        return answers.fill(mobile_sam(128))
    from segment_anything import sam_model_registry

    return answers.fill(sam_model_registry[kind]())


def mobile_sam(side):
    """MobileSAM's modules put together for another side of the input."""
    from mobile_sam.modeling import MaskDecoder, PromptEncoder, Sam, TinyViT, TwoWayTransformer

    cells = side // 16
    Encoder = answers.of_cells(TinyViT, cells)
    return Sam(
        image_encoder=Encoder(
            img_size=side,
            in_chans=3,
            num_classes=1000,
            embed_dims=[64, 128, 160, 320],
            depths=[2, 2, 6, 2],
            num_heads=[2, 4, 5, 10],
            window_sizes=[7, 7, 14, 7],
            mlp_ratio=4.0,
            drop_rate=0.0,
            drop_path_rate=0.0,
            use_checkpoint=False,
            mbconv_expand_ratio=4.0,
            local_conv_size=3,
            layer_lr_decay=0.8,
        ),
        prompt_encoder=PromptEncoder(256, (cells, cells), (side, side), mask_in_chans=16),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
            transformer_dim=256,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )


def taps(encoder):
    """What each module's output is called."""
    yield "enc.patch_embed", encoder.patch_embed
    if hasattr(encoder, "layers"):
        for i, layer in enumerate(encoder.layers):
            yield from ((f"enc.layer{i}.block{k}", block) for k, block in enumerate(layer.blocks))
            if layer.downsample is not None:
                yield f"enc.layer{i}.downsample", layer.downsample
    else:
        yield from ((f"enc.block{i}", block) for i, block in enumerate(encoder.blocks))


def encode(model, x, file):
    """The embedding; every block's output goes into `file`."""

    def keep(key):
        return lambda _module, _inputs, output: file.add(key, output, k=1024)

    encoder = model.image_encoder
    handles = [module.register_forward_hook(keep(key)) for key, module in taps(encoder)]
    start = time.monotonic()
    embedding = encoder(x)
    print(f"encoder {time.monotonic() - start:.1f} s")
    for handle in handles:
        handle.remove()
    file.add("image_embed", embedding)
    return embedding


def sam(kind, picture, boxes):
    """A box and a point, as SAM's predictor takes them."""
    from segment_anything.utils.transforms import ResizeLongestSide

    model, file = build(kind), answers.Answers()
    size = picture.shape[:2]
    longest = ResizeLongestSide(model.image_encoder.img_size)
    resized = longest.apply_image(picture)
    if kind == "vit_t_128":
        # Pillow's bytes, of which libtorch's resize makes one in five hundred larger or smaller by one.
        file.raw("resized", resized)
    x = model.preprocess(torch.from_numpy(resized).permute(2, 0, 1).float()[None])
    file.add("input", x)
    embedding = encode(model, x, file)
    box = torch.from_numpy(longest.apply_boxes(boxes[:1].astype(np.float64), size)).float()
    centre = np.array([[size[1] * 0.42, size[0] * 0.45]])
    point = torch.from_numpy(longest.apply_coords(centre, size)).float()[None]
    file.raw("e2e.box_model", box)
    file.raw("e2e.point_model", point)
    prompts = {"box0": (None, box), "pt": ((point, torch.ones(1, 1, dtype=torch.int32)), None)}
    for key, (points, bbox) in prompts.items():
        sparse, dense = model.prompt_encoder(points=points, boxes=bbox, masks=None)
        masks, iou = model.mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        file.add(f"e2e.{key}.masks", masks, signs=True)
        file.raw(f"e2e.{key}.iou", iou)
        file.add(f"e2e.{key}.up", model.postprocess_masks(masks, resized.shape[:2], size))
        inside = (masks > 0).float().mean((2, 3)).flatten().tolist()
        print(kind, key, "iou", iou.flatten().tolist(), "inside", inside)
    return file


def medsam(picture, boxes):
    """ViT-B with the resize, the scaling of values and the order of sigmoid and resize of MedSAM's inference script."""
    from skimage import transform

    model, file = build("vit_b"), answers.Answers()
    height, width = picture.shape[:2]
    resized = transform.resize(picture, (SIDE, SIDE), order=3, preserve_range=True, anti_aliasing=True)
    resized = resized.astype(np.uint8)
    low, high = resized.min(), resized.max()
    scaled = (resized - low) / np.clip(high - low, a_min=1e-8, a_max=None)
    x = torch.from_numpy(scaled).float().permute(2, 0, 1)[None]
    file.add("input", x)
    embedding = encode(model, x, file)
    box = torch.from_numpy(boxes[:1] / np.array([width, height, width, height]) * SIDE).float()
    file.raw("box_model", box)
    sparse, dense = model.prompt_encoder(points=None, boxes=box[:, None], masks=None)
    logits, iou = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    file.add("logits", logits, signs=True)
    file.raw("iou", iou)
    probability = F.interpolate(torch.sigmoid(logits), (height, width), mode="bilinear", align_corners=False)
    file.add("probability", probability)
    inside = probability.numpy().ravel() > 0.5
    file.raw("mask", np.packbits(inside, bitorder="little"))
    print("medsam iou", iou.flatten().tolist(), "inside", inside.mean())
    return file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("kinds", nargs="+", choices=["vit_l", "vit_h", "medsam", "vit_t_128"])
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    stored = safetensors.numpy.load_file(arguments.out / "preprocess.safetensors")
    picture, boxes = stored[f"img.{PICTURE}"], stored[f"boxes.{PICTURE}"]
    for kind in arguments.kinds:
        if kind == "medsam":
            medsam(picture, boxes).save(arguments.out / "medsam.safetensors")
        else:
            sam(kind, picture, boxes).save(arguments.out / f"sam1_{kind}.safetensors")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
