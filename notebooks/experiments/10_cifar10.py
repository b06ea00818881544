"""Train the CIFAR-10 ViT of the book (chapter 10), one seed a run.

    python notebooks/experiments/10_cifar10.py --data my_data --runs runs --seed 0
    python notebooks/experiments/10_cifar10.py --data my_data --runs runs --recipe gpu

Fetch the set with `python -m vitlib.downloads cifar10 my_data`. The recipe for a GPU
aims at 91 %; the one for a processor aims at 70 % and takes about an hour and a half of
one core for a seed. A training that was stopped goes on when the same command runs
again.

5,000 of the 50,000 training images are held out; by them the recipe was chosen, and
by them the seed that ships is. The weights of the last epoch are rounded to 16 bits
and tested once. The seed's line in 10_cifar10.csv beside this file is replaced, and
RUNS/cifar10_RECIPE_SEED holds weights.safetensors and metrics.csv.
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
from vitlib.checkpoints import save_checkpoint
from vitlib.data import cifar10, hold_out
from vitlib.train import TrainConfig, evaluate, train

# Plain ViTs: a class token, learned positions, patches by one linear map.
SIZES = dict(image_size=32, patch_size=4, num_classes=10, mlp_ratio=2.0)
MODELS = {
    "cpu": ViTConfig(**SIZES, embed_dim=128, depth=6, num_heads=4),
    "gpu": ViTConfig(
        **SIZES, embed_dim=224, depth=9, num_heads=7, drop_path_rate=0.1, fused=True
    ),
}
RECIPES = {
    "cpu": dict(epochs=40, lr=1e-3, crop=0.125, rand_ops=1, bf16=True, device="cpu"),
    "gpu": dict(
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


def main() -> None:
    """Train one seed, test it once, and note what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--recipe", choices=RECIPES, default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    recipe = RECIPES[options.recipe]
    if recipe["device"] == "cpu":
        torch.set_num_threads(1)
    images, labels = cifar10(options.data)
    kept, held = hold_out(labels, 0.1)
    torch.manual_seed(options.seed)
    model = ViT(MODELS[options.recipe])
    folder = options.runs / f"cifar10_{options.recipe}_{options.seed}"
    train(
        model,
        images[kept],
        labels[kept],
        held_out=(images[held], labels[held]),
        config=TrainConfig(**recipe, seed=options.seed),
        folder=folder,
        log=sys.stdout,
    )
    # The file is for any machine: without the kernel that a GPU wants.
    shipped = ViT(dataclasses.replace(model.config, fused=False))
    shipped.load_state_dict(model.state_dict())
    save_checkpoint(shipped.half(), folder / "weights.safetensors")
    shipped.float().eval()
    test_images, test_labels = cifar10(options.data, "test")
    machine = (
        torch.cuda.get_device_name()
        if recipe["device"] == "cuda"
        else f"{platform.machine()}, 1 thread"
    )
    note(
        {
            "recipe": options.recipe,
            "seed": options.seed,
            "parameters": count_parameters(shipped.config),
            "epochs": recipe["epochs"],
            "held_out": evaluate(shipped, normalise(images[held]), labels[held]),
            "test": evaluate(shipped, normalise(test_images), test_labels),
            "machine": f"{machine}, torch {torch.__version__.split('+')[0]}",
        }
    )


def note(row: dict) -> None:
    """Put the row into the table, in place of an older one of its recipe and seed."""
    path = Path(__file__).with_suffix(".csv")
    rows = {}
    if path.exists():
        with path.open(newline="") as file:
            rows = {
                (old["recipe"], int(old["seed"])): old for old in csv.DictReader(file)
            }
    for name in ("held_out", "test"):
        row[name] = f"{row[name]:.4f}"
    rows[row["recipe"], row["seed"]] = row
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
    print(row)


if __name__ == "__main__":
    main()
