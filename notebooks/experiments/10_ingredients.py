"""What each ingredient of the recipe is worth: leave one out at a time (chapter 10).

    python notebooks/experiments/10_ingredients.py

A small ViT learns from 1,000 clothes, 100 a class, and is measured on the other 11,000
training images that ship: in a short training, in a short one at a rate that is too
high, and in a long one. Three seeds each, with the whole recipe and without one of its
parts. About an hour of one core; every line of 10_ingredients.csv is written as soon
as it is known, and a second run goes on there.
"""

import csv
import itertools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F

from vitlib import ViT, ViTConfig
from vitlib.augment import normalise
from vitlib.data import fashion_mnist, hold_out
from vitlib.files import replace_whole
from vitlib.train import TrainConfig, train

MODEL = ViTConfig(
    image_size=28,
    patch_size=7,
    in_channels=1,
    num_classes=10,
    embed_dim=64,
    depth=4,
    num_heads=4,
    mlp_ratio=2.0,
    pool="mean",
)
TRAININGS = {
    "short": {"epochs": 40, "lr": 2e-3},
    "hot": {"epochs": 40, "lr": 1e-2},
    "long": {"epochs": 160, "lr": 2e-3},
}
WITHOUT = {
    "nothing": {},
    "warm-up": {"warmup": 0.0},
    "clipping": {"clip": 1e9},
    "decay": {"weight_decay": 0.0},
    "smoothing": {"label_smoothing": 0.0},
    "augmentation": {"flip": False, "crop": 0.0},
}
SEEDS = range(3)
TABLE = Path(__file__).with_suffix(".csv")
MACHINE = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"


def measure(training: str, without: str, seed: int) -> dict:
    """Train one model; return its row of the table."""
    images, labels = fashion_mnist()
    rest, learned = hold_out(labels, 1 / 12)
    torch.manual_seed(seed)
    model = ViT(MODEL)
    recipe = {"batch_size": 32, "device": "cpu", "seed": seed}
    config = TrainConfig(**recipe | TRAININGS[training] | WITHOUT[without])
    history = train(model, images[learned], labels[learned], config=config)
    rest_images = normalise(images[rest])
    with torch.no_grad():
        scores = torch.cat([model(batch) for batch in rest_images.split(500)])
    right = scores.argmax(dim=1) == labels[rest]
    sureness = scores.softmax(dim=1).amax(dim=1)
    return {
        "training": training,
        "without": without,
        "seed": seed,
        "train_loss": round(history[-1]["train_loss"], 4),
        "accuracy": round(right.float().mean().item(), 4),
        "confidence": round(sureness.mean().item(), 4),
        "loss": round(F.cross_entropy(scores, labels[rest]).item(), 4),
        "machine": MACHINE,
    }


def main() -> None:
    """Fill the table."""
    torch.set_num_threads(1)
    rows = []
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["training"], row["without"], int(row["seed"])) for row in rows}
    for job in itertools.product(TRAININGS, WITHOUT, SEEDS):
        if job in done:
            continue
        rows.append(measure(*job))
        print(rows[-1], flush=True)
        with replace_whole(TABLE) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
