#!/usr/bin/env python3
"""Writes what steps of training have to find, which tests/gradients.rs compares with.

`training`: a prompt predictor on the image embedding (make_ppn_fixtures.py) and the mask decoder of the official sam2 package 1.1.0
(Apache-2.0), with weights by the rule of reference_answers.py, answer for one picture and two classes, one of them absent;
the terms of make_loss_fixtures.py compare that with a truth, and autograd gives the gradient of every parameter listed below.

`optimizer`: five steps of torch.optim.AdamW over given gradients, which torch.nn.utils.clip_grad_norm_ clips, in 64 bits. Where a
gradient is zeros, AdamW was given none.

Needs torch 2.11.0, torchvision 0.26.0, numpy, pillow, tqdm, safetensors; without --sam2 only `optimizer` is written.

    make_training_fixtures.py --sam2 DIR_WITH_PACKAGE_sam2 --out tests/fixtures
"""

import argparse
import math
import pathlib

import torch

from make_loss_fixtures import coded, paper
from make_ppn_fixtures import DIM, Heads, predict, use_package
from reference_answers import SEED, Answers, fill, unit

GRID, CLASSES, TOKENS = 16, 2, 10
GRADIENTS = (
    "ppn.layers.0.self_attn.v_proj.weight",
    "ppn.layers.0.cross_attn_token_to_image.q_proj.weight",
    "ppn.layers.0.cross_attn_token_to_image.k_proj.weight",
    "ppn.layers.0.cross_attn_image_to_token.v_proj.bias",
    "ppn.layers.0.mlp.layers.0.weight",
    "ppn.layers.0.norm4.weight",
    "ppn.box_regression_head.mlp.layers.0.weight",
    "ppn.mask_classifier.layers.0.weight",
    "ppn.mask_classifier.final_conv.bias",
    "sam_mask_decoder.transformer.layers.0.self_attn.q_proj.weight",
    "sam_mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight",
    "sam_mask_decoder.transformer.final_attn_token_to_image.v_proj.weight",
    "sam_mask_decoder.output_upscaling.0.weight",
    "sam_mask_decoder.output_upscaling.1.weight",
    "sam_mask_decoder.output_hypernetworks_mlps.0.layers.2.weight",
    "sam_mask_decoder.mask_tokens.weight",
    "sam_mask_decoder.obj_score_token.weight",
    "sam_mask_decoder.pred_obj_score_head.layers.0.weight",
)

# What the optimiser moves, and how large its gradients are. Faint ones are about as large as AdamW's eps, which then counts.
PARAMETERS = {
    "ppn.weight": ((4, 3), 1.0),
    "ppn.bias": ((3,), 1.0),
    "mask_decoder.weight": ((3, 2, 2), 1.0),
    "mask_decoder.faint": ((5,), 3e-8),
    "image_encoder.w_b": ((2, 3), 1.0),
}
# Groups of parameters by what their names begin with, in the order of `Group::ALL`, each with its largest learning rate.
GROUPS = {"ppn.": 1e-2, "mask_decoder.": 2e-3, "image_encoder.": 3e-2}
# Of each step: the share of the largest learning rate, and how large its gradients are. Some are clipped, some are not.
STEPS = ((0.2, 0.05), (1.0, 0.9), (0.8, 2.0), (0.5, 0.3), (0.05, 0.1))
# A parameter that no gradient reaches in these steps: it counts its steps by itself.
UNREACHED = ("ppn.bias", (0, 3))
WEIGHT_DECAY, CLIP = 0.1, 1.0


class Network(torch.nn.Module):
    """Names of the parameters are sonomask's."""

    def __init__(self):
        super().__init__()
        from sam2.modeling.position_encoding import PositionEmbeddingSine
        from sam2.modeling.sam.mask_decoder import MaskDecoder
        from sam2.modeling.sam.prompt_encoder import PromptEncoder
        from sam2.modeling.sam.transformer import TwoWayAttentionBlock, TwoWayTransformer
        from sam2.modeling.sam2_utils import MLP

        self.ppn = Heads(TwoWayAttentionBlock, MLP, [DIM])
        self.sam_prompt_encoder = PromptEncoder(DIM, (GRID, GRID), (16 * GRID, 16 * GRID), 16)
        self.sam_mask_decoder = MaskDecoder(
            transformer_dim=DIM,
            transformer=TwoWayTransformer(depth=2, embedding_dim=DIM, mlp_dim=2048, num_heads=8),
            num_multimask_outputs=3,
            use_high_res_features=True,
            iou_prediction_use_sigmoid=True,
            pred_obj_scores=True,
            pred_obj_scores_mlp=True,
        )
        self.sine = PositionEmbeddingSine(DIM)

    def forward(self, embedding, s0, s1, queries):
        sparse, dense, interim, boxes = predict(
            self.ppn, self.sam_prompt_encoder, self.sine, [embedding], queries, CLASSES
        )
        masks, _, _, presence = self.sam_mask_decoder(
            image_embeddings=embedding,
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=True,
            high_res_features=[s0, s1],
        )
        return {"mask": masks, "interim": interim, "boxes": boxes, "presence": presence}


