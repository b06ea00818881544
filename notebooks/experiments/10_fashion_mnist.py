"""Train the Fashion-MNIST ViT that ships with the book, with three seeds.

python notebooks/experiments/10_fashion_mnist.py --runs runs --seed 0

Needs the full set, from Debian's package dataset-fashion-mnist or from
`python -m vitlib.downloads fashion_mnist DIR`. One seed takes about an hour of one
core. A training that was stopped goes on when the same command runs again.
"""

import argparse
import sys
from pathlib import Path

import torch

from vitlib import ViT, ViTConfig
from vitlib.augment import normalise
from vitlib.data import fashion_mnist, hold_out
from vitlib.train import TrainConfig, evaluate, train

MODEL = ViTConfig(
    image_size=28,
    patch_size=4,
    in_channels=1,
    num_classes=10,
    embed_dim=128,
    depth=4,
    num_heads=4,
    mlp_ratio=2.0,
    pool="mean",
    drop_path_rate=0.1,
)
RECIPE = dict(epochs=40, lr=2e-3, crop=0.07, bf16=True, save_every=100)


def main() -> None:
    """Train one seed, and test it once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    images, labels = fashion_mnist("train", options.data)
    kept, held = hold_out(labels, 1 / 12)
    torch.manual_seed(options.seed)
    model = ViT(MODEL)
    folder = options.runs / f"fashion_mnist_{options.seed}"
    history = train(
        model,
        images[kept],
        labels[kept],
        held_out=(images[held], labels[held]),
        config=TrainConfig(**RECIPE, seed=options.seed),
        folder=folder,
        log=sys.stdout,
    )
    test_images, test_labels = fashion_mnist("test", options.data)
    accuracy = evaluate(model, normalise(test_images), test_labels)
    print(f"held out {history[-1]['held_out_accuracy']:.4f}, test {accuracy:.4f}")
    torch.save(model.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    main()
