"""Do the patches that a map calls important matter? Deletion curves (chapter 13).

    python notebooks/experiments/13_deletion.py --data DIR

DIR holds CIFAR-10, as `python -m vitlib.downloads cifar10 DIR` fetches it; the clothes
ship. Both models that ship, two ways to cover a patch, thirteen orders in which they
go, three seeds. A seed has test images of its own, a random order and an untrained
model. Differences are taken image by image: `below_random` is how much less area an
order leaves than the random one, `above_rollout` how much more it leaves than rollout
(or, for orders that begin with the least important, than rollout begun there). Columns
that end in `_half` hold half the width of a 95 % band. Writes two tables beside this
file, in about twelve minutes of one core: 13_deletion.csv has the areas under the
curves, 13_deletion_curves.csv the curves.
"""

import argparse
import csv
import itertools
import platform
from pathlib import Path

import torch
from torch import Tensor

from vitlib import ViT, ViTConfig, split_patches
from vitlib.augment import normalise
from vitlib.checkpoints import load_pretrained
from vitlib.data import cifar10, fashion_mnist
from vitlib.interpret import attention_rollout, delete_patches, record_attention

MODELS = ("cifar10_vit", "fashion_mnist_vit")
# Black is -1 after normalising: for the clothes, what the background is made of.
FILLS = {"mean": "mean", "black": -1.0}
IMAGES = 200
SEEDS = 3
TABLE = Path(__file__).with_suffix(".csv")
CURVES = TABLE.with_name("13_deletion_curves.csv")


def draw(images: Tensor, seed: int) -> Tensor:
    """Take a seed's own images, which no other seed has, and normalise them."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return normalise(images[order[seed * IMAGES : (seed + 1) * IMAGES]])


def as_read(attention: Tensor, config: ViTConfig) -> Tensor:
    """Keep what the head's tokens gather from each patch, (..., T, T) -> (..., n)."""
    if config.pool == "cls":
        return attention[..., 0, 1:]
    return attention[..., 1:, 1:].mean(dim=-2)


@torch.inference_mode()
def probabilities(model: ViT, images: Tensor) -> Tensor:
    """Return how likely each class is, (b, classes)."""
    return torch.cat([model(some).softmax(dim=1) for some in images.split(100)])


def own_answer(model: ViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likeliest class of each image and its probability, both (b, 1)."""
    best = probabilities(model, images).max(dim=1, keepdim=True)
    return best.indices, best.values


def one_by_one(model: ViT, images: Tensor, fill: float | str) -> Tensor:
    """Measure what each patch alone is worth to the model's answer, (b, n)."""
    answer, whole = own_answer(model, images)
    numbers = torch.arange(model.config.num_patches).expand(len(images), -1)
    losses = []
    for patch in range(model.config.num_patches):
        without = delete_patches(
            images, numbers.roll(-patch, dims=1), 1, model.config.patch_size, fill
        )
        losses.append(whole - probabilities(model, without).gather(1, answer))
    return torch.cat(losses, dim=1)


def score_patches(model: ViT, images: Tensor, seed: int) -> dict[str, Tensor]:
    """Rate every patch in many ways, the larger the sooner it goes: (b, n) each."""
    config = model.config
    attention = record_attention(model, images)  # (depth, b, h, i, j)
    heads = as_read(attention, config).mean(dim=2)  # (depth, b, n)
    rollout = as_read(attention_rollout(attention), config)  # (b, n)
    torch.manual_seed(seed)
    chance = torch.rand(len(images), config.num_patches)  # (b, n)
    untrained = record_attention(ViT(config).eval(), images)
    patches = split_patches(images, config.patch_size)  # (b, n, c*p*p)
    rows, cols = config.grid_size
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).float()
    distance = (places - places.mean(dim=0)).norm(dim=1)  # (n)
    return {
        "random": chance,
        # Patches equally far from the centre, or all black, go in random order.
        "centre": 1e-3 * chance - distance,
        "contrast": patches.std(dim=2) + 1e-6 * chance,
        "untrained rollout": as_read(attention_rollout(untrained), config),
        "another's rollout": rollout.roll(1, dims=0),
        "last block": heads[-1],
        "mean of blocks": heads.mean(dim=0),
        "rollout": rollout,
        "centre, least first": 1e-3 * chance + distance,
        "another's rollout, least first": -rollout.roll(1, dims=0),
        "last block, least first": -heads[-1],
        "rollout, least first": -rollout,
    }


