"""GELU, ReLU and no bend at all inside the MLPs of a ViT, on the digits (chapter 06).

Three functions at two learning rates, and two of them from a start at which every
hidden unit is off; five seeds each. Writes 06_mlp.csv beside this file, in about two
minutes of one core. Columns before the seed name the variant.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from vitlib import ViT, ViTConfig
from vitlib.data import digits
from vitlib.train import evaluate, fit

CONFIG = ViTConfig(
    image_size=8,
    patch_size=2,
    in_channels=1,
    num_classes=10,
    embed_dim=48,
    depth=2,
    num_heads=4,
    mlp_ratio=2,
)
ACTS = {"GELU": nn.GELU, "ReLU": nn.ReLU, "none": nn.Identity}
# Added to every input of the activation; no digit makes a sum above 0 from here.
OFF = -5.0
VARIANTS = (
    *((act, "usual", lr) for lr in (0.003, 0.02) for act in ACTS),
    ("GELU", "off", 0.003),
    ("ReLU", "off", 0.003),
)
STEPS, WINDOW = 400, 50


def build(act: str, start: str) -> ViT:
    """Make a ViT with that function in its MLPs, and loud positions."""
    model = ViT(CONFIG)
    nn.init.normal_(model.pos_embed, std=0.5)
    for block in model.blocks:
        block.mlp.act = ACTS[act]()
        if start == "off":
            nn.init.constant_(block.mlp.fc1.bias, OFF)
    return model


def count_dead(model: ViT, images: Tensor) -> int:
    """Count hidden units whose slope stays below 0.001 for every token."""
    entering = []
    hooks = [
        block.mlp.act.register_forward_pre_hook(
            lambda act, inputs: entering.append((act, inputs[0].detach()))
        )
        for block in model.blocks
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    dead = 0
    for act, x in entering:
        x.requires_grad_()  # (b, T, hidden_dim)
        (slopes,) = torch.autograd.grad(act(x).sum(), x)
        dead += int((slopes.abs().amax(dim=(0, 1)) < 1e-3).sum())
    return dead


def main() -> None:
    """Train every variant with every seed; write losses, dead units, accuracy."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    train, test = digits("train"), digits("test")
    windows = [f"loss_{step}" for step in range(WINDOW, STEPS + 1, WINDOW)]
    path = Path(__file__).with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        measured = "accuracy", "dead_before", "dead_after", *windows
        writer.writerow(["act", "start", "lr", "seed", *measured, "machine"])
        for (act, start, lr), seed in itertools.product(VARIANTS, range(5)):
            torch.manual_seed(seed)
            model = build(act, start)
            before = count_dead(model, train[0])
            losses = fit(model, *train, steps=STEPS, batch_size=64, lr=lr, seed=seed)
            means = torch.tensor(losses).view(-1, WINDOW).mean(dim=1)
            measured = (
                f"{evaluate(model, *test):.4f}",
                before,
                count_dead(model, train[0]),
                *(f"{mean:.4f}" for mean in means),
            )
            writer.writerow([act, start, lr, seed, *measured, machine])
            file.flush()


if __name__ == "__main__":
    main()
