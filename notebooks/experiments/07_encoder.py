"""Where the LayerNorms sit, and what DropPath does, on the digits (chapter 07).

Pre- against post-norm at two depths and two learning rates, then three rates of
DropPath on few images and on all; five seeds each. Writes 07_encoder.csv beside this
file, in under four minutes of one core. Columns before the seed name the variant.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from vitlib import EncoderBlock, ViT, ViTConfig
from vitlib.data import digits
from vitlib.train import evaluate, fit

SIZES = dict(
    image_size=8,
    patch_size=2,
    in_channels=1,
    num_classes=10,
    embed_dim=32,
    num_heads=4,
    mlp_ratio=2,
)
# Norm, depth, drop_path_rate, training images; learning rate, steps, batch size.
NORM_RUNS = itertools.product(
    ("pre", "post"), (2, 12), (0.0,), (1438,), (0.001, 0.003), (150,), (32,)
)
DROP_RUNS = itertools.product(
    ("pre",), (4,), (0.0, 0.1, 0.3), (200, 1438), (0.003,), (300,), (64,)
)


class PostNormBlock(EncoderBlock):
    """The same parts; each norm comes after the addition."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Add, then normalise, twice."""
        tokens = self.norm1(tokens + self.attn(tokens, mask))
        return self.norm2(tokens + self.mlp(tokens))


def build(norm: str, depth: int, drop_path_rate: float) -> ViT:
    """Make a ViT with loud positions and the norms where they are wanted."""
    model = ViT(ViTConfig(**SIZES, depth=depth, drop_path_rate=drop_path_rate))
    nn.init.normal_(model.pos_embed, std=0.5)
    if norm == "post":
        for i, block in enumerate(model.blocks):
            model.blocks[i] = PostNormBlock(32, num_heads=4, mlp_ratio=2)
            model.blocks[i].load_state_dict(block.state_dict())
    return model


def main() -> None:
    """Train every variant with every seed; write the accuracies and last losses."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    train, test = digits("train"), digits("test")
    path = Path(__file__).with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        variant = "norm", "depth", "drop_path_rate", "images", "lr"
        measured = "accuracy", "train_accuracy", "loss"
        writer.writerow([*variant, "seed", *measured, "machine"])
        for run, seed in itertools.product([*NORM_RUNS, *DROP_RUNS], range(5)):
            norm, depth, drop_path_rate, images, lr, steps, batch_size = run
            seen = train[0][:images], train[1][:images]
            torch.manual_seed(seed)
            model = build(norm, depth, drop_path_rate)
            losses = fit(
                model, *seen, steps=steps, batch_size=batch_size, lr=lr, seed=seed
            )
            measured = (
                f"{evaluate(model, *test):.4f}",
                f"{evaluate(model, *seen):.4f}",
                f"{sum(losses[-30:]) / 30:.4f}",
            )
            variant = norm, depth, drop_path_rate, images, lr
            writer.writerow([*variant, seed, *measured, machine])
            file.flush()


if __name__ == "__main__":
    main()