def delete(
    model: ViT, images: Tensor, scores: Tensor, fill: float | str
) -> tuple[Tensor, Tensor]:
    """Delete the patches by score, as many at each step as a row of them has.

    Returns:
        The probability of the model's own first answer, and whether it still is its
        answer, both (b, rows + 1).
    """
    answer, whole = own_answer(model, images)
    order = scores.argsort(dim=1, descending=True)
    rows, cols = model.config.grid_size
    steps, kept = [whole], [torch.ones_like(whole)]
    for row in range(1, rows + 1):
        covered = delete_patches(
            images, order, row * cols, model.config.patch_size, fill
        )
        now = probabilities(model, covered)  # (b, classes)
        steps.append(now.gather(1, answer))
        kept.append((now.argmax(dim=1, keepdim=True) == answer).float())
    return torch.cat(steps, dim=1), torch.cat(kept, dim=1)


def area(steps: Tensor) -> Tensor:
    """Take the area under each curve, (b, steps) -> (b): small if much is lost."""
    return torch.trapezoid(steps, dx=1 / (steps.shape[1] - 1), dim=1)


def band(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the images and half the width of its 95 % band."""
    return values.mean(dim=0), 1.96 * values.std(dim=0) / len(values) ** 0.5


def digits_of(*values: Tensor) -> list[str]:
    """Write numbers for a table."""
    return [f"{value.item():.4f}" for value in values]


def measure(model: ViT, images: Tensor, fill: float | str, seed: int) -> dict:
    """Return the curves of every order by its name: probability and kept answers."""
    scores = score_patches(model, images, seed)
    scores["one by one"] = one_by_one(model, images, fill)
    return {
        order: delete(model, images, values, fill) for order, values in scores.items()
    }


def main() -> None:
    """Measure both models and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with CIFAR-10")
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    data = {
        "cifar10_vit": cifar10(folder, "test")[0],
        "fashion_mnist_vit": fashion_mnist("test")[0],
    }
    with TABLE.open("w", newline="") as file, CURVES.open("w", newline="") as file_2:
        table = csv.writer(file, lineterminator="\n")
        curves = csv.writer(file_2, lineterminator="\n")
        measured = ["area", "half", "below_random", "below_random_half"]
        measured += ["above_rollout", "above_rollout_half"]
        table.writerow(["model", "fill", "order", "seed", *measured, "machine"])
        measured = ["probability", "half", "kept"]
        columns = ["model", "fill", "order", "deleted", "seed", *measured, "machine"]
        curves.writerow(columns)
        for name, fill, seed in itertools.product(MODELS, FILLS, range(SEEDS)):
            model, images = load_pretrained(name), draw(data[name], seed)
            found = measure(model, images, FILLS[fill], seed)
            areas = {order: area(steps) for order, (steps, _) in found.items()}  # (b)
            for order, (steps, kept) in found.items():
                # The same images on both sides: such differences have narrow bands.
                least = ", least first" if order.endswith("least first") else ""
                numbers = [
                    *band(areas[order]),
                    *band(areas["random"] - areas[order]),
                    *band(areas[order] - areas[f"rollout{least}"]),
                ]
                row = [name, fill, order, seed, *digits_of(*numbers), machine]
                table.writerow(row)
                mean, half = band(steps)
                for step in range(len(mean)):
                    numbers = digits_of(mean[step], half[step], kept[:, step].mean())
                    deleted = f"{step / (len(mean) - 1):.4f}"
                    row = [name, fill, order, deleted, seed, *numbers, machine]
                    curves.writerow(row)
            file.flush()
            file_2.flush()


if __name__ == "__main__":
    main()
