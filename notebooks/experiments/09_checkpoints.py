"""What a trained ViT loses when its file is misread, on coloured digits (chapter 09).

One model a seed, five seeds; each is read back in wrong ways that all load with
strict=True. Writes 09_checkpoints.csv beside this file, in about two minutes of one
core. Columns before the seed name the misreading.
"""

import csv
import dataclasses
import platform
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from vitlib import ViT, ViTConfig
from vitlib.data import digits
from vitlib.train import fit

CONFIG = ViTConfig(
    image_size=8, patch_size=2, num_classes=10, embed_dim=48, depth=2, num_heads=4
)
STEPS = 600


def coloured(split: str) -> tuple[Tensor, Tensor]:
    """Print every digit in an ink of its own: (N, 3, 8, 8), the same each time."""
    images, labels = digits(split)
    generator = torch.Generator().manual_seed(0)
    ink = torch.rand(len(images), 3, 1, 1, generator=generator)
    return images * (0.2 + 0.8 * ink), labels


def train(seed: int) -> ViT:
    """Train one model, with positions that start loud."""
    torch.manual_seed(seed)
    model = ViT(CONFIG)
    nn.init.normal_(model.pos_embed, std=0.5)
    fit(model, *coloured("train"), steps=STEPS, batch_size=64, lr=3e-3, seed=seed)
    return model


def misread(name: str, state: dict[str, Tensor]) -> ViT:
    """Load a state dict as somebody would who got one thing wrong."""
    config, state = CONFIG, dict(state)
    if name.startswith("eps"):
        config = dataclasses.replace(config, norm_eps=float(name.split()[1]))
    elif name == "GELU tanh for erf":
        config = dataclasses.replace(config, gelu="tanh")
    elif name == "2 heads for 4":
        config = dataclasses.replace(config, num_heads=2)
    elif name == "mean for CLS":
        config = dataclasses.replace(config, pool="mean")
    for key, value in state.items():
        if key == "patch_embed.proj.weight":
            if name == "patch: colour last":
                flat = rearrange(value, "e c p1 p2 -> e (c p1 p2)")
                state[key] = rearrange(flat, "e (p1 p2 c) -> e c p1 p2", p1=2, p2=2)
            elif name == "patch: columns first":
                state[key] = value.mT
        elif ".attn.qkv." in key:
            q, k, v = value.chunk(3)
            if name == "scale: √e for √d":
                state[key] = torch.cat([q * 4**-0.5, k, v])
            elif name == "q and k swapped":
                state[key] = torch.cat([k, q, v])
            elif name == "qkv: (h d three)":
                state[key] = rearrange(
                    value, "(hd three) ... -> (three hd) ...", three=3
                )
            elif name == "qkv: (h three d)":
                state[key] = rearrange(
                    value, "(h three d) ... -> (three h d) ...", three=3, h=4
                )
        elif key.endswith("attn.proj.weight") and name == "proj transposed":
            state[key] = value.T
    model = ViT(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


MISREADINGS = (
    "eps 1e-12 for 1e-6",
    "eps 1e-5 for 1e-6",
    "GELU tanh for erf",
    "scale: √e for √d",
    "2 heads for 4",
    "mean for CLS",
    "q and k swapped",
    "proj transposed",
    "patch: columns first",
    "patch: colour last",
    "qkv: (h three d)",
    "qkv: (h d three)",
)


def main() -> None:
    """Train, misread in every way, and write how far logits and answers move."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    images, labels = coloured("test")
    with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        measured = "logit_error", "same_answer", "accuracy", "right_accuracy"
        writer.writerow(["misreading", "seed", *measured, "machine"])
        for seed in range(5):
            model = train(seed)
            with torch.no_grad():
                right = model(images)  # (N, 10)
                for name in MISREADINGS:
                    wrong = misread(name, model.state_dict())(images)  # (N, 10)
                    error = (wrong - right).abs().max() / right.abs().max()
                    answers = wrong.argmax(dim=1)
                    shares = (
                        (answers == right.argmax(dim=1)).float().mean(),
                        (answers == labels).float().mean(),
                        (right.argmax(dim=1) == labels).float().mean(),
                    )
                    row = [f"{error:.3e}", *(f"{share:.4f}" for share in shares)]
                    writer.writerow([name, seed, *row, machine])
            file.flush()


if __name__ == "__main__":
    main()
