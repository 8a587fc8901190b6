#!/usr/bin/env python3
"""Writes resized pictures as Pillow and scikit-image make them, for tests/parity_preprocess.rs.

    make_resize_fixtures.py OUT.safetensors [WxH-WxH ...]

Needs numpy, pillow < 13, scikit-image and safetensors. Pillow 13 resizes along the columns first where that is less
work; the networks were trained and published with the versions before it, which always begin with the rows.

A case `WxH-WxH` is resized from the first size to the second. The pictures have texture, and areas that are flat, black,
saturated and gray, where a rounding error would show. The committed file is made without cases; larger ones can be
given to look further.
"""

import sys

import numpy as np
import PIL
import safetensors.numpy
import scipy
import skimage
from PIL import Image
from skimage import transform

# Both axes grow, both shrink, one of each, by whole factors, to one pixel, from one pixel, one axis only, none.
CASES = "23x17-40x31 61x43-33x20 50x20-21x47 20x50-47x21 64x48-32x16 40x33-7x5 9x11-1x1 1x1-5x3 2x9-6x4 40x30-40x13 12x12-12x12"


def picture(width, height, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    wave = 120 + 70 * np.sin(x / 3.1) * np.cos(y / 4.3) + 40 * rng.standard_normal((height, width))
    rgb = np.stack([wave, wave * 0.8 + 10, 255 - wave], -1)
    rgb = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    flat = [(0, 0, 0), (255, 255, 255), (8, 9, 10), (128, 128, 128)]
    for i, value in enumerate(flat):
        rgb[height // 3 : height * 2 // 3, width * i // 5 : width * (i + 1) // 5] = value
    return rgb


def size(text):
    return tuple(int(v) for v in text.split("x"))


def main():
    out, *cases = sys.argv[1:] or sys.exit(__doc__)
    if int(PIL.__version__.split(".")[0]) >= 13:
        sys.exit(f"Pillow {PIL.__version__} is too new, see above")
    tensors = {}
    for seed, case in enumerate(cases or CASES.split()):
        old, new = map(size, case.split("-"))
        rgb = picture(*old, seed)
        tensors[f"{case}.src"] = rgb
        for name, resample in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
            tensors[f"{case}.pil_{name}"] = np.array(Image.fromarray(rgb).resize(new, resample))
        spline = transform.resize(rgb, new[::-1], order=3, preserve_range=True, anti_aliasing=True)
        tensors[f"{case}.spline"] = spline.astype(np.uint8)
    versions = {m.__name__: m.__version__ for m in (np, PIL, skimage, scipy)}
    safetensors.numpy.save_file(tensors, out, metadata=versions)


if __name__ == "__main__":
    main()
