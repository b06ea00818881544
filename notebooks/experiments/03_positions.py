"""What a ViT knows of places without, and with, position embeddings (chapter 03).

Three tasks, eight fillings of pos_embed, five seeds each. Writes 03_positions.csv
beside this file, in about ten minutes of one core.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlib import ViT, ViTConfig, sincos_2d
from vitlib.data import digits, relation_task
from vitlib.train import evaluate, fit

SIZES = dict(in_channels=1, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2)
RELATION = ViTConfig(**SIZES, image_size=32, patch_size=8, num_classes=4)
DIGITS = ViTConfig(**SIZES, image_size=8, patch_size=2, num_classes=10)
RELATION_TRAINING = dict(steps=300, lr=3e-3)
DIGITS_TRAINING = dict(steps=600, lr=3e-3, batch_size=64)

# Standard deviation of the random tables, and whether they learn. The rows of
# sincos are 0.21 apart.
RANDOM = {
    "random": (0.5, False),
    "random, soft": (0.21, False),
    "learned, quiet": (0.02, True),
    "learned, soft": (0.1, True),
    "learned, loud": (0.5, True),
}
VARIANTS = ("none", "shared", "sincos", *RANDOM)


@torch.no_grad()
def fill(pos_embed: nn.Parameter, variant: str) -> None:
    """Fill the table of a 4 by 4 grid; freeze it unless it is to be learned."""
    learns = False
    if variant == "none":
        pos_embed.zero_()
    elif variant == "shared":
        pos_embed.copy_(torch.randn(1, 1, pos_embed.shape[2]).expand_as(pos_embed))
    elif variant == "sincos":
        pos_embed.zero_()
        pos_embed[0, 1:] = sincos_2d((4, 4), pos_embed.shape[2])
    else:
        std, learns = RANDOM[variant]
        pos_embed.normal_(std=std)
    pos_embed.requires_grad_(learns)


def arrangement(images: Tensor) -> Tensor:
    """Number the 96 ways to place ring and cross, (N, 1, 32, 32) -> (N)."""
    cells = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(1, 3)  # (N, 16, 8, 8)
    ring = cells[:, :, 1:3, 1:3].mean(dim=(2, 3)).argmax(dim=1)  # a corner
    cross = cells[:, :, 3:5, 3:5].mean(dim=(2, 3)).argmax(dim=1)  # the middle
    return 16 * ring + cross


def unseen_task() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Train on 72 arrangements of the relation task, test on the other 24."""
    train, test = relation_task(8000, seed=0), relation_task(4000, seed=1)
    known = arrangement(train[0])
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    held_out = known.unique()[order[:24]]
    keep = ~torch.isin(known, held_out)
    ask = torch.isin(arrangement(test[0]), held_out)
    return (train[0][keep], train[1][keep]), (test[0][ask], test[1][ask])


def grid_shows(pos_embed: Tensor) -> float:
    """Cosine of places in one row or column, above that of all other pairs."""
    table = pos_embed[0, 1:] - pos_embed[0, 1:].mean(dim=0)
    unit = F.normalize(table, dim=1)
    alike = unit @ unit.T  # (n, n)
    row, col = torch.arange(16) // 4, torch.arange(16) % 4
    same_row, same_col = row[:, None] == row, col[:, None] == col
    in_line, elsewhere = alike[same_row ^ same_col], alike[~(same_row | same_col)]
    return (in_line.mean() - elsewhere.mean()).item()


def main() -> None:
    """Train every variant with every seed and write the accuracies."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    relation = (relation_task(8000, seed=0), relation_task(1000, seed=1))
    tasks = {
        "relation": (RELATION, relation, RELATION_TRAINING),
        "unseen": (RELATION, unseen_task(), RELATION_TRAINING),
        "digits": (DIGITS, (digits("train"), digits("test")), DIGITS_TRAINING),
    }
    path = Path(__file__).with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "variant", "seed", "accuracy", "grid", "machine"])
        for task, variant, seed in itertools.product(tasks, VARIANTS, range(5)):
            config, (train, test), training = tasks[task]
            torch.manual_seed(seed)
            model = ViT(config)
            fill(model.pos_embed, variant)
            fit(model, *train, **training, seed=seed)
            accuracy = f"{evaluate(model, *test):.4f}"
            grid = f"{grid_shows(model.pos_embed.detach()):.4f}"
            writer.writerow([task, variant, seed, accuracy, grid, machine])
            file.flush()


if __name__ == "__main__":
    main()
