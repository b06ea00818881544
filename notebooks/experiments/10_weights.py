"""Train the models that ship with the book (chapter 10), one seed a run.

    python notebooks/experiments/10_weights.py fashion_mnist --runs runs --seed 0
    python notebooks/experiments/10_weights.py cifar10 --data DIR --runs runs --seed 0
    python notebooks/experiments/10_weights.py cifar10_gpu --data DIR --runs runs

fashion_mnist needs the full set, from Debian's package dataset-fashion-mnist or from
`python -m vitlib.downloads fashion_mnist DIR`; the others need what
`python -m vitlib.downloads cifar10 DIR` fetches. A seed of the first two takes more
than an hour of one core. cifar10_gpu aims at 91 % and wants a GPU. A training that was
stopped goes on when the same command runs again.

A part of the training images is held out; by them the recipe was chosen. Seed 0 ships,
the others show the spread. RUNS/RECIPE_SEED/weights.safetensors holds the weights of
the last epoch, rounded to 16 bits, and 10_weights.csv beside this file a line for the
seed. With --test the finished weights are measured on the test images as well: once,
when all is decided.
"""

import argparse
import csv
import dataclasses
import platform
import sys
from pathlib import Path

import torch

from vitlib import ViT, ViTConfig, count_parameters
from vitlib.augment import normalise
from vitlib.checkpoints import load_checkpoint, save_checkpoint
from vitlib.data import cifar10, fashion_mnist, hold_out
from vitlib.files import replace_whole
from vitlib.positions import sincos_2d
from vitlib.train import TrainConfig, evaluate, train

SMALL = dict(embed_dim=128, depth=6, num_heads=4, mlp_ratio=2.0)
CIFAR10 = dict(image_size=32, patch_size=4, num_classes=10)
MODELS = {
    "fashion_mnist": ViTConfig(
        image_size=28, patch_size=4, in_channels=1, num_classes=10, pool="mean", **SMALL
    ),
    # Plain ViTs: a class token, learned positions, patches by one linear map.
    "cifar10": ViTConfig(**CIFAR10, **SMALL),
    "cifar10_gpu": ViTConfig(
        **CIFAR10,
        embed_dim=224,
        depth=9,
        num_heads=7,
        mlp_ratio=2.0,
        drop_path_rate=0.1,
        fused=True,
    ),
}
RECIPES = {
    "fashion_mnist": dict(epochs=40, lr=1e-3, crop=0.04, bf16=True, device="cpu"),
    "cifar10": dict(
        epochs=40, lr=1e-3, crop=0.125, rand_ops=1, bf16=True, device="cpu"
    ),
    "cifar10_gpu": dict(
        epochs=300,
        batch_size=512,
        lr=1.5e-3,
        weight_decay=0.06,
        crop=0.125,
        rand_ops=2,
        mixup=0.8,
        cutmix=1.0,
        ema=0.999,
        bf16=True,
        device="cuda",
    ),
}
HELD_OUT = {"fashion_mnist": 1 / 12, "cifar10": 0.1, "cifar10_gpu": 0.1}
TABLE = Path(__file__).with_suffix(".csv")


def load(recipe: str, split: str, folder: str | None) -> tuple:
    """Return the images and labels of a recipe."""
    if recipe == "fashion_mnist":
        return fashion_mnist(split, folder or "/usr/share/datasets/fashion-mnist")
    if folder is None:
        raise SystemExit(f"{recipe} needs --data, the folder with CIFAR-10")
    return cifar10(folder, split)


def fresh(config: ViTConfig, seed: int) -> ViT:
    """Make a model whose learned positions start as sines.

    A table that starts as noise stays noise in a short training (chapter 03).
    """
    torch.manual_seed(seed)
    model = ViT(config)
    rows, cols = config.grid_size
    with torch.no_grad():
        model.pos_embed[0, -rows * cols :] = sincos_2d((rows, cols), config.embed_dim)
    return model


def learn(recipe: str, seed: int, data: str | None, folder: Path) -> dict:
    """Train a seed, keep its weights, and return its row of the table."""
    settings = RECIPES[recipe]
    if settings["device"] == "cpu":
        torch.set_num_threads(1)
    images, labels = load(recipe, "train", data)
    kept, held = hold_out(labels, HELD_OUT[recipe])
    model = fresh(MODELS[recipe], seed)
    train(
        model,
        images[kept],
        labels[kept],
        held_out=(images[held], labels[held]),
        config=TrainConfig(**settings, seed=seed),
        folder=folder,
        log=sys.stdout,
    )
    # The file is for any machine: without the kernel that a GPU wants.
    plain = ViT(dataclasses.replace(model.config, fused=False)).half()
    plain.load_state_dict(model.state_dict())
    save_checkpoint(plain, folder / "weights.safetensors")
    machine = f"{platform.machine()}, 1 thread"
    if settings["device"] == "cuda":
        machine = torch.cuda.get_device_name()
    return {
        "recipe": recipe,
        "seed": seed,
        "parameters": count_parameters(plain.config),
        "epochs": settings["epochs"],
        "held_out": measure(folder, images[held], labels[held]),
        "test": "",
        "machine": f"{machine}, torch {torch.__version__.split('+')[0]}",
    }


def measure(folder: Path, images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return the accuracy of the weights that were kept."""
    model = load_checkpoint(folder / "weights.safetensors").float()
    return f"{evaluate(model, normalise(images), labels):.4f}"


def main() -> None:
    """Train a seed, or test it, and note what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--data")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--test", action="store_true", help="measure on the test images"
    )
    options = parser.parse_args()
    key = (options.recipe, str(options.seed))
    folder = options.runs / "_".join(key)

    if options.test:
        test = load(options.recipe, "test", options.data)
        row = table()[key] | {"test": measure(folder, *test)}
    else:
        row = learn(options.recipe, options.seed, options.data, folder)
    print(row)
    rows = table() | {key: row}
    with replace_whole(TABLE) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))


def table() -> dict[tuple[str, str], dict]:
    """Read the rows that are known, by recipe and seed."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {(row["recipe"], row["seed"]): row for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
