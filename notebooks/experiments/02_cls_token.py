"""How a ViT's tokens are read out, compared on the digits (chapter 02).

Four read-outs, quiet and loud positions, five seeds each; the same model and
training otherwise. Writes 02_cls_token.csv beside this file, in about five minutes
of one core.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
from torch import nn

from vitlib import ViT, ViTConfig
from vitlib.data import digits
from vitlib.train import evaluate, fit

SIZES = dict(
    image_size=8,
    patch_size=2,
    in_channels=1,
    num_classes=10,
    embed_dim=48,
    depth=2,
    num_heads=4,
    mlp_ratio=2,
)


class FlattenViT(nn.Module):
    """Lays all tokens end to end and reads the whole row with one big head."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.vit = ViT(config)
        del self.vit.head
        self.head = nn.Linear(config.num_tokens * config.embed_dim, config.num_classes)

    def forward(self, images):
        """Score every class for every image, (b, num_classes)."""
        vit = self.vit
        tokens = vit.patch_embed(images) + vit.pos_embed  # (b, n, e)
        for block in vit.blocks:
            tokens = block(tokens)  # (b, n, e)
        return self.head(vit.norm(tokens).flatten(1))  # (b, num_classes)


def build(readout: str, pos_std: float) -> nn.Module:
    """Make the model with one of the four read-outs and positions that loud."""
    if readout == "flatten":
        model = FlattenViT(ViTConfig(**SIZES, class_token=False, pool="mean"))
        nn.init.normal_(model.vit.pos_embed, std=pos_std)
    else:
        model = ViT(ViTConfig(**SIZES, pool=readout))
        nn.init.normal_(model.pos_embed, std=pos_std)
    return model


def main() -> None:
    """Train every read-out with every seed and write the accuracies."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    train, test = digits("train"), digits("test")
    path = Path(__file__).with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["readout", "pos_std", "seed", "accuracy", "machine"])
        for readout, pos_std, seed in itertools.product(
            ("cls", "mean", "mean_all", "flatten"), (0.02, 0.5), range(5)
        ):
            torch.manual_seed(seed)
            model = build(readout, pos_std)
            fit(model, *train, steps=600, batch_size=64, lr=3e-3, seed=seed)
            accuracy = f"{evaluate(model, *test):.4f}"
            writer.writerow([readout, pos_std, seed, accuracy, machine])
            file.flush()


if __name__ == "__main__":
    main()
