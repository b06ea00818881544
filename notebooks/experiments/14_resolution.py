"""Smaller patches, at equal epochs and at equal compute (chapter 14).

The same small ViT on the clothes that ship, cut into patches of 14, 7, 4 and 2 pixels,
three seeds each. An epoch is as many draws as there are images. The numbers of epochs
are chosen so that the same trainings stand beside each other at equal epochs and at
equal compute: the next smaller patch costs 3.3 times as much (2 pixels: 6.3 times as
much as 4), and EQUAL names the pairs that cost the same. Two other learning rates are
a control. Appends to 14_resolution.csv beside this file, in about 45 minutes of one
core; run again, it goes on where it was stopped.
"""

import csv
import platform
from pathlib import Path

import torch

from vitlib import ViT, ViTConfig, sincos_2d
from vitlib.augment import normalise
from vitlib.data import fashion_mnist
from vitlib.train import evaluate, fit

PATCH_SIZES = (14, 7, 4, 2)
LR, OTHER_LRS = 0.003, (0.001, 0.009)
# Patch size, epochs, learning rate.
RUNS = [(p, epochs, LR) for epochs in (1, 3.3, 10.9) for p in (14, 7, 4)]
RUNS += [(14, 36, LR), (4, 6.28, LR), (2, 1, LR), (2, 3.3, LR)]
RUNS += [(p, 3.3, lr) for lr in OTHER_LRS for p in (14, 7, 4)]
# Patch size and epochs, and those of the next smaller patch that cost the same.
EQUAL = (
    (14, 3.3, 7, 1),
    (14, 10.9, 7, 3.3),
    (14, 36, 7, 10.9),
    (7, 3.3, 4, 1),
    (7, 10.9, 4, 3.3),
    (4, 6.28, 2, 1),
)
SEEDS = range(3)
BATCH_SIZE = 64
TABLE = Path(__file__).with_suffix(".csv")
VARIANT = "patch_size", "epochs", "lr", "seed"
MEASURED = "accuracy", "train_accuracy"


def config_of(patch_size: int) -> ViTConfig:
    """Return the sizes of the model: all equal, but for the patches."""
    return ViTConfig(
        image_size=28,
        patch_size=patch_size,
        in_channels=1,
        num_classes=10,
        embed_dim=48,
        depth=3,
        num_heads=4,
        mlp_ratio=2.0,
        pool="mean",
        fused=True,
    )


def measure(
    patch_size: int, epochs: float, lr: float, seed: int
) -> tuple[float, float]:
    """Train one model; return its accuracy on the test and the training images."""
    images, labels = fashion_mnist()
    images = normalise(images)
    torch.manual_seed(seed)
    config = config_of(patch_size)
    model = ViT(config)
    with torch.no_grad():
        # A table that starts as noise stays noise in a short training (chapter 03).
        model.pos_embed[0, 1:] = sincos_2d(config.grid_size, config.embed_dim)
    steps = round(epochs * len(images) / BATCH_SIZE)
    fit(model, images, labels, steps=steps, batch_size=BATCH_SIZE, lr=lr, seed=seed)
    test_images, test_labels = fashion_mnist("test")
    return (
        evaluate(model, normalise(test_images), test_labels),
        evaluate(model, images[:2000], labels[:2000]),
    )


def main() -> None:
    """Train what the table does not have yet."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    known = {tuple(row[: len(VARIANT)]) for row in rows()}
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow([*VARIANT, *MEASURED, "machine"])
        for run in [(*run, seed) for run in RUNS for seed in SEEDS]:
            if tuple(map(str, run)) in known:
                continue
            accuracies = [f"{accuracy:.4f}" for accuracy in measure(*run)]
            writer.writerow([*run, *accuracies, machine])
            file.flush()


def rows() -> list[list[str]]:
    """Read the rows that are known, without the names of the columns."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return list(csv.reader(file))[1:]


if __name__ == "__main__":
    main()
