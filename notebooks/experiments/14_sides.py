"""The shipped weights on images of other sizes (chapter 14).

The position table is stretched in two ways, bilinear and bicubic. Both change the
length of its vectors, so each is also measured with the lengths of the other. Direction
"detour" is a control: the image is shrunk and brought back to 28 pixels, so it lacks
what the small one lacks, and nothing is stretched. There is one set of weights, so the
2,000 test images are dealt into five parts instead; the column `seed` is the part.
Writes 14_sides.csv beside this file, in about ten minutes of one core; run again, it
goes on where it was stopped.
"""

import csv
import dataclasses
import itertools
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlib import ViT, resample_pos_embed
from vitlib.augment import normalise
from vitlib.checkpoints import load_pretrained
from vitlib.data import fashion_mnist
from vitlib.train import evaluate

SIDES = (16, 20, 24, 28, 32, 40, 56)
MODES = ("bilinear", "bicubic")
PARTS = 5
TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = "side", "direction", "length", "seed", "accuracy", "norm", "machine"


def resize(images: Tensor, side: int) -> Tensor:
    """Resize images (N, c, H, W) in [0, 1], averaging where they shrink."""
    size = (side, side)
    resized = F.interpolate(images, size=size, mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


def stretched(model: ViT, side: int, direction: str, length: str) -> Tensor:
    """Stretch a model's positions one way, with the lengths of another way."""
    grids = model.config.grid_size, at(model, side).grid_size
    table = resample_pos_embed(model.pos_embed.detach(), *grids, direction)
    lengths = resample_pos_embed(model.pos_embed.detach(), *grids, length)
    return table * (lengths.norm(dim=2) / table.norm(dim=2))[:, :, None]


def at(model: ViT, side: int):
    """Return the config of the same model for larger or smaller images."""
    return dataclasses.replace(model.config, image_size=side, fused=True)


def moved(model: ViT, side: int, pos_embed: Tensor) -> ViT:
    """Build the same model for another size, with the positions given."""
    other = ViT(at(model, side)).eval()
    other.load_state_dict(model.state_dict() | {"pos_embed": pos_embed})
    return other


def measure(model: ViT, side: int, direction: str, length: str, part: int) -> tuple:
    """Return the accuracy on one part and the mean length of a patch's position."""
    images, labels = fashion_mnist("test")
    mine = part_of(len(labels), part)
    if direction == "detour":
        back = resize(resize(images[mine], side), model.config.image_size)
        accuracy = evaluate(model, normalise(back), labels[mine])
        return accuracy, model.pos_embed[0, 1:].norm(dim=1).mean().item()
    pos_embed = stretched(model, side, direction, length)
    other = moved(model, side, pos_embed)
    accuracy = evaluate(other, normalise(resize(images[mine], side)), labels[mine])
    return accuracy, pos_embed[0, 1:].norm(dim=1).mean().item()


def part_of(count: int, part: int) -> Tensor:
    """Return the numbers of the images in one part, (N / PARTS)."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[part::PARTS]


def main() -> None:
    """Measure what the table does not have yet."""
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__.split('+')[0]}"
    model = load_pretrained("fashion_mnist_vit")
    known = {tuple(row[:4]) for row in rows()}
    with TABLE.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not known:
            writer.writerow(COLUMNS)
        runs = [
            *itertools.product(SIDES, MODES, MODES, range(PARTS)),
            *itertools.product(SIDES, ("detour",), ("detour",), range(PARTS)),
        ]
        for run in runs:
            if tuple(map(str, run)) in known:
                continue
            accuracy, norm = measure(model, *run)
            writer.writerow([*run, f"{accuracy:.4f}", f"{norm:.4f}", machine])
            file.flush()


def rows() -> list[list[str]]:
    """Read the rows that are known, without the names of the columns."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return list(csv.reader(file))[1:]


if __name__ == "__main__":
    main()