def truth(side=4 * GRID):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    mask = torch.stack([((x - 40) ** 2 + (y - 22) ** 2 <= 144).float(), torch.zeros(side, side)])[:, None]
    box = torch.tensor([[28.0, 10.0, 53.0, 35.0], [0.0, 0.0, 0.0, 0.0]]) / side
    return {"mask": mask, "boxes": box, "present": torch.tensor([1.0, 0.0])}


def given(tag, *shape):
    """Values in [-1, 1)."""
    return torch.from_numpy(unit(f"fx.{tag}", math.prod(shape), SEED).reshape(shape))


def optimizer():
    begin = {name: given(f"optimizer.{name}", *shape) for name, (shape, _) in PARAMETERS.items()}
    gradients = {}
    for name, (shape, scale) in PARAMETERS.items():
        of_steps = [given(f"optimizer.{name}.{at}", *shape) * (scale * size) for at, (_, size) in enumerate(STEPS)]
        gradients[name] = torch.stack(of_steps)
    name, steps = UNREACHED
    gradients[name][list(steps)] = 0.0
    rates = torch.tensor([[largest * share for largest in GROUPS.values()] for share, _ in STEPS], dtype=torch.float64)
    parameters = {name: torch.nn.Parameter(value.double()) for name, value in begin.items()}
    groups = [{"params": [p for name, p in parameters.items() if name.startswith(part)]} for part in GROUPS]
    adamw = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    after, norms = {name: [] for name in parameters}, []
    for step, of_groups in enumerate(rates.tolist()):
        for name, parameter in parameters.items():
            gradient = gradients[name][step]
            parameter.grad = gradient.double() if gradient.any() else None
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP).item())
        for group, rate in zip(adamw.param_groups, of_groups, strict=True):
            group["lr"] = rate
        adamw.step()
        for name, parameter in parameters.items():
            after[name].append(parameter.detach().clone())
    answers = Answers()
    answers.raw("rates", rates)
    answers.raw("norms", torch.tensor(norms, dtype=torch.float64))
    for name in PARAMETERS:
        answers.raw(f"begin.{name}", begin[name])
        answers.raw(f"gradients.{name}", gradients[name])
        answers.raw(f"after.{name}", torch.stack(after[name]))
    return answers


def training():
    net = fill(Network())
    queries = (given("training.queries", CLASSES, TOKENS, DIM) * 2).requires_grad_()
    inputs = (
        given("training.embedding", 1, DIM, GRID, GRID) * 2,
        given("training.s0", 1, 32, 4 * GRID, 4 * GRID) * 2,
        given("training.s1", 1, 64, 2 * GRID, 2 * GRID) * 2,
    )
    target = truth()
    answers = Answers()
    answers.raw("truth.mask", target["mask"])
    answers.raw("truth.boxes", target["boxes"])
    answers.raw("truth.present", target["present"])
    parameters = dict(net.named_parameters())
    for name, terms in (("paper", paper), ("authors", coded)):
        net.zero_grad()
        queries.grad = None
        found = terms(net(*inputs, queries), target)
        sum(found.values()).backward()
        for term, value in found.items():
            answers.raw(f"{name}.{term}", value.detach().reshape(1))
            print(f"{name:8} {term:9} {value.item():.6f}")
        answers.add(f"{name}.grad.queries", queries.grad, k=1024)
        for parameter in GRADIENTS:
            answers.add(f"{name}.grad.{parameter}", parameters[parameter].grad, k=1024)
    return answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sam2", type=pathlib.Path, help="folder that holds the package sam2")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    optimizer().save(args.out / "optimizer.safetensors")
    if args.sam2:
        use_package(args.sam2)
        training().save(args.out / "training.safetensors")


if __name__ == "__main__":
    main()
