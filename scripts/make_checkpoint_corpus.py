#!/usr/bin/env python3
"""Makes small checkpoints with the real torch and the real Lightning, into `fuzz/corpus/checkpoint`.

    pip install torch pytorch-lightning && scripts/make_checkpoint_corpus.py

The networks are toys: what is real are the containers, the pickles, and how the keys of a training run are called.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn

OUT = Path(__file__).resolve().parent.parent / "fuzz" / "corpus" / "checkpoint"


def holder(**children: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


def lora() -> nn.Module:
    return holder(proj=nn.Linear(4, 4), w_a=nn.Linear(4, 2, bias=False), w_b=nn.Linear(2, 4, bias=False))


def network() -> nn.Module:
    """Keys as a Sam2Rad training run has them: frozen nets under `net`, the prompt encoder registered twice."""
    prompt_encoder = holder(no_mask_embed=nn.Embedding(1, 4))
    adapter = holder(adapters=nn.Sequential(nn.Linear(4, 2), nn.GELU(), nn.Linear(2, 4)))
    return holder(
        image_encoder=holder(
            net=holder(trunk=holder(norm=nn.LayerNorm(4))),
            adapters=nn.ModuleList([adapter]),
        ),
        sam_mask_decoder=holder(net=holder(attn=holder(q_proj=lora(), k_proj=nn.Linear(4, 4), v_proj=lora()))),
        prompt_sampler=holder(
            prompt_encoder=prompt_encoder,
            prompt_learner=holder(prompt_encoder=prompt_encoder, layers=nn.ModuleList([nn.Linear(4, 4)])),
        ),
    )


class Training(pl.LightningModule):
    def __init__(self, settings, folder, args) -> None:
        super().__init__()
        # Sets, paths, namespaces, devices, large integers: what ends up beside a state dict.
        self.save_hyperparameters()
        self.model = holder(model=network(), learnable_prompts=nn.ParameterDict({"shoulder": torch.randn(2, 3, 4)}))

    def training_step(self, batch, index):
        loss = sum(p.sum() for p in self.parameters())
        self.log("val_dice", loss.detach())
        return loss

    def configure_optimizers(self):
        optimiser = torch.optim.AdamW(self.parameters(), 1e-4, weight_decay=0.1)
        return [optimiser], [torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)]


def lightning(path: Path) -> None:
    settings = {"seed": 42, "set": {1}, "large": 2**200, "raw": b"ab"}
    args = argparse.Namespace(lr=1e-4, device=torch.device("cpu"), dtype=torch.float32)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 3)), batch_size=4)
    # ModelCheckpoint would write this machine's absolute paths into its state.
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[EarlyStopping("val_dice")],
    )
    trainer.fit(Training(settings, Path("x/y"), args), data)
    trainer.save_checkpoint(path)


def main() -> None:
    torch.manual_seed(1)
    OUT.mkdir(parents=True, exist_ok=True)
    state = {
        "a.weight": torch.arange(6.0).reshape(2, 3).t(),
        "a.bias": torch.ones(2, dtype=torch.float16),
        "n": torch.tensor(7),
    }
    torch.save(state, OUT / "flat.pth")
    torch.save({"model": state, "epoch": 3}, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state, OUT / "protocol4.pth", pickle_protocol=4)
    torch.save({"model": state, "args": argparse.Namespace(a=1)}, OUT / "protocol5.pth", pickle_protocol=5)
    lightning(OUT / "lightning.ckpt")


if __name__ == "__main__":
    main()
